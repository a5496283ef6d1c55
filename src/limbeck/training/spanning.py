"""The spans of a batch's responses, as pairs of neighbouring tokens."""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.models.scoring import span_pairs
from limbeck.spans.packing import SpanFinder
from limbeck.spans.pieces import Interval
from limbeck.types import Pairs, Sequences


def pairs_of(sequences: Sequences, finder: SpanFinder) -> Pairs:
    """The pairs inside the spans of every response of these rows; the prompt has none."""
    tokens, flags = sequences.tokens.tolist(), sequences.is_response.tolist()
    spans = [
        [
            (first + start, first + end)
            for first, stop in _responses(own)
            for start, end in finder.spans(row[first:stop])
        ]
        for row, own in zip(tokens, flags, strict=True)
    ]
    return span_pairs(sequences, spans)


def _responses(flags: list[bool]) -> Iterator[Interval]:
    """Where the responses of a row begin and end."""
    first = None
    for place, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = place
        elif not flag and first is not None:
            yield first, place
            first = None
