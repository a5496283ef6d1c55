"""The finder of a run's spans, and the spans of a batch's responses as pairs of neighbouring tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from limbeck.data.loader import Mix
from limbeck.losses.objective import Objective
from limbeck.models.pieces import special_ids, token_pieces
from limbeck.models.scoring import span_pairs
from limbeck.records import EncodedRow
from limbeck.spans.extractors import ExtractorToFit, FittedExtractor
from limbeck.spans.packing import SpanFinder, stretches, try_out
from limbeck.spans.pieces import Interval
from limbeck.training.rundir import RunDirectory
from limbeck.training.world import World
from limbeck.types import Pairs, Sequences


def try_extractors(objective: Objective) -> None:
    """Have a library or model that an extractor lacks said before anything is loaded. Raises `ConfigError`."""
    for term in objective.pair_terms.values():
        try_out(term.extractor)


def open_finder(
    objective: Objective,
    *,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[EncodedRow] | Mix,
    world: World,
    resumed: RunDirectory | None,
) -> SpanFinder | None:
    """The finder of an objective's spans; None for one without a span term. Every rank must call it.

    An extractor that has to be learned is learned from the references of `rows`, or read from the directory of a
    `resumed` run. Raises `ConfigError` for a tokenizer whose tokens are no text if the extractor reads text, and
    `CheckpointError` if what was learned cannot be read.
    """
    found = [term.extractor for term in objective.pair_terms.values()]
    if not found:
        return None
    special = special_ids(tokenizer)
    extractor = found[0]
    if isinstance(extractor, ExtractorToFit):
        extractor = _fitted(extractor, special=special, rows=rows, world=world, resumed=resumed)
    return SpanFinder.of(extractor, special=special, pieces=partial(token_pieces, tokenizer))


def learned_state(finder: SpanFinder | None) -> dict[str, Any] | None:
    """What a run has to keep of its extractor: what was learned; None where nothing was."""
    extractor = None if finder is None else finder.extractor
    return extractor.state() if isinstance(extractor, FittedExtractor) else None


def _fitted(
    extractor: ExtractorToFit,
    *,
    special: frozenset[int],
    rows: Sequence[EncodedRow] | Mix,
    world: World,
    resumed: RunDirectory | None,
) -> FittedExtractor:
    if resumed is not None:
        return extractor.restored(resumed.extractor())
    own = extractor.fit(_references(rows, special=special))
    # Another machine's processor may round a logarithm otherwise: all ranks take what the main one has found.
    (state,) = world.gather([own.state()] if world.is_main else [])
    return extractor.restored(state)


def _references(rows: Sequence[EncodedRow] | Mix, *, special: frozenset[int]) -> Iterator[Sequence[int]]:
    """The tokens between special ones of each row's responses, each row once whatever the weights of a mix."""
    for part in rows.parts if isinstance(rows, Mix) else (rows,):
        for row in part:
            for first, end in _responses(row.is_response):
                response = row.tokens[first:end]
                yield from (response[left:right] for left, right in stretches(response, special=special))


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


def _responses(flags: Sequence[bool]) -> Iterator[Interval]:
    """Where the responses of a row begin and end."""
    first = None
    for place, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = place
        elif not flag and first is not None:
            yield first, place
            first = None
