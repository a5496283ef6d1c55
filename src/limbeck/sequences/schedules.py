"""How often the rows of a step are the student's own, as a function of the step and of the validation loss."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@runtime_checkable
class Schedule(Protocol):
    """φ(t), the probability that the rows of step t (from 1 to `steps`) are the student's, fresh or replayed.

    A schedule remembers nothing; `rises` counts how often the validation loss was found to have risen.
    """

    def threshold(self, step: int, *, steps: int, rises: int) -> float:
        """φ in [0, 1]."""
        ...

    def observes(self, step: int, *, steps: int) -> bool:
        """Whether the validation loss is looked at after this step; a schedule that ever looks does so at 0."""
        ...

    def rose(self, loss: float, *, since: float) -> bool:
        """Whether the loss has risen since the last rise, or since the start."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Constant:
    """φ(t) = share at every step (GKD, arXiv 2306.13649: λ).

    >>> Constant(0.5).threshold(3, steps=10, rises=0)
    0.5
    """

    share: float = Field(default=0.5, ge=0.0, le=1.0)

    def threshold(self, step: int, *, steps: int, rises: int) -> float:
        """The share."""
        return self.share

    def observes(self, step: int, *, steps: int) -> bool:
        """It never looks."""
        return False

    def rose(self, loss: float, *, since: float) -> bool:
        """It never looks."""
        return False


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Linear:
    """φ(t) = first + (last − first)·t/T over the T steps of the run.

    >>> [Linear(first=0.2, last=1.0).threshold(step, steps=4, rises=0) for step in (1, 2, 4)]
    [0.4, 0.6, 1.0]
    """

    first: float = Field(default=0.0, ge=0.0, le=1.0)
    last: float = Field(default=1.0, ge=0.0, le=1.0)

    def threshold(self, step: int, *, steps: int, rises: int) -> float:
        """On the line from first to last."""
        share = step / steps
        return (1.0 - share) * self.first + share * self.last

    def observes(self, step: int, *, steps: int) -> bool:
        """It never looks."""
        return False

    def rose(self, loss: float, *, since: float) -> bool:
        """It never looks."""
        return False


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Adaptive:
    """φ grows by `increase` whenever the validation loss is found to have risen by `rise` (DistiLLM, arXiv 2402.03898).

        φ = min(1, initial + increase · rises)
        L ≥ L_prev + rise  →  rises ← rises + 1, L_prev ← L

    L is the mean cross-entropy, in nats a token, on the references of 64 fixed validation rows, looked at after every
    `check_every` steps (default: a twentieth of the run) and once before the first step, which gives the first L_prev.
    A loss that falls moves nothing, L_prev neither. A loss that is no number is never a rise.

    >>> schedule = Adaptive(initial=0.5)
    >>> [round(schedule.threshold(1, steps=9, rises=rises), 1) for rises in (0, 1, 7)]
    [0.5, 0.6, 1.0]
    >>> schedule.rose(2.1, since=2.0), schedule.rose(2.0, since=2.0)
    (True, False)
    """

    initial: float = Field(default=0.0, ge=0.0, le=1.0)
    increase: float = Field(default=0.1, gt=0.0, le=1.0)
    rise: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)
    check_every: int | None = Field(default=None, ge=1)

    def threshold(self, step: int, *, steps: int, rises: int) -> float:
        """It depends on the rises alone."""
        return min(1.0, self.initial + self.increase * rises)

    def observes(self, step: int, *, steps: int) -> bool:
        """At 0, and after every `check_every` steps."""
        return step % (self.check_every or max(1, steps // 20)) == 0

    def rose(self, loss: float, *, since: float) -> bool:
        """Whether the loss is by `rise` or more above the last one that counted."""
        return loss >= since + self.rise
