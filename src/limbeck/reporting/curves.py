"""The curves of runs, from the rows of their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.reporting.plots import Chart, Series, series_from

# The rows of metrics.jsonl by the name of their run.
Metrics = Mapping[str, Sequence[Mapping[str, Any]]]

_MEASURES = {
    "lower": ("Clip: lower bound l", ""),
    "upper": ("Clip: upper bound u", ""),
    "kept_mass": ("Clip: share of the teacher's mass kept, Σ m·p", ""),
    "kept_classes": ("Clip: classes kept a token, Σ m", ""),
    "only_target": ("Clip: only the likeliest class kept", "share of tokens"),
    "single_step": ("Policy gradient: exact part, KL(student‖teacher)", "nats a token"),
    "long_term": ("Policy gradient: what follows, −min(ρ·A, clip(ρ)·A)", "nats a token"),
    "ratio": ("Policy gradient: ρ, the student now to what was drawn from", ""),
    "clipped": ("Policy gradient: cut off by the clip", "share of tokens"),
}
_REVISION = {
    "revised_rows": ("Revision: rows corrected", "share of drawn rows"),
    "mismatches": ("Revision: tokens unlike the teacher's", "share of drawn tokens"),
    "place": ("Revision: place of the error", "0 first token, 1 last"),
    "kl": ("Revision: KL(student‖teacher) where drawn", "nats a token"),
    "kl_corrected": ("Revision: KL(student‖teacher) at errors", "nats"),
}


def validation_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """What validations measured."""
    charts = [
        _chart(metrics, "Validation: cross-entropy on references", "nats", key="cross_entropy", kind="validation"),
        _chart(metrics, "Validation: ROUGE-L", "", key="rouge_l", kind="validation"),
    ]
    return _with_values(charts)


def training_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """The terms, the gradient, and how much was drawn."""
    charts = [
        _chart(metrics, f"Training: {name} term", "nats", part="terms", key=name) for name in _keys(metrics, "terms")
    ]
    charts.append(_chart(metrics, "Gradient norm", "", key="gradient_norm"))
    shares = {name: [_drawn(row) for row in rows if row["kind"] == "step"] for name, rows in metrics.items()}
    drawn = {name: rows if any(row["drawn"] for row in rows) else [] for name, rows in shares.items()}
    return _with_values([*charts, _chart(drawn, "Drawn from the student", "share of rows", key="drawn")])


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """A step with the share of its rows that the student drew, corrected, together with the teacher, or alone."""
    return {**row, "drawn": sum(row["origin"].get(name, 0.0) for name in ("student", "mixed", "revised"))}


def revision_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """What a revision did to drawn rows, what a clip kept, how many spans there were, and where the time went."""
    charts = [_chart(metrics, *_REVISION[key], part="revision", key=key) for key in _REVISION]
    for key in _keys(metrics, "measures"):
        term, _, name = key.partition("/")
        title, unit = _MEASURES.get(name, (f"Measure {name}", ""))
        charts.append(
            _chart(metrics, title if term == "token" else f"{title} ({term})", unit, part="measures", key=key)
        )
    charts.append(_chart(metrics, "Clip network: gradient norm", "", key="terms_gradient_norm"))
    charts.append(_chart(metrics, "Spans", "spans a step", key="spans"))
    if any("revise" in row.get("time", {}) and row.get("revision") for rows in metrics.values() for row in rows):
        titles = {"draw": "Time: drawing", "revise": "Time: revising", "learn": "Time: learning"}
        charts += [_chart(metrics, title, "seconds a step", part="time", key=key) for key, title in titles.items()]
    return _with_values(charts)


def _keys(metrics: Metrics, part: str) -> list[str]:
    return list(
        dict.fromkeys(
            key for rows in metrics.values() for row in rows if row["kind"] == "step" for key in row.get(part, ())
        )
    )


def _with_values(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if any(one.points for one in chart.series))


def _chart(metrics: Metrics, title: str, unit: str, *, key: str, part: str = "", kind: str = "step") -> Chart:
    series = []
    for name, rows in metrics.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        shown = [{"step": row["step"], **row.get(part, {})} if part else row for row in of_kind]
        series.append(series_from(shown, key=key, name=name))
    # A run without values stays in its place, so that a run has one colour on the whole page.
    kept: tuple[Series, ...] = tuple(series)
    return Chart(title=title, series=kept, y_label=unit)
