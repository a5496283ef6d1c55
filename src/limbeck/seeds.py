"""Randomness by name: a draw depends on what it is for and on its row, never on the order of calls.

No function here touches a global generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256


@dataclass(frozen=True)
class Seeds:
    """A root and the path of names below it.

    >>> Seeds(7).child("draw", 3) == Seeds(7).child("draw").child(3)
    True
    >>> Seeds(7).child("draw", 3).integer() == Seeds(7).child("draw", "3").integer()
    False
    """

    root: int
    path: tuple[str | int, ...] = ()

    def child(self, *names: str | int) -> Seeds:
        """The seeds of a named part."""
        return Seeds(self.root, self.path + names)

    def _digest(self) -> bytes:
        text = repr((self.root, *self.path)).encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    def integer(self) -> int:
        """A 63-bit integer for libraries that want a seed of their own."""
        return int.from_bytes(self._digest()[:8], "little") >> 1

    def generator(self) -> np.random.Generator:
        """A fresh NumPy generator; the first k of its uniforms do not depend on how many are drawn."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self._digest(), "little")))

    def uniform(self) -> float:
        """One number in [0, 1)."""
        return float(self.generator().random())


class RowNoise:
    """The uniforms of some rows: position t of a row always gets the same number.

        u[row, t] = t-th uniform of Seeds(root).child(purpose, *row key)

    >>> a, b = RowNoise([Seeds(1).child("x")]), RowNoise([Seeds(2).child("x"), Seeds(1).child("x")])
    >>> a.at([0], [300])[0] == b.at([1], [300])[0]
    np.True_
    """

    def __init__(self, rows: Sequence[Seeds]) -> None:
        self._generators = [seeds.generator() for seeds in rows]
        self._drawn: list[NDArray[np.float64]] = [np.empty(0) for _ in rows]

    def __len__(self) -> int:
        return len(self._generators)

    def at(self, rows: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
        """The uniforms in [0, 1) of these positions of these rows, as float64 `[len(rows)]`."""
        return np.array([self._one(row, position) for row, position in zip(rows, positions, strict=True)])

    def _one(self, row: int, position: int) -> float:
        missing = position + 1 - len(self._drawn[row])
        if missing > 0:
            count = -(-missing // _BLOCK) * _BLOCK
            self._drawn[row] = np.concatenate([self._drawn[row], self._generators[row].random(count)])
        return float(self._drawn[row][position])
