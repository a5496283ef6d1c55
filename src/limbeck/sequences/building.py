"""What a source may do beside drawing: be built for a run, look at the validation rows, learn from other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences.source import Source
from limbeck.types import Sequences

if TYPE_CHECKING:
    from limbeck.sequences.teacher import TeacherWritten

Written = Mapping[tuple[int, ...], EncodedRow]
"""A teacher's answers as rows that the student learns from, by the student's prompt tokens."""


def one_rank(rows: list[Any]) -> list[Any]:
    """The rows of all ranks where there is only one."""
    return rows


def nothing_written(source: TeacherWritten) -> Written:
    """The answers of a run without a teacher."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a run tells a source that is built for it.

    `steps` is the length of the run, `batch_rows` the rows of a step over all `ranks`; `gather` gives the rows of all
    ranks, rank after rank, and is called by every rank. `written` gives the answers that a teacher wrote.
    """

    steps: int
    batch_rows: int
    pad_id: int
    rank: int = 0
    ranks: int = 1
    gather: Callable[[list[Any]], list[Any]] = one_rank
    written: Callable[[TeacherWritten], Written] = nothing_written


@runtime_checkable
class SourceToBuild(Protocol):
    """A component whose source remembers something, or has to know the run."""

    def build(self, ground: Ground) -> Source:
        """The source of a run, as it is before the first step."""
        ...


@runtime_checkable
class Observing(Protocol):
    """A source that wants the mean cross-entropy of the fixed validation rows at steps of its own.

    `Source.observe` is then called at these steps, and not at validations.
    """

    def observes(self, step: int) -> bool:
        """Whether it looks after this step; 0 is before the first one."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A source that knows before the first step what a person should hear of the run."""

    def notes(self) -> list[str]:
        """Lines for the start of the run."""
        ...


@runtime_checkable
class Exchanging(Protocol):
    """A source whose steps may learn from other rows than were drawn in them."""

    def exchanged(self, drawn: Sequences, *, step: int, seeds: Seeds) -> Sequences:
        """After revision: the rows to learn from; every rank calls it. Nothing is remembered before `keep`."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A source that gives rows again that were drawn once."""

    def held(self) -> Iterable[tuple[Int[Tensor, " _"], Bool[Tensor, " _"]]]:
        """Tokens and response flags of each row that it may still give, without padding."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A source that has something to say in each step's row of metrics.jsonl."""

    def told(self, step: int, *, seeds: Seeds) -> Mapping[str, Any]:
        """Plain values by name, equal on all ranks; called before `keep`."""
        ...
