from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import BertTokenizer

from limbeck.errors import ConfigError
from limbeck.models.pieces import special_ids, token_pieces
from limbeck.spans import EXTRACTORS, Extractor, SpanFinder, TextExtractor, TokenExtractor, TokenPieces, Whole, Window
from limbeck.spans.packing import stretches

END = 9
PLAIN = TokenPieces(pieces=(), special=frozenset({END}))

some_ids = st.lists(st.integers(0, END), max_size=30)


def test_windows_follow_one_another() -> None:
    assert Window(size=4).of_tokens([1] * 10) == ((0, 4), (4, 8), (8, 10))
    assert Window(size=5).of_tokens([1] * 10) == ((0, 5), (5, 10))
    assert SpanFinder(Window(size=3), PLAIN).spans([1] * 7) == ((0, 3), (3, 6)), "one token alone has no pair"


def test_a_response_is_one_span() -> None:
    assert SpanFinder(Whole(), PLAIN).spans([1, 2, 3, END]) == ((0, 3),)
    assert SpanFinder(Whole(), PLAIN).spans([1, 2, END, 3, 4, 5]) == ((0, 2), (3, 6))


@pytest.mark.parametrize("extractor", [Window(), Whole()])
@pytest.mark.parametrize("ids", [[], [1], [END], [1, END], [END, 1, END, 1]])
def test_less_than_two_tokens_are_no_span(extractor: TokenExtractor, ids: list[int]) -> None:
    assert SpanFinder(extractor, PLAIN).spans(ids) == ()


@given(some_ids, st.integers(2, 6))
def test_every_token_is_in_a_window_but_special_ones_and_those_alone(ids: list[int], size: int) -> None:
    spans = SpanFinder(Window(size=size), PLAIN).spans(ids)
    covered = [place for first, end in spans for place in range(first, end)]
    assert len(covered) == len(set(covered))
    assert all(2 <= end - first <= size for first, end in spans)
    for first, end in stretches(ids, special=PLAIN.special):
        own = [place for place in covered if first <= place < end]
        assert own == list(range(first, end - ((end - first) % size == 1)))
    assert all(ids[place] != END for place in covered)


@given(some_ids)
def test_stretches_are_all_that_is_not_special(ids: list[int]) -> None:
    found = list(stretches(ids, special=frozenset({END})))
    assert [place for first, end in found for place in range(first, end)] == [
        place for place, id in enumerate(ids) if id != END
    ]
    assert all(first < end for first, end in found)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


def test_they_are_asked_for_tokens_and_not_for_text() -> None:
    for extractor in (Window(), Whole()):
        assert isinstance(extractor, TokenExtractor)
        assert not isinstance(extractor, TextExtractor)
        assert isinstance(extractor, Extractor)


def test_a_tokenizer_without_bytes_will_do() -> None:
    vocabulary = {token: id for id, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##re"])}
    tokenizer = BertTokenizer(vocab=vocabulary)
    special = special_ids(tokenizer)
    finder = SpanFinder.of(Whole(), special=special, pieces=lambda: token_pieces(tokenizer))
    assert finder.spans([5, 6, 5, 3]) == ((0, 3),)
    with pytest.raises(ConfigError, match="neither byte-level nor SentencePiece"):
        SpanFinder.of(EXTRACTORS["phrases"](), special=special, pieces=lambda: token_pieces(tokenizer))


def test_what_is_remembered_belongs_to_one_extractor() -> None:
    asked: list[int] = []

    class Counting:
        def of_tokens(self, ids):
            asked.append(len(ids))
            return ((0, 2),)

    counting, window = SpanFinder(Counting(), PLAIN), SpanFinder(Window(size=3), PLAIN)
    for _ in range(2):
        assert counting.spans([1, 2, 3]) == ((0, 2),)
        assert window.spans([1, 2, 3]) == ((0, 3),)
    assert asked == [3]


def test_settings_are_checked() -> None:
    for wrong in ({"size": 1}, {"length": 3}):
        with pytest.raises(ValidationError):
            Window(**wrong)
    with pytest.raises(ValidationError):
        Whole(size=3)
