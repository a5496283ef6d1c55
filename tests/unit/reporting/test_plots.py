from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.reporting import Chart, Series, chart_html, series_from
from limbeck.reporting.plots import running_mean, ticks


def drawing(chart: Chart) -> str:
    found = re.search(r'<svg viewBox="0 0 420.*?</svg>', chart_html(chart, ident="c"), re.DOTALL)
    assert found
    return found.group()


def chart(*points: tuple[float, float], title: str = "Loss") -> Chart:
    return Chart(title=title, series=(Series(name="sft", points=points),))


def test_a_point_stands_where_its_values_say() -> None:
    svg = drawing(chart((0.0, 1.0), (10.0, 3.0)))
    # 420 wide with margins 72 and 10; 250 high with margins 10 and 34; the values' range is widened by 6 % at each end.
    low, high = 216 - 0.06 * 206 / 1.12, 10 + 0.06 * 206 / 1.12
    assert f'd="M72.0 {low:.1f}h0L410.0 {high:.1f}"' in svg


def test_well_formed_titled_and_described() -> None:
    root = ElementTree.fromstring(drawing(chart((1.0, 2.0), (4.0, 0.5))))
    assert root.get("role") == "img"
    assert root.findtext("title") == "Loss"
    assert root.findtext("desc") == "sft: 2 at step 1, 0.5 at 4"


def test_values_that_are_no_numbers_leave_a_gap() -> None:
    svg = drawing(chart((0.0, 1.0), (1.0, math.nan), (2.0, 2.0), (3.0, math.inf), (4.0, 1.5)))
    assert "nan" not in svg
    assert "inf" not in svg
    line = re.search(r'class="line" d="([^"]*)"', svg)
    assert line
    assert line.group(1).count("M") == 3


@pytest.mark.parametrize("points", [(), ((1.0, math.nan),)])
def test_nothing_to_draw_says_so(points: tuple[tuple[float, float], ...]) -> None:
    assert "no values" in drawing(chart(*points))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(allow_nan=True)), max_size=12))
def test_any_values_stay_inside_the_drawing(points: list[tuple[float, float]]) -> None:
    svg = drawing(chart(*points))
    for path in re.findall(r'class="line" d="([^"]*)"', svg):
        for x, y in re.findall(r"[ML]([-\d.e+]+) ([-\d.e+]+)", path):
            assert 57.9 <= float(x) <= 410.1
            assert 9.9 <= float(y) <= 216.1


def test_noise_is_averaged_and_long_curves_stay_small() -> None:
    noisy = chart(*((float(step), math.sin(step)) for step in range(20_000)))
    html = chart_html(noisy, ident="c")
    assert "running mean" in html
    assert 'class="faint"' in html
    assert len(html) < 20_000
    assert "running mean" not in chart_html(chart((0.0, 1.0)), ident="c")


def test_running_mean_skips_what_is_not_finite() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0), (3.0, 5.0)]
    means = running_mean(points, window=3)
    assert [value for _, value in means[:1] + means[2:]] == [1.0, 4.0, 4.0]
    assert math.isnan(means[1][1])


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    values = ticks(low, low + span)
    assert 2 <= len(values) <= 12
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in values)


def test_series_from_metrics_rows() -> None:
    rows = [{"step": 1, "loss": 2, "kind": "x"}, {"step": 2}, {"step": 3, "loss": 1.5}]
    assert series_from(rows, key="loss", name="sft") == Series(name="sft", points=((1.0, 2.0), (3.0, 1.5)))
    assert series_from(rows, key="kind").points == ()


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    html = chart_html(Chart(title=evil, series=(Series(name=evil, points=((0.0, 1.0),)),), y_label=evil), ident="c")
    assert "<script" not in html
