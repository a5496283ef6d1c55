"""Responses that the student writes, fresh at every step (on-policy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.seeds import Seeds
from limbeck.sequences.source import Item, Rollouts
from limbeck.types import Sequences


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Student:
    """`y ~ q_θ(·|x)`: every response is drawn from the student as it is at this step (ImitKD, arXiv
    2009.07253; GKD, arXiv 2306.13649, λ = 1).

    `horizon`, where given, stops a rollout after that many tokens; the row then has no end-of-turn token and its end
    is not trained as one. No gradient goes through the sampling.
    """

    horizon: int | None = Field(default=None, ge=1)

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """All rows of the step are new."""
        return batch_rows

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The rows with the student's responses."""
        return rollouts.student(items, horizon=self.horizon)

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Nothing is remembered."""

    def observe(self, validation_loss: float) -> None:
        """Nothing adapts."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
