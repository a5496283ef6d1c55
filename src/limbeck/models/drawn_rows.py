"""The rows of one draw: what they begin with, what was added to them, and which are still going."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from limbeck.types import RowKey


class DrawnRows:
    """The rows being drawn: their prefixes, what has been added, and which are still going."""

    def __init__(self, rows: list[int], prefixes: list[list[int]], limits: list[int], keys: list[RowKey]) -> None:
        self.rows = rows
        self.keys = keys
        self.prefixes = prefixes
        self.limits = limits
        self.added: list[list[int]] = [[] for _ in rows]
        self.logp: list[list[float]] = [[] for _ in rows]
        self.stopped = [False] * len(rows)

    def is_going(self, i: int) -> bool:
        """Whether a row draws on."""
        return not self.stopped[i] and len(self.prefixes[i]) + len(self.added[i]) < self.limits[i]

    def are_copies(self, copies: int) -> bool:
        """Whether the rows are so many of each prefix, one after the other, with one limit."""
        begun = list(zip(self.prefixes, self.limits, strict=True))
        return len(begun) % copies == 0 and all(
            begun[place] == begun[place - place % copies] for place in range(len(begun))
        )

    def stop_where_forced(self, stop_ids: frozenset[int]) -> None:
        """Rows whose forced token is a stop token are at their end."""
        for i, prefix in enumerate(self.prefixes):
            self.stopped[i] = prefix[-1] in stop_ids


def left_padded(
    prefixes: list[list[int]], device: torch.device
) -> tuple[Int[Tensor, "b width"], Bool[Tensor, "b width"]]:
    """The prefixes as rows that end in the same column, and which columns hold tokens."""
    width = max((len(prefix) for prefix in prefixes), default=1)
    tokens = torch.zeros((len(prefixes), width), dtype=torch.long)
    attended = torch.zeros((len(prefixes), width), dtype=torch.bool)
    for row, prefix in enumerate(prefixes):
        tokens[row, width - len(prefix) :] = torch.tensor(prefix)
        attended[row, width - len(prefix) :] = True
    return tokens.to(device), attended.to(device)
