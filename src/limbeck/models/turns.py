"""Who is decoded when: waiting rows take the seats of finished ones, and columns that no row needs are let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from limbeck.models.decoders import Decoder

UNIT_TURNS = 4
"""Rows that are drawn as one unit where a file is made of units: this many times those that are decoded at a time."""

# Measured (ADR 21): reading waiting rows costs a forward, and seats that stay empty until then cost forwards later.
_SHARE_TO_ENTER = 8
# So many rows are read in one forward whatever their lengths, and more where padding stays a small share of it.
_READ_TOGETHER, _SHARE_OF_PADDING = 16, 8
# What is let go must be worth copying the rest.
_SHARE_TO_TRIM = 8


@runtime_checkable
class Joining(Protocol):
    """A decoder whose caches can be put together, so that rows come in while others go on."""

    def joins(self, cache: Any) -> bool:
        """Whether caches like this one can be put together."""
        ...

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """One cache with the rows of all in this order, of their last `width` columns; the parts are used up."""
        ...


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How many rows are decoded at a time, and when waiting rows come in.

    A pure function of what is seated and waiting: a draw that is taken again decodes the same shapes. Waiting rows
    come in as soon as an eighth of the seats is free, or enough for all of them; where caches do not join, when all
    seats are.

    >>> turns = Turns(seats=16, joins=True)
    >>> [turns.entering(waiting=9, seated=seated) for seated in (0, 15, 14, 10)]
    [9, 0, 2, 6]
    >>> turns.entering(waiting=1, seated=15), Turns(seats=16, joins=False).entering(waiting=9, seated=3)
    (1, 0)
    """

    seats: int
    joins: bool

    @classmethod
    def of(cls, decoder: Decoder, *, rows: int, seats: int) -> Turns:
        """The turns of so many rows; where caches do not join, groups that follow each other are nearly equal."""
        is_in_parts = rows > min(seats, _READ_TOGETHER)
        joins = is_in_parts and isinstance(decoder, Joining) and decoder.joins(decoder.start())
        groups = max(1, -(-rows // seats))
        return cls(seats=seats if joins else max(1, -(-rows // groups)), joins=joins)

    def entering(self, *, waiting: int, seated: int) -> int:
        """How many of the waiting rows are read now."""
        free = self.seats - seated
        if not seated:
            return min(waiting, free)
        is_worth_it = free >= min(waiting, max(1, self.seats // _SHARE_TO_ENTER))
        return min(waiting, free) if self.joins and is_worth_it else 0


def read_together(lengths: Sequence[int]) -> int:
    """How many of the rows that come in, of these lengths, are read in one forward: sixteen, and as many more as leave
    at most an eighth of its columns to padding.

    >>> read_together([9] * 40), read_together([9] * 20 + [1] * 20), read_together([9, *[1] * 30])
    (40, 23, 16)
    """
    count = min(len(lengths), _READ_TOGETHER)
    width, held = max(lengths[:count], default=0), sum(lengths[:count])
    while count < len(lengths):
        width, held = max(width, lengths[count]), held + lengths[count]
        columns = width * (count + 1)
        if (columns - held) * _SHARE_OF_PADDING > columns:
            break
        count += 1
    return count


def in_turn(rows: Sequence[int], *, seats: int, lengths: Sequence[int], limits: Sequence[int]) -> list[int]:
    """The order in which rows come in: those that may become longest by drawing first, so that none of them is left
    to be decoded alone at the end, and of these the longest, which share padding. The longest first where all have a
    seat; as given where all are read at once.

    >>> in_turn([0, 1, 2], seats=2, lengths=[3, 5, 9], limits=[10, 12, 12])
    [1, 0, 2]
    """
    if len(rows) <= min(seats, _READ_TOGETHER):
        return list(rows)
    if len(rows) <= seats:
        return sorted(rows, key=lambda row: (-lengths[row], row))
    return sorted(rows, key=lambda row: (lengths[row] - limits[row], -lengths[row], row))


@dataclass(frozen=True)
class Table:
    """Rows that are decoded together: their cache, the tokens that it has not read, and their positions.

    `attended` says which columns of both hold tokens: rows stand at the right, without holes.
    """

    rows: list[int]
    cache: Any
    tokens: Int[Tensor, "b new"]
    attended: Bool[Tensor, "b past_and_new"]
    positions: Int[Tensor, "b new"]

    @property
    def is_read(self) -> bool:
        """Whether all but the last token of each row are in the cache, and something is."""
        return self.tokens.shape[1] == 1 and self.attended.shape[1] > 1

    @property
    def past(self) -> int:
        """Columns that the longest row has in the cache."""
        return int(self.attended.sum(dim=1).max()) - self.tokens.shape[1]


def seated_together(decoder: Joining, tables: Sequence[Table]) -> Table:
    """The rows of tables that are read, in one; no column is left that none of them needs."""
    width = max(table.past for table in tables)
    return Table(
        rows=[row for table in tables for row in table.rows],
        cache=decoder.joined([table.cache for table in tables], width=width),
        tokens=torch.cat([table.tokens for table in tables]),
        attended=torch.cat([_last_columns(table.attended, width + 1) for table in tables]),
        positions=torch.cat([table.positions for table in tables]),
    )


def trimmed(decoder: object, table: Table) -> Table:
    """The table without the columns that only finished rows needed, where they are an eighth of all or more."""
    columns = table.attended.shape[1] - table.tokens.shape[1]
    if not isinstance(decoder, Joining) or (columns - table.past) * _SHARE_TO_TRIM < max(1, columns):
        return table
    return seated_together(decoder, [table]) if decoder.joins(table.cache) else table


def caches_join(cache: DynamicCache, *, config: Any) -> bool:
    """Whether every layer keeps plain keys and values of all its past, or of a window that slides over it."""
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    is_plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    # A chunk's borders are places in the row's columns, which move when rows are put together.
    return is_plain and set(kinds) <= {"full_attention", "sliding_attention"}


def joined_caches(caches: Sequence[DynamicCache], *, width: int, config: Any) -> DynamicCache:
    """One transformers cache with the rows of all, of their last `width` columns, left-padded with zeros."""
    whole = DynamicCache(config=config)
    for number, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        # A layer that reads another layer's keys has none of its own.
        if all(layer.is_initialized for layer in layers):
            keys = torch.cat([_last_columns(layer.keys, width, dim=2) for layer in layers])
            values = torch.cat([_last_columns(layer.values, width, dim=2) for layer in layers])
            whole.update(keys, values, number)
            # Layer by layer, so that the old columns do not stay beside all of the new ones.
            for layer in layers:
                layer.reset()
    return whole


def _last_columns(tensor: Float[Tensor, "..."] | Bool[Tensor, "..."], width: int, *, dim: int = 1) -> Tensor:
    """The last `width` columns, with zeros in front of them where there are fewer."""
    missing = width - tensor.shape[dim]
    if missing <= 0:
        return tensor.narrow(dim, -missing, width)
    padding = list(tensor.shape)
    padding[dim] = missing
    return torch.cat([tensor.new_zeros(padding), tensor], dim=dim)
