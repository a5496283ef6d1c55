"""One of two sources, chosen anew at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.seeds import Seeds
from limbeck.sequences.building import Ground, SourceToBuild
from limbeck.sequences.fixed import Fixed
from limbeck.sequences.source import Item, Rollouts, Source
from limbeck.sequences.written import Student
from limbeck.types import Sequences


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Mixture:
    """With probability `share` the step's rows come from `first`, else from `second` (GKD, arXiv 2306.13649,
    Algorithm 1: λ).

        u(step) < share  →  first

    The coin belongs to the step, not to the row or the rank: all rows of a step, on all ranks, come from one source.
    """

    first: Source | SourceToBuild = Field(default_factory=Student)
    second: Source | SourceToBuild = Field(default_factory=Fixed)
    share: float = Field(default=0.5, ge=0.0, le=1.0)

    def build(self, ground: Ground) -> Mixture:
        """The same of built parts."""
        first, second = (
            part.build(ground) if isinstance(part, SourceToBuild) else part for part in (self.first, self.second)
        )
        return Mixture(first, second, self.share)

    def chosen(self, step: int, *, seeds: Seeds) -> Source:
        """The source of this step."""
        return _built(self.first if seeds.child("coin", step).uniform() < self.share else self.second)

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """As many as the source of this step takes."""
        return self.chosen(step, seeds=seeds).prompts(step, batch_rows=batch_rows, seeds=seeds)

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The rows from the source of this step."""
        return self.chosen(step, seeds=rollouts.seeds).draw(items, rollouts=rollouts, step=step)

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """The source that drew the rows may remember them."""
        self.chosen(step, seeds=seeds).keep(drawn, step=step, seeds=seeds)

    def observe(self, validation_loss: float) -> None:
        """Both sources may adapt."""
        for source in (self.first, self.second):
            _built(source).observe(validation_loss)

    def state(self) -> Mapping[str, Any]:
        """What both sources save."""
        return {"first": _built(self.first).state(), "second": _built(self.second).state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        _built(self.first).restore(state["first"])
        _built(self.second).restore(state["second"])


def _built(source: Source | SourceToBuild) -> Source:
    assert isinstance(source, Source), "Mixture.build first"
    return source
