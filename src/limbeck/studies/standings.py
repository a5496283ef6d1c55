"""What a quickstart found: the table, what may be claimed, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.records import Example
from limbeck.reporting.cases import Answer, Case
from limbeck.reporting.curves import revision_charts
from limbeck.reporting.durations import duration
from limbeck.reporting.linking import Links
from limbeck.reporting.looks import is_revised, look_sections
from limbeck.reporting.page import CasesSection, CurvesSection, Page, Section, TableSection, TextSection, write_page
from limbeck.reporting.plots import Chart, series_from
from limbeck.reporting.reduce import Interval, mean_interval, paired_bootstrap
from limbeck.reporting.run_logs import RunLogs
from limbeck.reporting.run_rows import left_out_section
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.studies.budget import Plan
from limbeck.studies.first_answers import WARM_START, first_answers
from limbeck.studies.scoring_arms import ScoredArm
from limbeck.training.rundir import TOKENS, Run, RunDirectory

BASELINE = "sft"
_SHOWN_CASES = 12
# What no other arm is compared with word by word: itself, and what all of them began with.
_COMMON = (BASELINE, WARM_START)
_MEASURES = (
    ("answers", "rouge_l", "ROUGE-L", 100, 1, "higher"),
    ("references", "kl_teacher_student", "KL(t‖s) refs", 1, 3, "lower"),
    ("own", "kl_student_teacher", "KL(s‖t) own", 1, 3, "lower"),
    ("references", "top1_agreement", "top-1 %", 100, 1, "higher"),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that the table and the page are made of."""

    scored: Mapping[str, ScoredArm]
    examples: tuple[Example, ...]
    runs: Mapping[str, Path]
    plan: Plan
    seconds: float


def standings_table(outcome: Outcome) -> Table:
    """One row a model; intervals are 95 % bootstrap intervals over the held-out rows."""
    columns = [Column(title="model")]
    columns += [
        Column(title=title, better="higher" if better == "higher" else "lower")
        for _, _, title, _, _, better in _MEASURES
    ]
    columns += [Column(title=title) for title in ("M params", "MB", "tokens/s", "train s")]
    rows = [_row(name, arm) for name, arm in outcome.scored.items()]
    notes = (
        f"{len(outcome.examples)} held-out rows, one answer each at temperature 1; [95 % bootstrap interval].",
        "KL in nats a token, averaged over rows: KL(teacher‖student) on the references, KL(student‖teacher) on the "
        "model's own answers. train s: seconds of training steps. tokens/s: decoding, batches of 16.",
    )
    return Table(columns=tuple(columns), rows=tuple(rows), notes=notes)


def _row(name: str, arm: ScoredArm) -> Row:
    cells: list[Cell] = [name]
    for measure, score, _, scale, digits, _ in _MEASURES:
        values = arm.values(measure, score)
        cells.append(Number.of(mean_interval(values, seed=0), scale=scale, digits=digits) if values else None)
    cells.append(Number(value=arm.parameters / 1e6, digits=1))
    cells.append(Number(value=arm.megabytes, digits=0))
    cells += [
        None if value is None else Number(value=value, digits=0)
        for value in (arm.tokens_per_second, arm.training_seconds)
    ]
    return Row(cells=tuple(cells), ranked=name != "teacher")


def difference(outcome: Outcome, arm: str, *, measure: str, score: str) -> Interval:
    """The arm minus the baseline on the same rows, with a paired 95 % bootstrap interval."""
    mine, base = outcome.scored[arm], outcome.scored[BASELINE]
    return paired_bootstrap(mine.values(measure, score), base.values(measure, score), seed=0)


def verdicts(outcome: Outcome) -> tuple[str, ...]:
    """What may be said of each method against fine-tuning: "beats SFT" only where an interval on a KL excludes 0."""
    lines = []
    for arm in (name for name in outcome.runs if name not in (BASELINE, "warm start")):
        found = {
            title: difference(outcome, arm, measure=measure, score=score)
            for measure, score, title, _, _, _ in _MEASURES[1:3]
        }
        won = [title for title, interval in found.items() if interval.high < 0]
        lost = [title for title, interval in found.items() if interval.low > 0]
        told = "; ".join(
            f"{title} {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
            for title, interval in found.items()
        )
        head = f"{arm} beats SFT on {' and '.join(won)}" if won else f"{arm} is not shown to beat SFT on either KL"
        head += f", but is worse on {' and '.join(lost)}" if lost else ""
        lines.append(f"{head} ({told}). {_rouge_verdict(outcome, arm)}")
    return tuple(lines)


def _rouge_verdict(outcome: Outcome, arm: str) -> str:
    gap = difference(outcome, arm, measure="answers", score="rouge_l")
    numbers = f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    if not gap.excludes_zero:
        return f"ROUGE-L is a tie: {numbers}."
    return f"ROUGE-L is {'higher' if gap.mean > 0 else 'lower'}: {numbers}."


def build_page(outcome: Outcome, path: Path, *, what: str, command: str) -> Path:
    """Write the page: eight answers, table, curves, answers side by side, every row, and how to repeat it."""
    metrics = {name: Run(run).metrics() for name, run in outcome.runs.items()}
    logs = [RunLogs.read(Path(run), name) for name, run in outcome.runs.items()]
    revised = revision_charts({name: rows for name, rows in metrics.items() if _revises(rows)})
    intro = "What was corrected in the student's own rows, what the clip kept of the teacher, and what it took."
    sections: tuple[Section, ...] = (
        TableSection(
            title="Scores", table=standings_table(outcome), intro="The same rows for every model.", ident="scores"
        ),
        CurvesSection(
            title="Training",
            charts=_charts(metrics),
            intro="All methods start from the same weights.",
            ident="training",
        ),
        *(
            [CurvesSection(title="Revision, clip and spans", charts=revised, intro=intro, small=True, ident="revision")]
            if revised
            else []
        ),
        *_looks(outcome),
        CasesSection(title="Answers side by side", cases=_cases(outcome), intro="Drawn at temperature 1, seed 10."),
        TableSection(
            title="Row by row",
            table=_rows(outcome),
            intro="KL(teacher‖student) on the reference in nats a token, and ROUGE-L of the answer in %, of each row.",
            folded=True,
            ident="every-row",
        ),
        *left_out_section(logs),
        TextSection(
            title="Repeat it",
            paragraphs=("Every run directory holds its resolved recipe, its metrics and its rows.",),
            code=command,
            ident="repeat",
        ),
    )
    page = Page(
        title="Limbeck quickstart",
        summary=(_best(outcome),),
        sections=sections,
        answers=first_answers(
            outcome.scored,
            logs,
            verdicts=verdicts(outcome),
            seconds=outcome.seconds,
            command=command,
            shown=[section.ident for section in sections],
        ),
        facts=(
            ("data", what),
            ("steps", f"{outcome.plan.warm_steps} to warm up, then {outcome.plan.arm_steps} for each method"),
            ("time", duration(outcome.seconds)),
        ),
        footer="Written by Limbeck. Nothing on this page was loaded from a network.",
    )
    return write_page(page, path)


def _rows(outcome: Outcome) -> Table:
    """Every held-out row with each model's scores; those whose answers are on the page lead to them."""
    columns, values = [Column(title="row")], []
    for measure, score, title, scale, digits, _ in (_MEASURES[1], _MEASURES[0]):
        for name, arm in outcome.scored.items():
            if found := arm.values(measure, score):
                columns.append(Column(title=f"{name}, {title}"))
                values.append((found, scale, digits))
    lines = []
    for place, example in enumerate(outcome.examples):
        to = f"#case-{place}" if place < _SHOWN_CASES else ""
        cells: list[Cell] = [Links(parts=((example.id, to),))]
        cells += [
            Number(value=scale * found[example.id], digits=digits) if example.id in found else None
            for found, scale, digits in values
        ]
        lines.append(Row(cells=tuple(cells)))
    return Table(columns=tuple(columns), rows=tuple(lines))


def _revises(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("revision" in row or "measures" in row for row in rows)


def _looks(outcome: Outcome) -> list[Section]:
    """Single tokens of the methods that correct rows or clip the teacher; those of the others differ in colour only."""
    rows = {name: list(RunDirectory(Path(run)).rows(TOKENS)) for name, run in outcome.runs.items()}
    return [section for name, held in rows.items() if is_revised(held) for section in look_sections(held, run=name)]


def _best(outcome: Outcome) -> str:
    arms = [name for name in outcome.runs if name != "warm start"]
    means = {
        arm: mean_interval(outcome.scored[arm].values("references", "kl_teacher_student"), seed=0).mean for arm in arms
    }
    best = min(means, key=lambda arm: means[arm])
    return f"Closest to the teacher on the references: {best}, {means[best]:.3f} nats a token."


def _charts(metrics: Mapping[str, list[dict[str, Any]]]) -> tuple[Chart, ...]:
    steps = {name: [row for row in rows if row["kind"] == "step"] for name, rows in metrics.items()}
    charts = [
        Chart(title=f"{name}: loss", series=(series_from(rows, key="loss", name=name),), y_label="nats a token")
        for name, rows in steps.items()
    ]
    held = [
        series_from([row for row in rows if row["kind"] == "validation"], key="cross_entropy", name=name)
        for name, rows in metrics.items()
        if name != "warm start"
    ]
    charts.append(Chart(title="cross-entropy on validation rows", series=tuple(held), y_label="nats a token"))
    return tuple(charts)


def _cases(outcome: Outcome) -> tuple[Case, ...]:
    answers = {name: arm.answers() for name, arm in outcome.scored.items()}
    cases = []
    for place, example in enumerate(outcome.examples[:_SHOWN_CASES], start=1):
        last = example.messages[-1]
        shown = tuple(
            Answer(
                arm=name,
                text=rows[example.id]["text"],
                scores=(("ROUGE-L", f"{100 * rows[example.id]['scores']['rouge_l']:.1f}"),),
            )
            for name, rows in answers.items()
        )
        cases.append(
            Case(
                title=f"{place}. {example.category or example.id}",
                instruction=last.content,
                input=last.input,
                answers=shown,
                references=example.references,
                category=example.category,
                compare=tuple((BASELINE, name) for name in answers if name in outcome.runs and name not in _COMMON),
                ident=f"case-{place - 1}",
            )
        )
    return tuple(cases)
