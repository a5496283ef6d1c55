"""The tables and curves of an UNDO report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.blackbox.reading_runs import RunRows, stage_of
from limbeck.reporting.comparing import Comparison
from limbeck.reporting.plots import Chart, Series
from limbeck.reporting.tables import Column, Number, Row, Table

_MOST_QUESTIONS = 10_000


def lead(comparison: Comparison) -> Number:
    """The points by which the method is ahead of a control; a comparison is the control less the method."""
    gap = comparison.gap
    # Taken from zero, so that no difference reads 0.0 and not -0.0.
    return Number(value=0.0 - 100 * gap.mean, low=0.0 - 100 * gap.high, high=0.0 - 100 * gap.low, signed=True)


def arms_table(rows: RunRows, comparisons: Mapping[str, tuple[Comparison, ...]]) -> Table:
    """Every arm in its best round, against the method."""
    by_arm = {each.arm: each for each in comparisons["test"]}
    lines = []
    for arm in rows.arms:
        best, gap = arm.best.metrics, by_arm.get(arm.name)
        lines.append(
            Row(
                cells=(
                    arm.name,
                    str(best["round"]),
                    _share(best["accuracy"]["stop"]),
                    _share(best["accuracy"]["test"]),
                    None if gap is None else lead(gap),
                    None if gap is None else Number(value=gap.adjusted, digits=3),
                    Number(value=sum(each.metrics["train"]["tokens"] for each in arm.rounds), digits=0),
                    Number(value=sum(each.metrics["asked"] for each in arm.rounds), digits=0),
                    "runs" if arm.outcome is None else arm.outcome["reason"],
                )
            )
        )
    if rows.untouched:
        untouched = (_share(rows.untouched["stop"]), _share(rows.untouched["test"]))
        lines.append(Row(cells=("untouched", None, *untouched, None, None, None, None, "no training"), ranked=False))
    columns = (
        Column(title="arm"),
        Column(title="best round"),
        Column(title="stop, %", better="higher"),
        Column(title="test, %", better="higher"),
        Column(title="method − arm, points"),
        Column(title="p (Holm)"),
        Column(title="student tokens, all rounds"),
        Column(title="rationales asked for"),
        Column(title="ended"),
    )
    return Table(columns=columns, rows=tuple(lines))


def rounds_table(rows: RunRows) -> Table:
    """Every round of every arm."""
    columns = ("arm", "round", "stop, %", "test, %", "rewritten", "accepted", "rows", "tokens a row", "loss", "solved")
    lines = []
    for arm in rows.arms:
        for each in arm.rounds:
            metrics = each.metrics
            flow = metrics["flow"]
            share = metrics["accepted_share"]
            lines.append(
                Row(
                    cells=(
                        arm.name,
                        str(metrics["round"]),
                        _share(metrics["accuracy"]["stop"]),
                        _share(metrics["accuracy"]["test"]),
                        Number(value=metrics["refined"], digits=0),
                        None if share is None else Number(value=100 * share),
                        Number(value=metrics["rows"], digits=0),
                        Number(value=metrics["row_tokens"]["mean"]),
                        Number(value=metrics["train"]["loss"], digits=3),
                        None if flow is None else f"+{flow['gained']} −{flow['lost']}",
                    )
                )
            )
    notes = ("accepted: percent of the questions that were asked for; loss: mean of the last tenth of the steps.",)
    return Table(columns=tuple(Column(title=each) for each in columns), rows=tuple(lines), notes=notes)


def questions_table(rows: RunRows) -> Table:
    """Every test question with the verdict on each arm's answer in its best round."""
    right = {arm.name: arm.best.right("test") for arm in rows.arms}
    ids = list(dict.fromkeys(id for verdicts in right.values() for id in verdicts))
    words = {1.0: "right", 0.0: "wrong"}
    lines = tuple(
        Row(cells=(id, *(words[each[id]] if id in each else None for each in right.values())))
        for id in ids[:_MOST_QUESTIONS]
    )
    notes = (f"The first {_MOST_QUESTIONS:,} of {len(ids):,}.",) if len(ids) > _MOST_QUESTIONS else ()
    return Table(columns=(Column(title="question"), *(Column(title=name) for name in right)), rows=lines, notes=notes)


def errors_table(rows: RunRows) -> Table:
    """The classes of the method's wrong answers, round by round."""
    rounds = rows.main.rounds
    classes = sorted({name for each in rounds for name in each.metrics["errors"]})
    columns = (Column(title="class"), *(Column(title=f"round {each.metrics['round']}") for each in rounds))
    lines = tuple(
        Row(cells=(name, *(Number(value=each.metrics["errors"].get(name, 0), digits=0) for each in rounds)))
        for name in classes
    )
    return Table(columns=columns, rows=lines)


def cost_table(rows: RunRows) -> Table:
    """What the teacher's calls of each round came to, and what was rejected."""
    columns = ("arm", "round", "calls", "prompt tokens", "answer tokens", "money", "rejected")
    seen: list[Path] = []
    lines = []
    for arm in rows.arms:
        for each in arm.rounds:
            if each.folder in seen:
                continue
            seen.append(each.folder)
            metrics = each.metrics
            reasons = ", ".join(f"{count} {name}" for name, count in metrics["rejected"].items()) or "none"
            lines.append(_paid(metrics["arm"], str(metrics["round"]), rows.cost(metrics), reasons))
    measured = {stage_of(each.metrics["arm"], each.metrics["round"]) for arm in rows.arms for each in arm.rounds}
    for stage, cost in rows.costs.items():
        if stage not in measured:
            arm_name, _, number = stage.rpartition("/")
            lines.append(_paid(arm_name or stage, number, cost, "not finished, or of an arm that is not shown"))
    notes = ("Calls of a teacher that is a rule cost nothing and are not entered. Equal calls are paid once.",)
    return Table(columns=tuple(Column(title=each) for each in columns), rows=tuple(lines), notes=notes)


def _paid(arm: str, number: str, cost: Mapping[str, Any], rejected: str) -> Row:
    counts = [Number(value=cost[key], digits=0) for key in ("calls", "prompt_tokens", "completion_tokens")]
    return Row(cells=(arm, number, *counts, Number(value=cost["money"], digits=4), rejected))


def accuracy_chart(rows: RunRows, part: str) -> Chart:
    """Accuracy by round, a curve an arm."""
    series = tuple(
        Series(
            name=arm.name,
            points=tuple((each.metrics["round"], 100 * each.metrics["accuracy"][part]["mean"]) for each in arm.rounds),
        )
        for arm in rows.arms
    )
    return Chart(title=f"{part}, % right", series=series, x_label="round", y_label="%")


def _share(accuracy: Mapping[str, Any]) -> Number:
    return Number(value=100 * accuracy["mean"], error=100 * accuracy["error"])


def percent(accuracy: Mapping[str, Any]) -> str:
    """A share with its standard error, in percent."""
    return f"{100 * accuracy['mean']:.1f} ±{100 * accuracy['error']:.1f} %"
