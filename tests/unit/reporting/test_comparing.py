"""Permutation tests against all signs and SciPy's formulas by hand; Holm against its definition."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.reporting.comparing import compare_arms, holm, permutation_test, smallest_effect

numbers = st.floats(-5, 5).map(lambda value: round(value, 3))


@given(values=st.lists(numbers, min_size=1, max_size=8))
def test_every_sign_is_tried(values: list[float]) -> None:
    sums = [
        abs(math.fsum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = sum(total >= abs(math.fsum(values)) - 1e-9 for total in sums) / len(sums)
    assert permutation_test(values) == pytest.approx(expected)


def test_draws_come_near_to_all_signs() -> None:
    values = [0.3, -0.1, 0.2, 0.5, -0.4, 0.1, 0.6, 0.2, -0.2, 0.3, 0.1, 0.4, -0.3, 0.25]
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=14)
    ]
    exact = sum(total >= abs(sum(values)) - 1e-9 for total in sums) / len(sums)
    assert permutation_test(values, draws=20_000) == pytest.approx(exact, abs=0.01)
    assert permutation_test(values) == permutation_test(values)
    assert permutation_test(values, seed=1) != permutation_test(values)


def test_no_p_value_is_zero_and_no_difference_is_no_finding() -> None:
    assert permutation_test([1.0] * 40) == pytest.approx(1 / 10_001)
    assert permutation_test([0.0] * 40) == 1.0


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf]])
def test_what_cannot_be_tested(bad: list[float]) -> None:
    with pytest.raises(DataError):
        permutation_test(bad)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    ranked = sorted(p_values)
    for p, found in zip(p_values, adjusted, strict=True):
        below = [min(1.0, (len(ranked) - rank) * each) for rank, each in enumerate(ranked) if each <= p]
        assert found == pytest.approx(max(below))
        assert p <= found <= 1.0


def test_arms_that_answered_other_examples_are_refused() -> None:
    arms = {"sft": {"a": 1.0, "b": 0.0}, "kd": {"a": 1.0, "c": 0.0}}
    with pytest.raises(DataError, match=r"'kd' cannot be compared with 'sft'[\s\S]*only in the first: c"):
        compare_arms(arms, baseline="sft")
    with pytest.raises(DataError, match="baseline 'gkd' is not among the arms: sft, kd"):
        compare_arms(arms, baseline="gkd")


def test_what_one_arm_alone_would_show_many_arms_do_not() -> None:
    base = {f"e{place}": 0.0 for place in range(6)}
    shifted = dict.fromkeys(base, 1.0)
    alone = compare_arms({"base": base, "a": shifted}, baseline="base")
    many = compare_arms({"base": base, "a": shifted, "b": base, "c": base}, baseline="base")
    assert (alone[0].p, alone[0].is_significant) == (0.03125, True)
    assert (many[0].p, many[0].adjusted, many[0].is_significant) == (0.03125, 0.09375, False)


def test_four_times_the_examples_show_half_the_effect() -> None:
    few, many = smallest_effect([0.0, 2.0] * 500), smallest_effect([0.0, 2.0] * 2_000)
    assert few == pytest.approx(2 * many, rel=1e-2)
    assert math.isnan(smallest_effect([1.0]))
    assert smallest_effect([3.0, 3.0]) == 0.0


def test_the_smallest_effect_over_corpora_is_of_the_mean_of_their_means() -> None:
    wide, narrow = [0.0, 2.0] * 50, [5.0] * 1_000
    assert smallest_effect(wide, narrow) == pytest.approx(smallest_effect(wide) / 2)
    assert math.isnan(smallest_effect(wide, [1.0]))


def test_a_test_over_corpora_weighs_them_alike() -> None:
    """Nine examples of a corpus say the arm is better, one of another that it is as much worse: no difference."""
    base = {("a", str(i)): 0.0 for i in range(9)} | {("b", "0"): 0.0}
    arm = {place: 1.0 if place[0] == "a" else -1.0 for place in base}
    found = compare_arms({"base": base, "arm": arm}, baseline="base")[0]
    assert (found.gap.mean, found.p) == (0.0, 1.0)
