"""Spans learned from a run's own responses: tokens that stand together more often than chance puts them there."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.errors import ConfigError
from limbeck.spans.extractors import even_pieces
from limbeck.spans.pieces import Interval

# Where one stretch ends and the next begins; no token has this id.
_APART = -1
# Tokens that are counted at a time: 100 MB while they are sorted.
_BATCH = 1 << 22
_SECOND = np.int64((1 << 32) - 1)
_Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collocations:
    """Pairs of tokens that belong together, with their NPMI; made by `Learned`.

    A span is a maximal run of neighbours that are such pairs, cut into even pieces of at most `max_tokens`.

    >>> Collocations(npmi={(5, 6): 1.0, (6, 7): 0.5}, max_tokens=8).of_tokens([4, 5, 6, 7, 5, 6])
    ((1, 4), (4, 6))
    """

    npmi: Mapping[tuple[int, int], float]
    max_tokens: int

    def of_tokens(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        """The runs among these tokens, each of at least two."""
        spans: list[Interval] = []
        first = 0
        for place in range(1, len(ids) + 1):
            if place == len(ids) or (ids[place - 1], ids[place]) not in self.npmi:
                if place - first > 1:
                    pieces = even_pieces(place - first, most=self.max_tokens)
                    spans.extend((first + left, first + right) for left, right in pieces)
                first = place
        return tuple(spans)

    def state(self) -> dict[str, Any]:
        """`collocations`: [first token, second token, NPMI] of each pair, by ids."""
        return {"collocations": [[*pair, value] for pair, value in sorted(self.npmi.items())]}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Learned:
    """Collocations of the training responses: runs of tokens whose neighbours have NPMI(a, b) ≥ threshold.

        NPMI(a, b) = log(p(a, b) / (p(a)·p(b))) / −log p(a, b), between −1 and 1     (Bouma 2009)

    over all neighbours in the references that a run trains on, each row once: p(a, b) is the share of neighbours that
    are a and b in this order, p(a) that of those with a in front, p(b) of those with b behind. 1: never one without the
    other; 0: as often as chance has it. Pairs that were seen fewer than `min_count` times are none: one that is seen
    once has an NPMI near 1 by chance. A run of more than `max_tokens` tokens is cut into pieces as even as they can be.

    Ids alone are looked at: any language, any tokenizer, and code. Punctuation counts like any token, special tokens
    are in no span. Learned once, at the start of a run, and kept with it; a resumed run reads it and learns nothing
    again. A million tokens take less than a second. Raises `ConfigError` if no pair qualifies.

    >>> Learned(min_count=2, threshold=0.5).fit([[1, 2, 3], [1, 2, 4], [5, 3, 4]]).npmi
    {(1, 2): 1.0}
    """

    threshold: float = Field(default=0.3, gt=-1, le=1)
    min_count: int = Field(default=5, ge=1)
    max_tokens: int = Field(default=8, ge=2)

    def fit(self, stretches: Iterable[Sequence[int]]) -> Collocations:
        """The collocations of these runs of tokens."""
        pairs, counts = _counted(stretches)
        npmi = _npmi(pairs, counts)
        enough = counts >= self.min_count
        kept = enough & (npmi >= self.threshold)
        if not kept.any():
            seen = f"{npmi[enough].max():.3f}" if enough.any() else f"none: {int(counts.sum())} pairs were seen in all"
            raise ConfigError(
                f"the extractor 'learned' found no collocation: of the pairs seen at least {self.min_count} times, the "
                f"largest NPMI is {seen}.\n"
                f"  Lower extractor.threshold ({self.threshold:g}) or extractor.min_count, or take another extractor"
            )
        first, second = pairs[kept] >> 32, pairs[kept] & _SECOND
        found = zip(zip(first.tolist(), second.tolist(), strict=True), npmi[kept].tolist(), strict=True)
        return Collocations(npmi=dict(found), max_tokens=self.max_tokens)

    def restored(self, state: Mapping[str, Any]) -> Collocations:
        """The collocations of `Collocations.state`."""
        npmi = {(int(first), int(second)): float(value) for first, second, value in state["collocations"]}
        return Collocations(npmi=npmi, max_tokens=self.max_tokens)


def _counted(stretches: Iterable[Sequence[int]]) -> _Counts:
    """Each pair of neighbours as first · 2³² + second, ascending, and how often it is there."""
    found: _Counts = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    waiting = array("q")
    for stretch in stretches:
        waiting.extend(stretch)
        waiting.append(_APART)
        if len(waiting) >= _BATCH:
            found = _merged(found, waiting)
            waiting = array("q")
    return _merged(found, waiting)


def _merged(known: _Counts, waiting: array[int]) -> _Counts:
    ids = np.frombuffer(waiting, dtype=np.int64)
    first, second = ids[:-1], ids[1:]
    inside = (first != _APART) & (second != _APART)
    fresh, times = np.unique((first[inside] << 32) | second[inside], return_counts=True)
    pairs, place = np.unique(np.concatenate([known[0], fresh]), return_inverse=True)
    counts = np.zeros(len(pairs), np.int64)
    np.add.at(counts, place, np.concatenate([known[1], times]))
    return pairs, counts


def _npmi(pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """NPMI of each pair; a pair that is all there is has 1, the limit."""
    log_all = np.log(max(int(counts.sum()), 1))
    log_pair = np.log(counts) - log_all
    log_first = np.log(_sums(pairs >> 32, counts)) - log_all
    log_second = np.log(_sums(pairs & _SECOND, counts)) - log_all
    is_all = log_pair == 0
    found: NDArray[np.float64] = (log_pair - log_first - log_second) / np.where(is_all, 1.0, -log_pair)
    return np.where(is_all, 1.0, found)


def _sums(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry the sum of the counts of all entries with its key."""
    _, place = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(keys), np.int64)
    np.add.at(sums, place, counts)
    return sums[place]
