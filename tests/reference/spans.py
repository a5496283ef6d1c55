"""Tokens, characters and chunks once more, by looking at every character: nothing is remembered from one to the next.

A token is its bytes. Intervals are [start, end).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Interval = tuple[int, int]


def characters(data: bytes) -> list[tuple[str, int, int]]:
    """Each character with its first byte and the byte after its last.

    What is no UTF-8 is U+FFFD once for each longest beginning of a character (Unicode 16, 3.9, tables 3-7 and 3-8).
    """
    found, at = [], 0
    while at < len(data):
        size = 1
        while size < _size(data[at]) and at + size < len(data) and _goes_on(data[at : at + size], data[at + size]):
            size += 1
        whole = size == _size(data[at])
        found.append((data[at : at + size].decode() if whole else "\ufffd", at, at + size))
        at += size
    return found


def _size(first: int) -> int:
    """How many bytes a character that begins with this one has; 0 if none does."""
    if first < 0x80:
        return 1
    return 2 if 0xC2 <= first <= 0xDF else 3 if 0xE0 <= first <= 0xEF else 4 if 0xF0 <= first <= 0xF4 else 0


def _goes_on(begun: bytes, byte: int) -> bool:
    least, most = 0x80, 0xBF
    if len(begun) == 1:
        least = {0xE0: 0xA0, 0xF0: 0x90}.get(begun[0], least)
        most = {0xED: 0x9F, 0xF4: 0x8F}.get(begun[0], most)
    return least <= byte <= most


def text_of(tokens: Sequence[bytes]) -> tuple[str, list[Interval]]:
    """The text of the tokens, and for each the characters that it has a byte of, without white space in front."""
    written = characters(b"".join(tokens))
    text = "".join(character for character, _, _ in written)
    intervals, first = [], 0
    for token in tokens:
        end = first + len(token)
        own = [place for place, (_, start, stop) in enumerate(written) if start < end and stop > first]
        if not token:
            place = sum(stop <= first for _, _, stop in written)
            intervals.append((place, place))
        else:
            solid = [place for place in own if not text[place].isspace()]
            intervals.append((solid[0] if solid else own[0], own[-1] + 1))
        first = end
    return text, intervals


def align(chunks: Sequence[Interval], tokens: Sequence[Interval]) -> list[Interval]:
    """Eq. 9 of MGSR, arXiv 2407.10068: the spans as runs of at least two tokens."""
    owner = []
    for token in tokens:
        shared = [len(set(range(*token)) & set(range(*chunk))) for chunk in chunks]
        most = max(shared, default=0)
        owner.append(shared.index(most) if most else None)
    spans = []
    for first in range(len(tokens)):
        for end in range(first + 2, len(tokens) + 1):
            inside = owner[first] is not None and len(set(owner[first:end])) == 1
            goes_on = (first > 0 and owner[first - 1] == owner[first]) or (
                end < len(tokens) and owner[end] == owner[first]
            )
            if inside and not goes_on:
                spans.append((first, end))
    return spans


def npmi(stretches: Sequence[Sequence[int]]) -> dict[tuple[int, int], tuple[int, float]]:
    """Of each pair of neighbours, how often it is there, and its normalised mutual information (Bouma 2009)."""
    neighbours = [(ids[place], ids[place + 1]) for ids in stretches for place in range(len(ids) - 1)]
    found = {}
    for pair in neighbours:
        first = sum(other[0] == pair[0] for other in neighbours) / len(neighbours)
        second = sum(other[1] == pair[1] for other in neighbours) / len(neighbours)
        together = neighbours.count(pair) / len(neighbours)
        value = 1.0 if together == 1 else math.log(together / (first * second)) / -math.log(together)
        found[pair] = (neighbours.count(pair), value)
    return found


def runs(ids: Sequence[int], pairs: set[tuple[int, int]]) -> list[Interval]:
    """All [first, end) of at least two tokens whose neighbours are all such pairs, and that are in no longer one."""
    spans = [
        (first, end)
        for first in range(len(ids))
        for end in range(first + 2, len(ids) + 1)
        if all((ids[place], ids[place + 1]) in pairs for place in range(first, end - 1))
    ]
    return [each for each in spans if not any(o != each and o[0] <= each[0] and each[1] <= o[1] for o in spans)]
