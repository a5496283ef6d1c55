from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.errors import ConfigError
from limbeck.spans import Collocations, ExtractorToFit, FittedExtractor, Learned, SpanFinder, TokenPieces, collocations
from reference import spans as reference

NEW, YORK, THE, OLD, CAT, END = range(6)
PLAIN = TokenPieces(pieces=(), special=frozenset({END}))

rows = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=12)
large = st.lists(st.lists(st.sampled_from([0, 1, 65_536, 299_999, 2**31 - 1]), max_size=8), min_size=1, max_size=8)


def everything(stretches: Sequence[Sequence[int]]) -> dict[tuple[int, int], float]:
    """The NPMI of every pair that is there."""
    if not any(len(each) > 1 for each in stretches):
        return {}
    # NPMI is never below −1 but for rounding, and a threshold of −1 itself is not a threshold.
    return dict(Learned(threshold=-1 + 1e-12, min_count=1).fit(stretches).npmi)


def test_npmi_by_hand() -> None:
    # 8 pairs: "new york" twice and never apart; "the" in front of three words.
    stretches = [[NEW, YORK], [NEW, YORK], [THE, OLD], [THE, CAT], [THE, CAT], [OLD, CAT], [OLD, CAT], [OLD, CAT]]
    found = everything(stretches)
    assert found[NEW, YORK] == pytest.approx(1)
    assert found[THE, OLD] == pytest.approx(math.log((1 / 8) / (3 / 8 * 1 / 8)) / math.log(8))
    assert found[THE, CAT] == pytest.approx(math.log((2 / 8) / (3 / 8 * 5 / 8)) / math.log(4))
    assert found[OLD, CAT] == pytest.approx(math.log((3 / 8) / (3 / 8 * 5 / 8)) / math.log(8 / 3))
    assert len(found) == 4, "no pair crosses from one stretch to the next"


@given(st.one_of(rows, large))
def test_npmi_is_that_of_the_reference(stretches: list[list[int]]) -> None:
    found, expected = everything(stretches), reference.npmi(stretches)
    assert found.keys() == expected.keys()
    for pair, value in found.items():
        assert value == pytest.approx(expected[pair][1], abs=1e-9)
        assert -1 - 1e-9 <= value <= 1 + 1e-9


@given(rows, st.integers(1, 4), st.floats(-0.9, 0.9))
def test_rare_and_weak_pairs_are_none(stretches: list[list[int]], least: int, threshold: float) -> None:
    expected = reference.npmi(stretches)
    sure = {pair for pair, (count, value) in expected.items() if count >= least and value >= threshold + 1e-9}
    maybe = {pair for pair, (count, value) in expected.items() if count >= least and value >= threshold - 1e-9}
    if not maybe:
        with pytest.raises(ConfigError, match="found no collocation"):
            Learned(threshold=threshold, min_count=least).fit(stretches)
    elif sure:
        assert sure <= Learned(threshold=threshold, min_count=least).fit(stretches).npmi.keys() <= maybe


@given(rows, st.randoms(use_true_random=False), st.integers(1, 7))
def test_neither_order_nor_batches_matter(stretches: list[list[int]], shuffle, size: int) -> None:
    found = everything(stretches)
    moved = list(stretches)
    shuffle.shuffle(moved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.spans.collocations._BATCH", size)
        assert everything(moved) == found


@given(st.lists(st.integers(0, 4), max_size=14), st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_spans_are_the_longest_runs_of_the_reference(ids: list[int], pairs: set[tuple[int, int]]) -> None:
    found = Collocations(npmi=dict.fromkeys(pairs, 1.0), max_tokens=1000).of_tokens(ids)
    assert list(found) == reference.runs(ids, pairs)


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(2, 6))
def test_longer_runs_are_cut_evenly(ids: list[int], most: int) -> None:
    pairs = {(0, 0): 1.0, (0, 1): 1.0, (1, 0): 1.0}
    whole = Collocations(npmi=pairs, max_tokens=1000).of_tokens(ids)
    cut = Collocations(npmi=pairs, max_tokens=most).of_tokens(ids)
    assert all(end - first <= most for first, end in cut)
    assert [place for span in cut for place in range(*span)] == [place for span in whole for place in range(*span)]
    for first, end in whole:
        sizes = [right - left for left, right in cut if first <= left < end]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == math.ceil((end - first) / most)


def test_spans_of_a_response() -> None:
    finder = SpanFinder(Collocations(npmi={(NEW, YORK): 1.0, (OLD, CAT): 0.5}, max_tokens=4), PLAIN)
    assert finder.spans([THE, NEW, YORK, OLD, CAT, END]) == ((1, 3), (3, 5))
    assert finder.spans([NEW, END, YORK]) == ()
    for nothing in ([], [END], [NEW], [CAT, CAT]):
        assert finder.spans(nothing) == ()


@given(rows.filter(lambda stretches: any(len(each) > 1 for each in stretches)), rows)
def test_what_is_kept_in_a_file_finds_the_same(stretches: list[list[int]], others: list[list[int]]) -> None:
    learned = Learned(threshold=-0.5, min_count=1, max_tokens=3)
    fitted = learned.fit([*stretches, [0, 1]])
    restored = learned.restored(json.loads(json.dumps(fitted.state())))
    assert restored == fitted
    assert restored.state() == fitted.state()
    assert all(restored.of_tokens(ids) == fitted.of_tokens(ids) for ids in others)


def test_a_pair_that_is_all_there_is_has_one() -> None:
    assert everything([[3, 4], [3, 4]]) == {(3, 4): 1.0}


@pytest.mark.parametrize("stretches", [[], [[]], [[1], [2]], [[1, 2], [2, 3]]])
def test_nothing_to_learn_is_an_error_with_what_helps(stretches: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match=r"Lower extractor\.threshold \(0\.3\) or extractor\.min_count"):
        Learned().fit(stretches)


def test_the_largest_value_is_said_where_none_reaches_the_threshold() -> None:
    with pytest.raises(ConfigError, match=r"at least 2 times, the largest NPMI is 0\.5"):
        # 5 and 6: log((2/8) / (4/8 · 2/8)) / log(8/2).
        Learned(threshold=0.99, min_count=2).fit([[5, 6], [5, 6], [5, 7], [5, 7], [8, 9], [9, 8], [8, 8], [9, 9]])


def test_its_kind() -> None:
    assert isinstance(Learned(), ExtractorToFit)
    assert not isinstance(Learned(), FittedExtractor)
    assert isinstance(Learned(min_count=1).fit([[1, 2]]), FittedExtractor)
    for wrong in ({"threshold": 1.5}, {"threshold": -1}, {"min_count": 0}, {"max_tokens": 1}, {"minimum": 3}):
        with pytest.raises(ValidationError):
            Learned(**wrong)


def test_counts_are_whole_numbers_beyond_what_floats_hold() -> None:
    sums = collocations._sums(np.array([7, 8, 7]), np.array([2**53, 1, 1]))
    assert sums.tolist() == [2**53 + 1, 1, 2**53 + 1]
