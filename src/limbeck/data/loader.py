"""Which rows a step reads: decided by (seed, epoch, index) alone, so that nothing has to be remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.data.shares import quotas
from limbeck.errors import ConfigError, DataError
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.types import RowKey, Sequences, pack_rows

Item = tuple[RowKey, EncodedRow]


@dataclass(frozen=True)
class Mix:
    """Several lists of rows with weights: the share of an epoch's rows that comes from each list.

    An epoch is as long as all lists together and takes an exact quota from each; a list that its quota exhausts starts
    over in a new order, one that is not used up goes on in the next epoch. Raises `ConfigError` for a weight that is
    not positive or too small to give a row, `DataError` for an empty list.
    """

    parts: tuple[Sequence[EncodedRow], ...]
    weights: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not self.parts:
            raise ConfigError(f"{len(self.parts)} sets of rows have {len(self.weights)} weights; one a set is needed")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ConfigError(f"data.corpus has the weights {list(self.weights)}; each must be a positive number")
        if not all(self.parts):
            raise DataError(f"set {[len(part) for part in self.parts].index(0)} of the mix has no rows")
        if min(self.quotas) == 0:
            raise ConfigError(
                f"data.corpus has the weights {list(self.weights)}: of {len(self)} rows an epoch, a set gets none.\n"
                f"  raise its weight, or leave it out"
            )

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def quotas(self) -> tuple[int, ...]:
        """Rows that an epoch takes from each list."""
        return quotas(len(self), weights=self.weights)


class Loader:
    """Rows in a seeded order, epoch after epoch, without end; each row once an epoch (for a `Mix`, see there).

        row(epoch, index) = rows[permutation of Seeds.child("order", epoch)][index]

    A row's key is (epoch, index). There is no state: `take` may be called for any stretch, in any order, on any rank.
    Raises `DataError` without rows.
    """

    def __init__(self, rows: Sequence[EncodedRow] | Mix, *, seeds: Seeds, pad_id: int) -> None:
        self.mix = rows if isinstance(rows, Mix) else Mix((rows,), (1.0,))
        self.pad_id = pad_id
        self.rows_per_epoch = len(self.mix)
        self._quotas = self.mix.quotas
        self._seeds = seeds
        self._orders: dict[tuple[str, int, int], list[int]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}

    def place(self, count: int) -> tuple[int, int]:
        """(epoch, index) of the row after `count` rows."""
        return divmod(count, self.rows_per_epoch)

    def row(self, epoch: int, index: int) -> Item:
        """The key and row at a place of an epoch."""
        part, rank = self._assigned(epoch)[index]
        rows = self.mix.parts[part]
        again, place = divmod(epoch * self._quotas[part] + rank, len(rows))
        return (epoch, index), rows[self._order(part, again, size=len(rows))[place]]

    def named(self, key: RowKey) -> Item:
        """The row of a key that `take` gave."""
        epoch, index = key
        return self.row(int(epoch), int(index))

    def take(self, first: int, count: int) -> tuple[Item, ...]:
        """`count` rows from the `first` on, counted from the start of training, across the ends of epochs."""
        return tuple(self.row(*self.place(number)) for number in range(first, first + count))

    def _assigned(self, epoch: int) -> list[tuple[int, int]]:
        """For each place of an epoch: which list it reads, and the how-manieth row of that list it is."""
        if epoch not in self._places:
            drawn = [part for part, quota in enumerate(self._quotas) for _ in range(quota)]
            if len(self.mix.parts) > 1:
                order = self._seeds.child("mix", epoch).generator().permutation(len(drawn)).tolist()
                drawn = [drawn[place] for place in order]
            ranks = [0] * len(self.mix.parts)
            places = []
            for part in drawn:
                places.append((part, ranks[part]))
                ranks[part] += 1
            while len(self._places) > 1:
                self._places.pop(next(iter(self._places)))
            self._places[epoch] = places
        return self._places[epoch]

    def _order(self, part: int, again: int, *, size: int) -> list[int]:
        key = ("order", part, again)
        if key not in self._orders:
            while len(self._orders) > 4 * len(self.mix.parts):
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = self._seeds.child(*key).generator().permutation(size).tolist()
        return self._orders[key]


def batch(items: Sequence[Item], *, pad_id: int) -> Sequences:
    """Prompts with their reference responses, as rows of origin "reference"."""
    return pack_rows(
        [row.tokens for _, row in items],
        [row.is_response for _, row in items],
        origin=["reference"] * len(items),
        keys=[key for key, _ in items],
        pad_id=pad_id,
    )


def prompts(items: Sequence[Item], *, pad_id: int) -> Sequences:
    """The prompts alone, nothing of them a response; whoever extends them names the origin."""
    return pack_rows(
        [row.prompt for _, row in items],
        [[False] * len(row.prompt) for _, row in items],
        origin=["prompt"] * len(items),
        keys=[key for key, _ in items],
        pad_id=pad_id,
    )
