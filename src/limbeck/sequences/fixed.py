"""The corpus's own responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from limbeck.seeds import Seeds
from limbeck.sequences.source import Item, Rollouts
from limbeck.types import Sequences


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fixed:
    """`y ~ D`: every row with the response that the corpus has (SFT, KD)."""

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """All rows of the step are new."""
        return batch_rows

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The rows as the corpus has them."""
        return rollouts.reference(items)

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Nothing is remembered."""

    def observe(self, validation_loss: float) -> None:
        """Nothing adapts."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
