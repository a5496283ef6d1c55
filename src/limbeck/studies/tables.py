"""The tables of a study, from its rows alone: scores, the paper's beside them, differences, controls. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from limbeck.errors import DataError, UnknownName
from limbeck.reporting.comparing import Comparison, compare_arms
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.studies import paper
from limbeck.studies.cells import score_cell
from limbeck.studies.measured import ROUGE, ArmRows, Measured, check_equal_contents, measured_effect
from limbeck.studies.published import published_table
from limbeck.studies.special_tables import special_tables
from limbeck.studies.verdicts import Verdict, verdicts

_DRAWS = 4_000
_Way = Literal["higher", "lower"] | None
_OWN = ("own", "cross_entropy")
_UNSURE = "−log s of own answers"
# measure, score, title, scale, digits, which way is better
_Beside = tuple[tuple[str, str, str, float, int, _Way], ...]
_USUAL: _Beside = (
    ("references", "kl_teacher_student", "KL(t‖s) refs", 1.0, 3, "lower"),
    (*_OWN, _UNSURE, 1.0, 2, None),
)
_BESIDE: Mapping[str, _Beside] = {
    "": _USUAL,
    "limits": (*_USUAL, ("answers", "stopped", "ends by itself %", 100.0, 0, None)),
    "methods": (
        ("references", "kl_teacher_student", "KL(t‖s) refs", 1.0, 3, "lower"),
        ("own", "kl_student_teacher", "KL(s‖t) own", 1.0, 3, "lower"),
        ("answers", "distinct_2", "distinct-2 %", 100.0, 1, "higher"),
        ("references", "distinct_2", "of references %", 100.0, 1, "higher"),
    ),
    "generation": (
        ("own", "teacher_cross_entropy", "−log t of own answers", 1.0, 3, "lower"),
        ("answers", "distinct_2", "distinct-2 %", 100.0, 1, "higher"),
        ("across", "self_bleu", "self-BLEU %", 100.0, 1, "lower"),
        ("answers", "repetition", "repeated 4-grams %", 100.0, 1, "lower"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that a study has to say."""

    title: str
    tables: tuple[tuple[str, Table], ...]
    verdicts: tuple[Verdict, ...]
    measured: Measured


def result_of(rows: Path, study: str, *, against: str = "") -> Result:
    """The tables and verdicts of a study from its rows, with differences from its baseline or from the arm `against`.

    The verdicts do not depend on it. Raises `DataError` where there are no rows, and `UnknownName`.
    """
    measured = Measured.read(rows, study)
    if not measured.arms and not any(arm.failures for arm in measured.ledger.arms):
        raise DataError(f"no arm of the study {study} has rows in {rows} yet\n  run it: limbeck study {study}")
    check_equal_contents(measured)
    tables = [(measured.ledger.title or study, scores_table(_against(measured, against)))]
    if study == "table1":
        tables.append(("What the paper prints", published_table()))
    tables += special_tables(measured)
    title = measured.ledger.title or study
    return Result(title=title, tables=tuple(tables), verdicts=verdicts(measured), measured=measured)


def _against(measured: Measured, arm: str) -> Measured:
    """The same with another arm as the one that the others are compared with."""
    if not arm:
        return measured
    if arm not in measured.arms:
        raise UnknownName.among("arm with rows", arm, list(measured.arms), "--against")
    return replace(measured, ledger=replace(measured.ledger, baseline=arm))


def scores_table(measured: Measured) -> Table:
    """One row an arm: ROUGE-L of each corpus with its standard error, their average, the difference from the baseline.

    An arm "distils" where the intervals of its differences from all null controls lie above 0.
    """
    ledger = measured.ledger
    titles, published = paper.beside(ledger.study)
    beside = _BESIDE.get(ledger.study, _BESIDE[""])
    has_controls = bool(ledger.controls)
    columns = [
        Column(title="arm"),
        *(Column(title=corpus, better="higher") for corpus in measured.corpora),
        Column(title="average", better="higher"),
        Column(title=f"− {ledger.baseline}"),
        Column(title="p (Holm)"),
        *(Column(title=title, better=way) for _, _, title, _, _, way in beside),
        *([Column(title="distils")] if has_controls else []),
        *(Column(title=title) for title in titles),
        Column(title="seeds"),
        Column(title="rows"),
    ]
    compared = compared_arms(measured)
    rows = []
    for arm in ledger.arms:
        found = measured.arms.get(arm.name)
        cells: list[Cell] = [arm.label]
        cells += [score_cell(found, (corpus,), *ROUGE) for corpus in measured.corpora]
        cells += [score_cell(found, measured.average, *ROUGE)]
        comparison = compared.get(arm.name)
        cells += [None if comparison is None else Number.of(comparison.gap, scale=100, digits=2, signed=True)]
        cells += [None if comparison is None else Number(value=comparison.adjusted, digits=3)]
        cells += [
            score_cell(found, measured.average, measure, score, scale=scale, digits=digits)
            for measure, score, _, scale, digits, _ in beside
        ]
        cells += [distils(measured, arm.name)] if has_controls else []
        cells += [Number(value=number, digits=2) for number in published.get(arm.name, ())] or [None] * len(titles)
        seeds = [] if found is None else sorted(seed for seed, _ in found.runs)
        cells += [", ".join(seeds) or None, _where(arm.runs, arm.failures, found)]
        is_ranked = found is not None and not found.is_stage and arm.name not in ledger.controls
        rows.append(Row(cells=tuple(cells), ranked=is_ranked))
    return Table(columns=tuple(columns), rows=tuple(rows), notes=_notes(measured, titles))


def distils(measured: Measured, arm: str) -> str | None:
    """Whether an arm beats all null controls; None for controls and stages, and where there are no rows or the controls
    learned from other data."""
    controls = measured.ledger.controls
    if arm in controls or arm not in measured.arms or measured.arms[arm].is_stage:
        return None
    if any(measured.corpora_of(arm) != measured.corpora_of(each) for each in controls if each in measured.arms):
        return None
    gaps = [measured.gap(arm, control) for control in controls]
    known = [gap for gap in gaps if gap is not None]
    if not known:
        return None
    if len(known) == len(controls) and all(gap.low > 0 for gap in known):
        return "yes"
    return "no" if any(gap.high < 0 for gap in known) else "not shown"


def compared_arms(measured: Measured) -> dict[str, Comparison]:
    """Every arm against the baseline, where both have runs of one start; Holm over all of them."""
    baseline = measured.ledger.baseline
    gaps: dict[str, dict[tuple[str, str], float]] = {}
    for name in measured.arms:
        sides = measured.paired(name, baseline, measure=ROUGE[0], score=ROUGE[1])
        if name != baseline and sides is not None:
            gaps[name] = {id: value - sides[1][id] for id, value in sides[0].items()}
    if not gaps:
        return {}
    # Differences against nothing: the baseline's seeds and start are the arm's own, so each has its own baseline.
    nothing = dict.fromkeys(next(iter(gaps.values())), 0.0)
    found = compare_arms({"": nothing, **gaps}, baseline="", draws=_DRAWS)
    return {each.arm: each for each in found}


def _where(runs: Mapping[str, str], failures: Mapping[str, str], found: ArmRows | None) -> Cell:
    """The files of an arm's rows, and what failed."""
    there = [] if found is None else [run.path.name.removesuffix(".jsonl.gz") for run in found.runs.values()]
    failed = [f"seed {seed} failed: {told}" for seed, told in failures.items()]
    waiting = len(runs) - len(there) - len(failed)
    return " ".join([*there, *failed, *([f"{waiting} not run"] if waiting > 0 else [])]) or None


def _notes(measured: Measured, titles: tuple[str, ...]) -> tuple[str, ...]:
    ledger = measured.ledger
    names = ", ".join(measured.average)
    notes = [
        f"ROUGE-L in per cent ± standard error over examples; average: the mean of {names}. Difference from "
        f"{ledger.baseline} with its 95 % bootstrap interval over examples, paired by example within one start and one "
        "training seed; p by a paired permutation test, with Holm's correction over the arms of the table.",
        "rows: the files of the scores behind each row, in this study's folder of rows; every cell is the mean of the "
        "lines of its corpus there.",
    ]
    if ledger.controls:
        notes.append(
            f"distils: beats all {len(ledger.controls)} null controls ({'; '.join(ledger.controls)}) with the whole "
            "interval of its average."
        )
    if any(column[2] == _UNSURE for column in _BESIDE.get(ledger.study, _BESIDE[""])):
        notes.append(
            f"{_UNSURE}: how unsure an arm is of the tokens that it draws, in nats; at temperature 1 ROUGE-L depends "
            f"on it too{_together(measured)}."
        )
    if len(measured.starts) > 1:
        notes.append(
            f"The arms began from {len(measured.starts)} different starts ({', '.join(sorted(measured.starts))}). Each "
            "run is compared with those of its own start alone; an arm's own means are over all of its runs."
        )
    if not measured.has_equal_runs:
        notes.append(
            "The arms do not all have the same runs (training seeds and starts), so that their means are not "
            f"comparable with each other; the difference from {ledger.baseline} is, for it pairs runs of one seed and "
            "start."
        )
    effect = measured_effect(measured)
    if effect is not None:
        notes.append(f"The smallest difference from {ledger.baseline} that these rows show at 80 % power: {effect}.")
    failed = [arm.label for arm in ledger.arms if arm.failures]
    notes += [f"Failed: {', '.join(failed)}; the table is not complete."] if failed else []
    notes += paper.SLIPS.get(ledger.study, ()) if titles else ()
    return tuple(notes)


def _together(measured: Measured) -> str:
    found = measured.correlation(_OWN, ROUGE)
    return (
        ""
        if found is None
        else f" (over the {found[1]} trained arms but the controls they correlate with {found[0]:.2f})"
    )
