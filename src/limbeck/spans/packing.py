"""From spans of characters to spans of tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

from limbeck.errors import ConfigError
from limbeck.spans.extractors import Extractor, ExtractorToFit, ReadyExtractor, TokenExtractor
from limbeck.spans.pieces import Interval, TokenPieces

# Eq. 10 relates a token to the next one of its span.
_FEWEST_TOKENS = 2


def align(*, chunks: Sequence[Interval], tokens: Sequence[Interval]) -> tuple[Interval, ...]:
    """The chunks of a text as spans of its tokens, [first, end) in token indices: s_i of MGSR, 2407.10068, Eq. 9.

    `chunks`: disjoint character intervals in order. `tokens`: the characters of each token, in order; empty ones
    belong to no chunk. A token goes to the chunk with the larger overlap, of two equal ones to the earlier. A span is a
    maximal run of a chunk's tokens; those of one token, which has no neighbour to be related to, are left out.

    >>> chunks = [(0, 9), (10, 15)]  # "the old c", "t sat" in "the old cat sat"
    >>> align(chunks=chunks, tokens=[(0, 3), (4, 7), (8, 11), (12, 15), (15, 15)])
    ((0, 3),)
    """
    owners = _owners(chunks=chunks, tokens=tokens)
    spans, first = [], 0
    for place in range(1, len(owners) + 1):
        if place == len(owners) or owners[place] != owners[first]:
            if owners[first] is not None and place - first >= _FEWEST_TOKENS:
                spans.append((first, place))
            first = place
    return tuple(spans)


def _owners(*, chunks: Sequence[Interval], tokens: Sequence[Interval]) -> list[int | None]:
    """The chunk that each token belongs to."""
    owners: list[int | None] = []
    nearest = 0
    for start, end in tokens:
        owner, most = None, 0
        if start < end:
            while nearest < len(chunks) and chunks[nearest][1] <= start:
                nearest += 1
            chunk = nearest
            while chunk < len(chunks) and chunks[chunk][0] < end:
                overlap = min(end, chunks[chunk][1]) - max(start, chunks[chunk][0])
                if overlap > most:
                    owner, most = chunk, overlap
                chunk += 1
        owners.append(owner)
    return owners


def stretches(ids: Sequence[int], *, special: frozenset[int]) -> Iterator[Interval]:
    """The parts [first, end) between special tokens, where they are not empty.

    >>> list(stretches([5, 6, 0, 0, 7, 0], special=frozenset({0})))
    [(0, 2), (4, 5)]
    """
    first = 0
    for place, id in enumerate(ids):
        if id in special:
            if first < place:
                yield first, place
            first = place + 1
    if first < len(ids):
        yield first, len(ids)


def try_out(extractor: Extractor) -> None:
    """Have an extractor say now, and not at the first response, what it lacks. Raises `ConfigError`.

    One that reads text is asked for the empty text, which makes it load what it needs.
    """
    if not isinstance(extractor, TokenExtractor | ExtractorToFit):
        extractor("")


class SpanFinder:
    """The spans of a response as runs of its tokens, remembered by the response's ids.

    `extractor` is asked for the spans of each stretch between special tokens, so that no span crosses one: for a text
    extractor the stretch is written as text, and its intervals are brought back to tokens by `align`. Spans of one
    token are left out. The `memory_rows` responses that were asked for last are not parsed again: fixed data is parsed
    once in a run. A remembered response takes 4 bytes a token, 8 a span and about 300 more: 50,000 rows of 100 tokens,
    40 MB.

    >>> letters = TokenPieces(pieces=tuple(bytes([byte]) for byte in range(256)), special=frozenset({0}))
    >>> SpanFinder(lambda text: ((0, 3),), letters).spans([*b"one a\\0two"])
    ((0, 3), (6, 9))
    """

    def __init__(self, extractor: ReadyExtractor, pieces: TokenPieces, *, memory_rows: int = 50_000) -> None:
        self.extractor = extractor
        self.pieces = pieces
        self._remembered = lru_cache(maxsize=memory_rows)(self._find)

    @classmethod
    def of(cls, extractor: ReadyExtractor, *, special: frozenset[int], pieces: Callable[[], TokenPieces]) -> SpanFinder:
        """A finder for a tokenizer of which the bytes of tokens (`pieces`) are asked for only if the extractor reads
        text: token extractors work with tokenizers that have none."""
        reads_text = not isinstance(extractor, TokenExtractor)
        return cls(extractor, pieces() if reads_text else TokenPieces(pieces=(), special=special))

    def spans(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        """Spans [first, end) of at least two tokens, disjoint and in order, in indices of `ids` (the response)."""
        bounds = self._remembered(array("I", list(ids)).tobytes())
        return tuple(zip(bounds[::2], bounds[1::2], strict=True))

    def _find(self, packed_ids: bytes) -> array[int]:
        """The spans' bounds one after the other; bytes and an array, because 50,000 rows of them are kept."""
        ids = array("I")
        ids.frombytes(packed_ids)
        bounds = array("I")
        for first, end in stretches(ids, special=self.pieces.special):
            for span in self._of_stretch(ids[first:end]):
                bounds.extend((first + span[0], first + span[1]))
        return bounds

    def _of_stretch(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        if isinstance(self.extractor, TokenExtractor):
            found = _in_order(self.extractor.of_tokens(ids), self.extractor, end=len(ids))
            return tuple((first, end) for first, end in found if end - first >= _FEWEST_TOKENS)
        text, tokens = self.pieces.text_of(ids)
        return align(chunks=_in_order(self.extractor(text), self.extractor, end=len(text)), tokens=tokens)


def _in_order(found: Any, extractor: object, *, end: int) -> Sequence[Interval]:
    """What an extractor found, which may be somebody's own: `align` would make other spans of intervals in disorder.

    Raises `ConfigError`.
    """
    last = 0
    for interval in found if isinstance(found, Sequence) else (found,):
        is_pair = (
            isinstance(interval, Sequence) and len(interval) == 2 and all(isinstance(n, Integral) for n in interval)
        )
        if not is_pair or not last <= interval[0] < interval[1] <= end:
            raise ConfigError(
                f"the extractor {type(extractor).__name__} gave {interval!r}; allowed at this place: whole numbers "
                f"(start, end) with {last} ≤ start < end ≤ {end}: intervals stand in order, disjoint and not empty"
            )
        last = interval[1]
    return list(found)
