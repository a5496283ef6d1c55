"""What a clip keeps: the distribution before and after it, and the gates, on logarithmic axes."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.reporting import Chart, ClippingSection, Distribution, Series, chart_html, look_sections
from limbeck.reporting.clipping import _bins, clipping_html, distribution_charts
from limbeck.reporting.looks import is_revised
from limbeck.reporting.plots import log_ticks


def _distribution(count: int = 4, *, kl: float = 1.0, text: str = "x") -> Distribution:
    weights = [0.5**rank for rank in range(count)]
    teacher = tuple(weight / sum(weights) for weight in weights)
    return Distribution(
        id="row", place=0, text=text, kl=kl, classes=("a",), teacher=teacher, student=teacher,
        gates=(1.0,) * count, kept_mass=1.0,
    )  # fmt: skip


def test_the_clipped_teacher_is_what_the_gates_leave_of_it(revised_rows: list[dict[str, Any]]) -> None:
    (found,) = Distribution.all_of(revised_rows[0])
    assert (found.id, found.place, found.text, found.kl) == ("first", 4, " is", 2.38)
    assert found.clipped == pytest.approx([0.5 / 0.6, 0.075 / 0.6, 0.025 / 0.6, 0.0])
    del revised_rows[0]["tokens"][4]["kept_mass"]
    (found,) = Distribution.all_of(revised_rows[0])
    assert found.kept_mass == pytest.approx(0.6)


def test_three_curves_of_probability_and_one_of_gates(revised_rows: list[dict[str, Any]]) -> None:
    (found,) = Distribution.all_of(revised_rows[0])
    probabilities, gates = distribution_charts(found)
    assert {one.name: [y for _, y in one.points] for one in probabilities.series} == {
        "teacher": pytest.approx([0.5, 0.3, 0.1, 0.05]),
        "teacher, clipped": pytest.approx([0.8333, 0.125, 0.041667, 0.0], rel=1e-4),
        "student": pytest.approx([0.2, 0.4, 0.2, 0.1]),
    }
    assert gates.series[0].points == ((1.0, 1.0), (2.0, 0.25), (3.0, 0.25), (4.0, 0.0))
    assert (probabilities.log_x, probabilities.log_y, gates.log_x, gates.log_y) == (True, True, True, False)


@given(st.integers(1, 3000))
def test_every_class_is_in_the_mean_of_one_point_and_the_points_are_few(count: int) -> None:
    bins = _bins(count)
    assert [rank for first, last in bins for rank in range(first, last + 1)] == list(range(1, count + 1))
    # More would be drawn with a running mean.
    assert len(bins) <= 60


def test_a_point_is_the_mean_of_its_ranks() -> None:
    values = tuple(1 / rank for rank in range(1, 1001))
    distribution = dataclasses.replace(_distribution(1000), student=values)
    points = distribution_charts(distribution)[0].series[2].points
    assert points[0] == (1.0, 1.0)
    first, last = _bins(1000)[-1]
    assert points[-1][0] == pytest.approx(math.sqrt(first * last))
    assert points[-1][1] == pytest.approx(sum(values[first - 1 : last]) / (last - first + 1))


def test_the_largest_divergence_stands_first_and_open() -> None:
    html = clipping_html([_distribution(kl=1.0, text="near"), _distribution(kl=2.5, text="far")], ident="c")
    assert html.index("far") < html.index("near")
    assert html.index("open") < html.index("near")
    assert html.count(" open>") == 1


def test_the_likeliest_classes_are_named(revised_rows: list[dict[str, Any]]) -> None:
    html = clipping_html(Distribution.all_of(revised_rows[0]), ident="c")
    assert "<td>␣has</td>" in html
    assert "<td>↵</td>" in html
    assert ">83.33</td>" in html
    assert "60.00 %" in html
    assert "2.2" in html


def test_the_section_is_there_for_gates_only_and_of_the_last_step(
    revised_rows: list[dict[str, Any]], plain_rows: list[dict[str, Any]]
) -> None:
    assert [section.title for section in look_sections(plain_rows)] == ["Token by token"]
    assert look_sections([]) == []
    _, clip = look_sections(revised_rows, run="mine")
    assert isinstance(clip, ClippingSection)
    assert clip.title == "What the clip keeps (mine)"
    assert len(clip.distributions) == 2
    assert "step 6" in clip.intro
    assert is_revised(revised_rows)
    assert not is_revised(plain_rows)


def test_a_logarithmic_axis_places_equal_ratios_equally_far_apart() -> None:
    points = ((1.0, 1.0), (10.0, 0.1), (100.0, 0.0), (1000.0, 0.001))
    chart = Chart(title="c", series=(Series(name="s", points=points),), log_x=True, log_y=True)
    html = chart_html(chart, ident="c")
    line = re.search(r'class="line" d="M([\d.]+) ([\d.]+)h0L([\d.]+) ([\d.]+)M([\d.]+) ([\d.]+)h0"', html)
    assert line, "what is not positive has no logarithm, and leaves a gap"
    x1, y1, x2, y2, x3, y3 = map(float, line.groups())
    assert x3 - x1 == pytest.approx(3 * (x2 - x1), abs=0.3)
    assert y3 - y1 == pytest.approx(3 * (y2 - y1), abs=0.3)
    for tick in (">1<", ">10<", ">100<", ">1000<", ">0.1<", ">0.01<", ">0.001<"):
        assert tick in html
    # What people read out are the values, not their logarithms.
    assert "s: 1 at step 1, 0.001 at 1000" in html


def test_a_logarithmic_axis_without_positive_values_says_so() -> None:
    chart = Chart(title="c", series=(Series(name="s", points=((0.0, 0.0), (1.0, -1.0))),), log_y=True)
    assert "no values" in chart_html(chart, ident="c")


@given(st.floats(-250, 250), st.floats(0.01, 300))
def test_logarithmic_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = log_ticks(low, low + span)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-6 <= place <= low + span + 1e-6 * max(1.0, span) for place, _ in found)
    assert len({label for _, label in found}) == len(found)


def test_an_axis_may_be_told_what_it_shows() -> None:
    points = ((2.0, 0.4), (3.0, 0.5))
    told = chart_html(Chart(title="c", series=(Series(name="s", points=points),), y_holds=(0.0, 1.0)), ident="c")
    free = chart_html(Chart(title="c", series=(Series(name="s", points=points),)), ident="c")
    assert all((f">{tick}<" in told, f">{tick}<" in free) == (True, False) for tick in ("0", "1"))


def test_a_chart_may_begin_with_a_later_colour() -> None:
    chart = Chart(title="c", series=(Series(name="s", points=((0.0, 1.0), (1.0, math.e))),), first_colour=3)
    html = chart_html(chart, ident="c")
    assert 'class="series-3"' in html
    assert 'class="series-0"' not in html
