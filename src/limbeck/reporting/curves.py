"""The curves of runs, from the rows of their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
_OWN = {
    "tokens": ("Length of the student's responses", "tokens"),
    "reference_tokens": ("Length of the references of the same rows", "tokens"),
    "at_limit": ("Responses that were cut at the limit", "share of the student's"),
    "distinct_2": ("Distinct token pairs of the student's responses", "share of pairs"),
    "reference_distinct_2": ("Distinct token pairs of the references", "share of pairs"),
}
_TIME = {
    "tokens_per_second": ("Throughput", "tokens a second"),
    "draw": ("Time: drawing", "seconds a step"),
    "revise": ("Time: revising", "seconds a step"),
    "learn": ("Time: learning", "seconds a step"),
}


def validation_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """What validations measured, with a ring around the student that was kept."""
    charts = [
        _chart(metrics, "Validation: cross-entropy on references", "nats", key="cross_entropy", kind="validation"),
        _chart(metrics, "Validation: the whole loss", "nats", key="loss", kind="validation"),
        _chart(metrics, "Validation: ROUGE-L", "", key="rouge_l", kind="validation"),
    ]
    best = [next((row["step"] for row in reversed(rows) if row.get("is_best")), None) for rows in metrics.values()]
    return _with_values([_ringed(chart, best) for chart in charts])


def _ringed(chart: Chart, best: Sequence[int | None]) -> Chart:
    """The chart with the points of these steps kept, one a series."""
    series = [
        replace(one, kept=next((place for place, point in enumerate(one.points) if point[0] == step), None))
        for one, step in zip(chart.series, best, strict=True)
    ]
    return replace(chart, series=tuple(series))


def training_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """The terms, their shares of the gradient, its norm, and who wrote the rows."""
    charts = [
        _chart(metrics, f"Training: {name} term", "nats", part="terms", key=name) for name in _keys(metrics, "terms")
    ]
    charts += [
        _chart(metrics, f"Share of the gradient: {name} term", "share of norms", part="gradient_shares", key=name)
        for name in _keys(metrics, "gradient_shares")
    ]
    charts.append(_chart(metrics, "Gradient norm", "", key="gradient_norm"))
    shares = {name: [_drawn(row) for row in rows if row["kind"] == "step"] for name, rows in metrics.items()}
    drawn = {name: rows if any(row["drawn"] for row in rows) else [] for name, rows in shares.items()}
    charts.append(_chart(drawn, "Drawn from the student", "share of rows", key="drawn"))
    origins = {"replayed": "Replayed: off-policy responses of the student", "teacher": "Written by the teacher"}
    for key, title in origins.items():
        if key in _keys(metrics, "origin"):
            charts.append(_chart(metrics, title, "share of rows", part="origin", key=key))
    return _with_values(charts)


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """A step with the share of its rows that the student drew, corrected, together with the teacher, or alone."""
    return {**row, "drawn": sum(row["origin"].get(name, 0.0) for name in ("student", "mixed", "revised"))}


def revision_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """What a revision did to drawn rows, what a clip kept, and how many spans there were."""
    charts = [_chart(metrics, *_REVISION[key], part="revision", key=key) for key in _REVISION]
    for key in _keys(metrics, "measures"):
        term, _, name = key.partition("/")
        title, unit = _MEASURES.get(name, (f"Measure {name}", ""))
        charts.append(
            _chart(metrics, title if term == "token" else f"{title} ({term})", unit, part="measures", key=key)
        )
    charts.append(_chart(metrics, "Clip network: gradient norm", "", key="terms_gradient_norm"))
    charts.append(_chart(metrics, "Spans", "spans a step", key="spans"))
    return _with_values(charts)


def own_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """Lengths and repetition of what the student wrote by itself, beside the references of the same rows."""
    return _with_values([_chart(metrics, *_OWN[key], part="own", key=key) for key in _OWN])


def time_charts(metrics: Metrics) -> tuple[Chart, ...]:
    """Throughput, and what a step's time went into; a part that took none in any run is left out."""
    charts = [_chart(metrics, *_TIME[key], part="time", key=key) for key in _TIME]
    return tuple(
        chart for chart in _with_values(charts) if any(value > 0 for one in chart.series for _, value in one.points)
    )


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
