"""The eight answers of a study's page, from its rows alone. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.reporting.durations import duration
from limbeck.reporting.questions import KeyAnswer, all_answered, of_each
from limbeck.reporting.reduce import mean_over
from limbeck.reporting.run_answers import against_sft, mean_of, real_or_not
from limbeck.reporting.tables import Number
from limbeck.reporting.telling import drawn_share, kept_student, left_out, watched
from limbeck.studies.measured import ROUGE, Measured, Start
from limbeck.studies.rows import RunRows
from limbeck.studies.tables import compared_arms, distils

TABLE, RUNS, CONTROLS, ROWS = "scores", "runs", "controls", "rows-0"
# Of more arms the page tells about the best one in words, and about the others in its table of runs.
_MOST_TOLD = 8


def study_answers(measured: Measured, *, command: str, shown: Sequence[str]) -> tuple[KeyAnswer, ...]:
    """All eight; `command` is what the study was run with, "" where that is not known."""
    ranked = _ranked(measured)
    told = _told(measured, ranked)
    answers = (
        _best(measured, ranked),
        _sft(measured, ranked),
        KeyAnswer(about="checkpoint", says=_of_runs(told, _kept), see=(RUNS,)),
        KeyAnswer(about="rows", says=of_each([(name, _rows(run)) for name, run in _runs(measured)]), see=(RUNS,))
        if _runs(measured)
        else KeyAnswer(about="rows", says=_NOTHING),
        KeyAnswer(about="drawn", says=_of_runs(told, _drawn), see=(RUNS,)),
        _watch(measured),
        _cost(measured),
        _repeat(measured, command),
    )
    return all_answered(answers, shown=shown)


_NOTHING = ("No run of this study was trained, or none is done yet.",)


def _runs(measured: Measured) -> list[tuple[str, RunRows]]:
    """The trained runs by "ARM, seed N"."""
    return [
        (f"{arm.arm.label}, seed {seed}", run)
        for arm in measured.arms.values()
        for (seed, _), run in arm.runs.items()
        if seed != "-"
    ]


def _ranked(measured: Measured) -> list[tuple[str, float]]:
    """The trained arms that are no controls, with their means, the best first.

    A mean is over the runs of the starts and seeds that all of them have, where there are such, or else over its own.
    """
    names = [name for name, arm in measured.arms.items() if not arm.is_stage and name not in measured.ledger.controls]
    scored = [name for name in names if _scores(measured, name, list(measured.arms[name].runs))]
    shared = measured.shared(scored)
    found = []
    for name in scored:
        values = _scores(measured, name, shared or list(measured.arms[name].runs))
        found.append((name, mean_over(values)))
    return sorted(found, key=lambda each: -each[1])


def _scores(measured: Measured, name: str, runs: Sequence[Start]) -> dict[tuple[str, str], float]:
    return measured.arms[name].values(runs, measure=ROUGE[0], score=ROUGE[1], corpora=measured.average)


def _told(measured: Measured, ranked: Sequence[tuple[str, float]]) -> list[tuple[str, RunRows]]:
    names = {measured.arms[name].arm.label for name, _ in (ranked if len(ranked) <= _MOST_TOLD else ranked[:1])}
    return [(name, run) for name, run in _runs(measured) if name.rpartition(", seed ")[0] in names]


def _of_runs(told: Sequence[tuple[str, RunRows]], sentence: Any) -> tuple[str, ...]:
    return of_each([(name, sentence(run)) for name, run in told]) if told else _NOTHING


def _best(measured: Measured, ranked: Sequence[tuple[str, float]]) -> KeyAnswer:
    over = ", ".join(measured.average)
    if len(ranked) < 2:
        says = ("Fewer than two trained arms have scores, so that none can be called the best; run the others.",)
        return KeyAnswer(about="best", says=says, see=(TABLE,))
    (first, mean), (second, _) = ranked[:2]
    names = [name for name, _ in ranked]
    label = {name: measured.arms[name].arm.label for name in names}
    score = f"{label[first]} has the highest mean ROUGE-L over {over}, {Number(value=100 * mean).text()} %"
    shared = measured.shared(names)
    if not shared:
        says = (
            f"{score}, but the {len(names)} arms have no training seed and start in common, so that their means are "
            "over different runs and none can be called the best; train all of them with the same --seeds.",
        )
        return KeyAnswer(about="best", says=says, see=(TABLE,))
    if any(len(measured.arms[name].runs) > len(shared) for name in names):
        score += f", in the runs that all {len(names)} arms have (seed{_numbered(shared)})"
    # Two arms may have more runs in common than all arms have, and these may say otherwise.
    behind = [name for name in names[1:] if _lead(measured, first, name) <= 0]
    gap = measured.gap(first, behind[0] if behind else second)
    if gap is None:
        says = (f"{score}; {label[second]} comes second and was scored on other examples, so that they do not pair.",)
        return KeyAnswer(about="best", says=says, see=(TABLE,))
    if behind:
        says = (
            f"{score}, but it does not lead {label[behind[0]]} in the runs that the two have in common: "
            f"{mean_of(gap)} on the same {gap.num_examples:,} examples (95 % paired bootstrap). None can be called the "
            "best.",
        )
        return KeyAnswer(about="best", says=says, see=(TABLE, ROWS))
    verdict = "the interval excludes 0" if gap.excludes_zero else "which could be chance"
    picked = f"; the first of {len(ranked)} is picked after looking, which flatters it" if len(ranked) > 2 else ""
    says = (
        f"{score}. It leads {label[second]} by {mean_of(gap)} on the same {gap.num_examples:,} examples (95 % paired "
        f"bootstrap): {verdict}{picked}.",
    )
    return KeyAnswer(about="best", says=says, see=(TABLE, ROWS))


def _lead(measured: Measured, first: str, other: str) -> float:
    """How far an arm is before another over all runs that pair, summed over examples; infinitely where none do."""
    sides = measured.paired(first, other, measure=ROUGE[0], score=ROUGE[1])
    return math.inf if sides is None else math.fsum(value - sides[1][id] for id, value in sides[0].items())


def _numbered(shared: Sequence[Start]) -> str:
    """The seeds of some starts: " 1", "s 1, 3"."""
    seeds = dict.fromkeys(seed for seed, _ in shared)
    return f"{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _sft(measured: Measured, ranked: Sequence[tuple[str, float]]) -> KeyAnswer:
    base = next((name for name, _ in ranked if _is_sft(measured, name)), None)
    if base is None:
        says = (
            "There is no SFT arm here to hold it against: add one, sft: {method.base: sft}, to the arms, and give the "
            "same command again; arms that are done are not trained again.",
        )
        return KeyAnswer(about="sft", says=(*says, *_distilling(measured, ranked)), see=(TABLE, CONTROLS))
    compared = compared_arms(measured) if base == measured.ledger.baseline else {}
    lines = []
    for name, _ in ranked[: _MOST_TOLD + 1]:
        if name == base:
            continue
        gap = measured.gap(name, base)
        if name in compared:
            lines.append(against_sft(compared[name], base=base, num_compared=len(compared)))
        elif gap is not None:
            # SFT is not the baseline of this table: its intervals are all that is known, each by itself.
            lines.append(f"{name} − {base}: {mean_of(gap)}; {real_or_not(gap, is_real=gap.excludes_zero)}.")
        else:
            lines.append(f"{name} and {base} share no start and seed, so that they do not pair.")
    told = (*(lines or ["SFT is the only arm that is done."]), *_distilling(measured, ranked))
    return KeyAnswer(about="sft", says=told, see=(TABLE, CONTROLS))


def _distilling(measured: Measured, ranked: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    if not measured.ledger.controls or not ranked:
        return ()
    found = {name: distils(measured, name) for name, _ in ranked}
    said = [
        f"{what}: {', '.join(names)}"
        for answer, what in (("yes", "beat all of them"), ("not shown", "are not shown to"), ("no", "do not"))
        if (names := [name for name, each in found.items() if each == answer])
    ]
    return (f"Against the {len(measured.ledger.controls)} null controls, {'; '.join(said)}.",) if said else ()


def _is_sft(measured: Measured, name: str) -> bool:
    run = next(iter(measured.arms[name].runs.values()))
    base = run.about.get("recipe", {}).get("method", {}).get("base", "")
    return name == "sft" or str(base).partition(":")[0] == "sft"


def _kept(run: RunRows) -> str:
    steps = run.about.get("steps", ())
    if "validations" not in run.about:
        return "not recorded: these rows were kept by a version that did not keep validations; a new run does."
    return kept_student(run.about["validations"], last_step=int(steps[-1]["step"]) if steps else 0)


def _rows(run: RunRows) -> str:
    if "counted" not in run.about:
        return "not recorded: these rows were kept by a version that did not keep these counts; a new run does."
    return left_out(run.about["counted"])


def _drawn(run: RunRows) -> str:
    return drawn_share(run.about.get("steps", ()))


def _watch(measured: Measured) -> KeyAnswer:
    runs = _runs(measured)
    if not runs:
        return KeyAnswer(about="watch", says=_NOTHING)
    signed = [(name, run) for name, run in runs if run.about.get("signatures")]
    known = [(name, run) for name, run in runs if "signatures" in run.about]
    lines = [(name, told) for name, run in (signed or known or runs) for told in _signs(run)]
    rest = (f"The other {len(known) - len(signed)} runs showed none.",) if signed and known[len(signed) :] else ()
    unknown = len(runs) - len(known)
    old = (f"Of {unknown} runs it was not recorded.",) if unknown and known else ()
    return KeyAnswer(about="watch", says=(*of_each(lines), *rest, *old), see=(RUNS,))


def _signs(run: RunRows) -> tuple[str, ...]:
    return watched(
        run.about.get("signatures", ()),
        num_steps=len(run.about.get("steps", ())),
        thresholds=run.about.get("thresholds"),
    )


def _cost(measured: Measured) -> KeyAnswer:
    runs = [run.about for _, run in _runs(measured)]
    if not runs:
        return KeyAnswer(about="cost", says=_NOTHING)
    steps, scoring = (math.fsum(float(about.get(key, 0.0)) for about in runs) for key in ("seconds", "scoring_seconds"))
    tokens = [int(about["tokens"]) for about in runs if "tokens" in about]
    learned = f"; {sum(tokens):,} response tokens were learned from" if len(tokens) == len(runs) else ""
    machines = dict.fromkeys(_machine(about.get("environment", {})) for about in runs)
    where = f" on {' and '.join(filter(None, machines))}" if any(machines) else ""
    says = (
        f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {duration(steps)} of training steps and {duration(scoring)} "
        f"of scoring{where}{learned}. Stages are not counted, and no call was paid for.",
    )
    return KeyAnswer(about="cost", says=says, see=(RUNS,))


def _machine(environment: Mapping[str, Any]) -> str:
    if "device" not in environment:
        return ""
    threads = environment.get("threads", 1)
    return f"{environment['device']} with {threads} thread{'' if threads == 1 else 's'}"


def _repeat(measured: Measured, command: str) -> KeyAnswer:
    if command:
        says = ("Arms whose rows are there are not trained again; in an empty --out all of it is done anew.",)
        return KeyAnswer(about="repeat", says=says, see=(TABLE,), command=command)
    study = measured.ledger.study
    says = (
        "The rows do not hold the settings that were given beside the study's name: give them again, with --root for "
        "the named corpora; a study of your own is named by its file.",
    )
    return KeyAnswer(about="repeat", says=says, see=(TABLE,), command=f"limbeck study {study}")
