from __future__ import annotations

import math
import random
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.records import AnswerRow
from limbeck.reporting import Interval, by_example, mean_interval, paired_bootstrap, summarise
from limbeck.reporting.comparing import standard_error


def row(corpus: str, seed: int, name: str, value: float) -> AnswerRow:
    return AnswerRow(corpus=corpus, seed=seed, id=name, text="", num_tokens=1, stopped=True, scores={"rouge-l": value})


ROWS = [
    row("dolly", 10, "a", 0.2),
    row("dolly", 20, "a", 0.4),
    row("dolly", 10, "b", 0.5),
    row("dolly", 20, "b", 0.7),
    row("vicuna", 10, "a", 1.0),
    row("vicuna", 10, "b", 0.0),
    row("vicuna", 10, "c", 0.5),
]


def test_means_over_seeds_then_examples_then_corpora() -> None:
    summary = summarise(ROWS, score="rouge-l")
    dolly, vicuna = summary.corpora["dolly"], summary.corpora["vicuna"]
    assert (dolly.num_examples, dolly.num_seeds, vicuna.num_examples, vicuna.num_seeds) == (2, 2, 3, 1)
    assert dolly.mean == pytest.approx(0.45)
    assert dolly.error == pytest.approx(statistics.stdev([0.3, 0.6]) / math.sqrt(2))
    assert summary.mean == pytest.approx((0.45 + 0.5) / 2)
    assert summary.error == pytest.approx(math.hypot(dolly.error, vicuna.error) / 2)


def test_dictionaries_and_records_reduce_alike() -> None:
    assert by_example([one.to_json() for one in ROWS], score="rouge-l") == by_example(ROWS, score="rouge-l")


def test_one_example_has_no_standard_error() -> None:
    assert math.isnan(summarise(ROWS[:2], score="rouge-l").error)


@pytest.mark.parametrize(
    ("rows", "score", "message"),
    [
        ([], "rouge-l", "no answer row"),
        ([ROWS[0], ROWS[0]], "rouge-l", "answered twice with seed 10"),
        (ROWS[:3], "rouge-l", r"'b' of dolly is not answered with the seeds \[20\]"),
        (ROWS, "kl", r"no score 'kl'\n  its scores: rouge-l"),
        ([row("dolly", 10, "a", math.nan)], "rouge-l", "nan, not a finite number"),
    ],
)
def test_rows_that_cannot_be_averaged(rows: list[AnswerRow], score: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        summarise(rows, score=score)


def normal(count: int, *, mean: float = 0.0, seed: int = 0) -> dict[str, float]:
    draw = random.Random(seed)
    return {f"example-{i}": draw.gauss(mean, 1) for i in range(count)}


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = normal(400, mean=3)
    interval = mean_interval(values, seed=0)
    error = statistics.stdev(values.values()) / math.sqrt(400)
    assert interval.mean == pytest.approx(statistics.fmean(values.values()))
    assert interval.low == pytest.approx(interval.mean - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(interval.mean + 1.96 * error, abs=0.15 * error)
    assert interval.num_examples == 400


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    intervals = [mean_interval(normal(60, seed=trial), seed=trial, draws=400) for trial in range(200)]
    covered = sum(not interval.excludes_zero for interval in intervals)
    assert 178 <= covered <= 199


def test_corpora_of_an_average_are_resampled_each_within_itself() -> None:
    generator = random.Random(3)
    values = {("large", f"{i}"): generator.gauss(0.9, 0.1) for i in range(400)}
    values |= {("small", f"{i}"): generator.gauss(0.1, 0.2) for i in range(50)}
    large, small = ([value for (corpus, _), value in values.items() if corpus == name] for name in ("large", "small"))
    error = math.sqrt(statistics.variance(large) / 400 + statistics.variance(small) / 50) / 2
    found = mean_interval(values, seed=0)
    assert found.mean == pytest.approx((statistics.fmean(large) + statistics.fmean(small)) / 2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert standard_error(large, small) == pytest.approx(error)
    without_spread = mean_interval({("a", "1"): 0.0, ("a", "2"): 0.0, ("b", "1"): 1.0, ("b", "2"): 1.0}, seed=0)
    assert (without_spread.low, without_spread.mean, without_spread.high) == (0.5, 0.5, 0.5)
    assert mean_interval({("a", "1"): 0.0, ("a", "2"): 0.0, ("b", "1"): 1.0}, seed=0).high == math.inf


def test_the_order_of_the_mapping_does_not_matter_and_the_seed_does() -> None:
    values = normal(30)
    backwards = dict(reversed(values.items()))
    assert mean_interval(values, seed=1) == mean_interval(backwards, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(-1e3, 1e3))
def test_a_shift_of_both_arms_changes_no_difference(values: list[float], shift: float) -> None:
    arm = {str(i): value for i, value in enumerate(values)}
    interval = paired_bootstrap({name: value + shift for name, value in arm.items()}, arm, seed=0, draws=50)
    assert interval.mean == pytest.approx(shift, abs=1e-9)
    assert interval.low == pytest.approx(shift, abs=1e-9)
    assert interval.high == pytest.approx(shift, abs=1e-9)


def test_pairing_sees_a_small_difference_between_noisy_arms() -> None:
    before = normal(200)
    nudge = random.Random(1)
    after = {name: value + 0.05 + nudge.gauss(0, 0.05) for name, value in before.items()}
    assert paired_bootstrap(after, before, seed=0).low > 0
    assert mean_interval(after, seed=0).low < mean_interval(before, seed=0).high
    swapped = paired_bootstrap(before, after, seed=0)
    assert swapped.high < 0
    assert swapped.excludes_zero


def test_different_examples_are_refused() -> None:
    with pytest.raises(DataError, match=r"only in the first: a\n  only in the second: c"):
        paired_bootstrap({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0}, seed=0)


def test_bad_values_and_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no example"):
        mean_interval({}, seed=0)
    with pytest.raises(DataError, match="'b' is inf"):
        mean_interval({"a": 0.0, "b": math.inf}, seed=0)


def test_one_example_says_nothing() -> None:
    assert mean_interval({"a": 2.0}, seed=0) == Interval(mean=2.0, low=-math.inf, high=math.inf, num_examples=1)


def test_ten_thousand_draws_of_five_hundred_examples_take_less_than_a_second() -> None:
    values = normal(500)
    began = time.process_time()
    mean_interval(values, seed=0, draws=10_000)
    assert time.process_time() - began < 1
