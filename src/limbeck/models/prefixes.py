"""Keys and values of drawn rows, kept so that a prefix that is drawn on from is not computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from limbeck.types import RowKey

MOST_BYTES = 1 << 30
"""The most that is kept of one model's keys and values during a step."""

Layers = tuple[tuple[Float[Tensor, "_ _ _"], Float[Tensor, "_ _ _"]], ...]
"""A row's keys and values, layer by layer: `[heads, length, D]` each."""


@runtime_checkable
class Remembering(Protocol):
    """A decoder whose caches can be taken apart into rows and put together again."""

    def take(self, cache: Any, row: int, *, length: int) -> Layers | None:
        """The last `length` columns of a row; None where the model keeps anything but plain full attention."""
        ...

    def give(self, rows: Sequence[Layers]) -> Any:
        """A cache that holds these rows, left-padded to the longest."""
        ...


@dataclass(frozen=True)
class _Kept:
    tokens: tuple[int, ...]
    layers: Layers


class DrawState:
    """What draws from one and the same weights leave for later draws: keys and values by row key.

    Good for one step: whoever moves the weights lets it go. Rows are kept as they come while all together stay under
    `most_bytes`; a row beyond that is computed again when it is drawn on from, which changes no token but by rounding.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rows: dict[RowKey, _Kept] = {}

    def put(self, key: RowKey, tokens: Sequence[int], layers: Layers | None) -> None:
        """Keep a row whose keys and values are those of `tokens`, if it fits."""
        self._rows.pop(key, None)
        if layers is not None and self._num_bytes() + layers_size(layers) <= self._most_bytes:
            self._rows[key] = _Kept(tuple(tokens), layers)

    def is_full(self) -> bool:
        """Whether another row like the largest one would not fit."""
        largest = max((layers_size(kept.layers) for kept in self._rows.values()), default=1)
        return self._num_bytes() + largest > self._most_bytes

    def length(self, key: RowKey, prefix: Sequence[int]) -> int:
        """How many leading tokens of `prefix` are held: at most all but the last, which a draw has to read itself.

        >>> state = DrawState()
        >>> state.put((0,), [5, 6, 7], ())
        >>> state.length((0,), [5, 6, 7]), state.length((0,), [5, 6, 9, 7]), state.length((1,), [5, 6])
        (2, 2, 0)
        """
        kept = self._rows.get(key)
        return 0 if kept is None else common_start(kept.tokens, prefix[:-1])

    def first(self, key: RowKey, length: int) -> Layers:
        """Keys and values of the first `length` tokens of a row that is held."""
        return tuple((keys[:, :length], values[:, :length]) for keys, values in self._rows[key].layers)

    def _num_bytes(self) -> int:
        return sum(layers_size(kept.layers) for kept in self._rows.values())


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens two rows share.

    >>> common_start([5, 6, 7], [5, 6, 9, 7]), common_start([5], [5, 6])
    (2, 1)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def layers_size(layers: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Bytes of keys and values."""
    return sum(tensor.numel() * tensor.element_size() for pair in layers for tensor in pair)


def taken(cache: Any, row: int, *, length: int) -> Layers | None:
    """The last `length` columns of a row of a transformers cache; None unless every layer keeps all its past as is."""
    end = cache.get_seq_length()
    found = columns_of(cache, row, first=end - length, end=end) if end >= length else None
    # A copy: a view would keep the whole batch in memory.
    return None if found is None else tuple((keys.clone(), values.clone()) for keys, values in found)


def columns_of(cache: Any, row: int, *, first: int, end: int) -> Layers | None:
    """Columns of a row as views of the cache; None unless every layer keeps all its past as is."""
    # A subclass may drop, quantise or share what it is given.
    if not all(type(layer) is DynamicLayer and layer.get_seq_length() >= end for layer in cache.layers):
        return None
    return tuple((layer.keys[row, :, first:end], layer.values[row, :, first:end]) for layer in cache.layers)


def given(rows: Sequence[Layers], *, config: Any) -> DynamicCache:
    """A transformers cache that holds these rows, left-padded with zeros to the longest."""
    cache = DynamicCache(config=config)
    for number in range(len(rows[0])):
        keys, values = (_left_padded([layers[number][part] for layers in rows]) for part in (0, 1))
        cache.update(keys, values, number)
    return cache


def _left_padded(parts: Sequence[Float[Tensor, "heads _ D"]]) -> Float[Tensor, "b heads longest D"]:
    longest = max(part.shape[1] for part in parts)
    padded = parts[0].new_zeros(len(parts), parts[0].shape[0], longest, parts[0].shape[2])
    for place, part in enumerate(parts):
        padded[place, :, longest - part.shape[1] :] = part
    return padded


def shared_past(state: DrawState, keys: Sequence[RowKey], prefixes: Sequence[Sequence[int]]) -> list[int]:
    """How much of each prefix a draw takes from the state, such that all rows have equally much left to read.

    Equally much, because rows are packed without holes. Empty where some row has nothing to take.

    >>> state = DrawState()
    >>> state.put((0,), [5, 6, 7], ())
    >>> state.put((1,), [5, 8], ())
    >>> shared_past(state, [(0,), (1,)], [[5, 6, 9], [5, 8, 3, 4]]), shared_past(state, [(2,)], [[5, 6]])
    ([1, 2], [])
    """
    lengths = [state.length(key, prefix) for key, prefix in zip(keys, prefixes, strict=True)]
    left = max((len(prefix) - length for prefix, length in zip(prefixes, lengths, strict=True)), default=0)
    past = [len(prefix) - left for prefix in prefixes]
    return past if past and min(past) > 0 else []


def attended_after(past: Sequence[int], *, new: int, device: torch.device) -> Tensor:
    """Which of the columns of left-padded pasts and `new` more columns hold tokens.

    >>> attended_after([1, 2], new=1, device=torch.device("cpu")).int().tolist()
    [[0, 1, 1], [1, 1, 1]]
    """
    longest = max(past)
    attended = torch.ones((len(past), longest + new), dtype=torch.bool)
    for row, length in enumerate(past):
        attended[row, : longest - length] = False
    return attended.to(device)
