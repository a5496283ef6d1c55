"""Line charts as inline SVG: no script, no picture file, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from limbeck.reporting.tables import Column, Number, Row, Table

Point = tuple[int | float, int | float]

# The drawing is as wide as a phone's screen, so that its labels are readable there without being enlarged.
_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 10, 10, 34
_MOST_POINTS = 300
_NUM_COLOURS = 8
_NOISY = 60
_LARGEST, _SMALLEST = 1e300, 1e-100
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARKERS = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.5-3.5h7v7h-7z", "M0-5L5 0 0 5-5 0z", "M0-5L4.5 3.5h-9z")


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named curve: (step, value) pairs in order. Values that are not finite, or beyond 1e300, leave a gap.

    The place of one point in `points` may be `kept`: it gets a ring, and is named.
    """

    name: str
    points: tuple[Point, ...]
    kept: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves that share axes. A series keeps its colour by its place: give every chart the same arms in one order.

    On a logarithmic axis values that are not positive leave a gap. `y_holds` are values that the axis shows whatever
    the curves are. `first_colour` is the place of the first series.
    """

    title: str
    series: tuple[Series, ...]
    x_label: str = "step"
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    y_holds: tuple[int | float, ...] = ()
    first_colour: int = 0


@dataclass(frozen=True, kw_only=True)
class _Frame:
    x: Point
    y: Point

    def across(self, step: int | float) -> float:
        return round(_LEFT + (step - self.x[0]) / (self.x[1] - self.x[0]) * (_WIDTH - _LEFT - _RIGHT), 1)

    def down(self, value: int | float) -> float:
        return round(_TOP + (self.y[1] - value) / (self.y[1] - self.y[0]) * (_HEIGHT - _TOP - _BOTTOM), 1)


def series_from(rows: Iterable[Mapping[str, object]], *, key: str, name: str = "", step: str = "step") -> Series:
    """The curve of one key of metrics rows; rows without it are passed over.

    >>> series_from([{"step": 1, "loss": 2.0}, {"step": 2}], key="loss").points
    ((1.0, 2.0),)
    """
    points = []
    for row in rows:
        place, value = row.get(step), row.get(key)
        if isinstance(place, int | float) and isinstance(value, int | float):
            points.append((float(place), float(value)))
    return Series(name=name or key, points=tuple(points))


def chart_html(chart: Chart, *, ident: str) -> str:
    """A `<figure>`: legend, drawing with title and description for screen readers, and the numbers as a table.

    `ident` makes the element ids of one page different. A curve of more than 60 points is drawn faintly, with the
    running mean over a twentieth of it on top; the caption says so.
    """
    smoothed = any(len(one.points) > _NOISY for one in chart.series)
    note = '<p class="hint">Faint: every value. Strong: running mean.</p>' if smoothed else ""
    ident, title = escape(ident), escape(chart.title)
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{ident}">'
    return (
        f'<figure class="chart"><figcaption id="{ident}">{title}</figcaption>'
        f"{_legend(chart)}{_drawing(chart, ident=ident)}{note}"
        f'<details><summary>Numbers<span class="unseen"> of {title}</span></summary>'
        f"{scroll}{_numbers(chart).html()}</div></details></figure>\n"
    )


def ticks(low: int | float, high: int | float, *, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between two bounds.

    >>> ticks(0.0, 1.0), ticks(3.0, 48.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0])
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [float(f"{place * apart:.12g}") for place in range(first, last + 1)]


def log_ticks(low: int | float, high: int | float) -> list[tuple[float, str]]:
    """Places and labels between two decimal logarithms: whole powers of ten, or round numbers where they are close.

    >>> log_ticks(-5.0, 1.0), log_ticks(0.0, 0.5)[:2]
    ([(-4.0, '10⁻⁴'), (-2.0, '0.01'), (0.0, '1')], [(0.0, '1'), (0.17609125905568124, '1.5')])
    """
    if high - low < 1.5:
        return [(math.log10(value), f"{value:g}") for value in ticks(10.0**low, 10.0**high) if value > 0]
    powers = [power for power in ticks(low, high) if power == round(power)]
    return [(power, f"{10.0**power:g}" if abs(power) < 4 else f"10{_raised(power)}") for power in powers]


def running_mean(points: Sequence[Point], *, window: int) -> list[Point]:
    """Each value averaged with its finite neighbours, `window` of them at most, centred; fewer at the ends."""
    half = window // 2
    means = []
    for place, (step, value) in enumerate(points):
        near = [v for _, v in points[max(0, place - half) : place + half + 1] if math.isfinite(v)]
        means.append((step, math.fsum(near) / len(near) if near and math.isfinite(value) else math.nan))
    return means


def _raised(power: float) -> str:
    return f"{power:.0f}".translate(_RAISED)


def _as_drawn(chart: Chart) -> Chart:
    """The chart with decimal logarithms along its logarithmic axes."""

    def of(point: Point) -> Point:
        x, y = point
        return (_log(x) if chart.log_x else x, _log(y) if chart.log_y else y)

    series = (replace(one, points=tuple(map(of, one.points))) for one in chart.series)
    return replace(chart, series=tuple(series))


def _log(value: int | float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _finite(series: Series) -> list[Point]:
    return [point for point in series.points if _can_be_drawn(point)]


def _can_be_drawn(point: Point) -> bool:
    # Beyond this the range of an axis overflows.
    return all(abs(number) < _LARGEST for number in point)


def _frame(chart: Chart) -> _Frame | None:
    points = [point for one in chart.series for point in _finite(one)]
    if not points:
        return None
    xs, ys = [x for x, _ in points], [*(y for _, y in points), *chart.y_holds]
    return _Frame(x=_widened(min(xs), max(xs), share=0.0), y=_widened(min(ys), max(ys), share=0.06))


def _widened(low: int | float, high: int | float, *, share: float) -> Point:
    span = high - low
    if span <= max(_SMALLEST, 1e-9 * max(abs(low), abs(high))):
        span = 2 * abs(low) if abs(low) > _SMALLEST else 2.0
        share = 0.5
    return low - share * span, high + share * span


def _drawing(chart: Chart, *, ident: str) -> str:
    drawn = _as_drawn(chart)
    frame = _frame(drawn)
    opening = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(chart.title)}</title>'
        f'<desc id="{ident}-d">{escape(_description(chart))}</desc>'
    )
    if frame is None:
        middle = f'x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle"'
        return f'{opening}<text class="axis" {middle}>no values</text></svg>'
    curves = "".join(_curve(one, place=place, frame=frame) for place, one in _placed(drawn))
    return opening + _axes(chart, frame=frame) + curves + "</svg>"


def _placed(chart: Chart) -> list[tuple[int, Series]]:
    return list(enumerate(chart.series, start=chart.first_colour))


def _marks(bounds: Point, *, is_log: bool) -> list[tuple[float, str]]:
    return log_ticks(*bounds) if is_log else [(value, f"{value:g}") for value in ticks(*bounds)]


def _axes(chart: Chart, *, frame: _Frame) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    grid, labels, base = [], [], [f"M{_LEFT} {bottom}H{right}"]
    for value, name in _marks(frame.y, is_log=chart.log_y):
        y = frame.down(value)
        grid.append(f"M{_LEFT} {y}H{right}")
        labels.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{name}</text>')
    for step, name in _marks(frame.x, is_log=chart.log_x):
        x = frame.across(step)
        base.append(f"M{x} {bottom}v4")
        labels.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{name}</text>')
    middle = (_LEFT + right) / 2
    labels.append(f'<text x="{middle}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(chart.x_label)}</text>')
    if chart.y_label:
        at = f'x="{-(_TOP + bottom) / 2}" y="11" transform="rotate(-90)"'
        labels.append(f'<text {at} text-anchor="middle">{escape(chart.y_label)}</text>')
    lines = f'<path class="grid" d="{"".join(grid)}"/><path class="base" d="{"".join(base)}"/>'
    return f'{lines}<g class="axis">{"".join(labels)}</g>'


def _curve(series: Series, *, place: int, frame: _Frame) -> str:
    finite = _finite(series)
    if not finite:
        return ""
    strong: Sequence[Point] = series.points
    faint = ""
    if len(series.points) > _NOISY:
        strong = running_mean(series.points, window=max(3, len(series.points) // 20))
        faint = f'<path class="faint" d="{_path(_thinned(series.points), frame=frame)}"/>'
    end = next(point for point in reversed(strong) if _can_be_drawn(point))
    at = f"translate({frame.across(end[0])} {frame.down(end[1])})"
    marker = f'<path class="marker" d="{_marker(place)}" transform="{at}"/>'
    line = f'<path class="line" d="{_path(_thinned(strong), frame=frame)}"/>'
    kept = [] if series.kept is None else [point for point in (series.points[series.kept],) if _can_be_drawn(point)]
    rings = "".join(f'<circle class="line" cx="{frame.across(x)}" cy="{frame.down(y)}" r="8"/>' for x, y in kept)
    name = f"<title>{escape(series.name)}</title>"
    return f'<g class="series-{place % _NUM_COLOURS}">{name}{faint}{line}{marker}{rings}</g>'


def _thinned(points: Sequence[Point]) -> list[Point]:
    every = max(1, math.ceil(len(points) / _MOST_POINTS))
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _path(points: Sequence[Point], *, frame: _Frame) -> str:
    parts, is_down = [], False
    for point in points:
        if _can_be_drawn(point):
            place = f"{frame.across(point[0])} {frame.down(point[1])}"
            # A line of no length, with round ends, is the dot of a point that has a gap on both sides.
            parts.append(f"L{place}" if is_down else f"M{place}h0")
            is_down = True
        else:
            is_down = False
    return "".join(parts)


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _legend(chart: Chart) -> str:
    items = "".join(
        f'<li class="series-{place % _NUM_COLOURS}"><svg viewBox="0 0 22 10" aria-hidden="true">'
        f'<path class="line" d="M0 5H22"/><path class="marker" d="{_marker(place)}" transform="translate(11 5)"/></svg>'
        f"{escape(one.name)}</li>"
        for place, one in _placed(chart)
    )
    return f'<ul class="legend">{items}</ul>'


def _description(chart: Chart) -> str:
    said = []
    for one in chart.series:
        finite = _finite(one)
        if finite:
            (first, before), (last, after) = finite[0], finite[-1]
            kept = "" if one.kept is None else f", kept: {chart.x_label} {one.points[one.kept][0]:g}"
            said.append(f"{one.name}: {before:.4g} at {chart.x_label} {first:g}, {after:.4g} at {last:g}{kept}")
        else:
            said.append(f"{one.name}: no values")
    return "; ".join(said)


def _numbers(chart: Chart) -> Table:
    rows = []
    for one in chart.series:
        finite = _finite(one)
        values = [finite[0][1], finite[-1][1], min(v for _, v in finite), max(v for _, v in finite)] if finite else []
        shown = tuple(Number(value=value, digits=_digits(value)) for value in values) or (None,) * 4
        rows.append(Row(cells=(one.name, *shown)))
    titles = ("curve", "first", "last", "lowest", "highest")
    return Table(columns=tuple(Column(title=title) for title in titles), rows=tuple(rows))


def _digits(value: int | float) -> int:
    return min(8, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0
