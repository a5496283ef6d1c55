from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.models.pieces import token_pieces
from limbeck.spans import Phrases, SpanFinder, TokenPieces, align
from limbeck.testing import byte_tokenizer
from reference import spans as reference

BYTES = token_pieces(byte_tokenizer())
PAD, BOS, EOS, TURN, END = range(256, 261)


def test_a_token_goes_to_the_chunk_with_the_larger_overlap() -> None:
    tokens = [(0, 2), (2, 7), (7, 9)]
    assert align(chunks=[(0, 4), (4, 9)], tokens=tokens) == ((1, 3),)
    assert align(chunks=[(0, 5), (5, 9)], tokens=tokens) == ((0, 2),)


def test_of_two_equal_overlaps_the_earlier_chunk_has_the_token() -> None:
    assert align(chunks=[(0, 4), (4, 8)], tokens=[(0, 2), (2, 6), (6, 8)]) == ((0, 2),)


def test_chunks_of_one_token_are_left_out() -> None:
    assert align(chunks=[(0, 3), (4, 7), (8, 11)], tokens=[(0, 3), (4, 6), (6, 7), (8, 11)]) == ((1, 3),)


def test_tokens_outside_of_chunks_belong_to_none() -> None:
    assert align(chunks=[(2, 6)], tokens=[(0, 2), (2, 4), (4, 6), (6, 8)]) == ((1, 3),)


def test_a_token_of_white_space_inside_of_a_chunk_is_of_its_span() -> None:
    assert align(chunks=[(0, 5)], tokens=[(0, 2), (2, 3), (3, 5), (5, 6)]) == ((0, 3),)


def test_an_empty_token_parts_a_chunk() -> None:
    assert align(chunks=[(0, 8)], tokens=[(0, 2), (2, 4), (4, 4), (4, 6), (6, 8)]) == ((0, 2), (3, 5))


def test_tokens_of_one_character_are_all_of_its_chunk() -> None:
    assert align(chunks=[(0, 1)], tokens=[(0, 1), (0, 1), (0, 1)]) == ((0, 3),)


def test_nothing_comes_of_nothing() -> None:
    assert align(chunks=[], tokens=[]) == align(chunks=[(0, 3)], tokens=[]) == align(chunks=[], tokens=[(0, 3)]) == ()


@st.composite
def intervals(draw: st.DrawFn, *, apart: bool) -> list[tuple[int, int]]:
    """In order: disjoint and not empty, or also empty and with a character shared by neighbours."""
    found, at = [], 0
    for _ in range(draw(st.integers(0, 8))):
        start = at + draw(st.integers(0 if apart or not found or found[-1][0] == found[-1][1] else -1, 3))
        end = start + draw(st.integers(1 if apart else 0, 6))
        found.append((start, end))
        at = max(at, end)
    return found


@given(intervals(apart=True), intervals(apart=False))
def test_spans_are_the_references(chunks: list[tuple[int, int]], tokens: list[tuple[int, int]]) -> None:
    assert list(align(chunks=chunks, tokens=tokens)) == reference.align(chunks, tokens)


def one_word(text: str) -> tuple[tuple[int, int], ...]:
    return ((0, len(text)),) if text else ()


@pytest.mark.parametrize(
    "found", [((0, 4), (2, 6)), ((4, 6), (0, 2)), ((3, 1),), ((2, 2),), ((-2, 1),), ((0, 99),), ("we", "you"), None]
)
def test_what_is_no_intervals_in_order_is_refused(found: object) -> None:
    letters = TokenPieces(pieces=tuple(bytes([byte]) for byte in range(256)), special=frozenset({0}))
    with pytest.raises(ConfigError, match="in order, disjoint and not empty"):
        SpanFinder(lambda text: found, letters).spans([*b"we or you"])


def test_a_span_crosses_no_special_token() -> None:
    ids = [*b"the old", EOS, *b"dog", PAD, *b"x", EOS, TURN]
    assert SpanFinder(one_word, BYTES).spans(ids) == ((0, 7), (8, 11))


def test_what_special_tokens_part_is_parsed_apart() -> None:
    asked = []

    def extractor(text: str) -> tuple[tuple[int, int], ...]:
        asked.append(text)
        return ()

    SpanFinder(extractor, BYTES).spans([*b"the old", EOS, *b"dog"])
    assert asked == ["the old", "dog"]


def test_the_phrases_of_a_response() -> None:
    text = "The café sells old books.\n- in the house"
    ids = [*text.encode(), EOS]
    spans = SpanFinder(Phrases(), BYTES).spans(ids)
    assert [bytes(ids[first:end]).decode() for first, end in spans] == [
        "The café", "sells", "old books", "in the house",
    ]  # fmt: skip


def counting(asked: list[str]) -> SpanFinder:
    def extractor(text: str) -> tuple[tuple[int, int], ...]:
        asked.append(text)
        return one_word(text)

    return SpanFinder(extractor, BYTES, memory_rows=2)


def test_a_remembered_response_is_not_parsed_again() -> None:
    asked: list[str] = []
    finder = counting(asked)
    assert finder.spans(list(b"one")) == finder.spans(tuple(b"one")) == ((0, 3),)
    assert asked == ["one"]


def test_what_was_not_asked_for_lately_is_forgotten() -> None:
    asked: list[str] = []
    finder = counting(asked)
    for text in (b"one", b"two", b"one", b"three", b"one", b"two"):
        finder.spans(list(text))
    assert asked == ["one", "two", "three", "two"]


def test_large_ids_are_told_apart() -> None:
    vocabulary = TokenPieces(pieces=(b"a",) * 300_000, special=frozenset())
    asked: list[str] = []
    finder = SpanFinder(lambda text: asked.append(text) or (), vocabulary)
    finder.spans([299_999, 1])
    finder.spans([299_999 % 65_536, 1])
    assert len(asked) == 2


def halves(text: str) -> tuple[tuple[int, int], ...]:
    middle = len(text) // 2
    return tuple((start, end) for start, end in ((0, middle), (middle, len(text))) if start < end)


@given(st.lists(st.integers(0, 260), max_size=60))
def test_spans_of_any_ids_are_disjoint_in_order_and_without_special_tokens(ids: Sequence[int]) -> None:
    for extractor in (Phrases(), halves):
        before = 0
        for first, end in SpanFinder(extractor, BYTES).spans(ids):
            assert before <= first
            assert first + 2 <= end <= len(ids)
            assert not any(BYTES.is_special(id) for id in ids[first:end])
            before = end


@given(st.text(max_size=40).map(str.encode), st.text(max_size=40).map(str.encode))
def test_the_spans_of_two_responses_are_those_of_each(left: bytes, right: bytes) -> None:
    finder = SpanFinder(Phrases(), BYTES)
    moved = tuple((first + len(left) + 1, end + len(left) + 1) for first, end in finder.spans(list(right)))
    assert finder.spans([*left, END, *right]) == finder.spans(list(left)) + moved
