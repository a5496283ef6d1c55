"""What a teacher of rationales is given and what it gives back: the same for a model behind a prompt and for a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from limbeck.blackbox.asking import Answer
from limbeck.blackbox.items import Item


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the student answered to one question in one round, and whether a checker found it right.

    `error` is the class of the error as far as rules can tell it ("" for a right answer). `finish`: "stop" or "length".
    """

    item_id: str
    round: int
    text: str
    finish: str
    is_right: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question of the probe set with what the teacher had written for it and how the student then did."""

    item: Item
    rationales: tuple[str, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One rationale that is asked for.

    `previous` is the rationale that the student was trained on last ("" at first), `attempts` what the student wrote to
    this question since, oldest first; `probe` shows how the student does on other questions, `summary` the same in the
    teacher's own words. `hint` is "none", "answer" or "solution": what of the gold solution the teacher may see.
    `sample` tells retries apart. Without `previous`, `attempts`, `probe` and `summary` the question is answered afresh.
    """

    item: Item
    round: int = 0
    previous: str = ""
    attempts: tuple[Attempt, ...] = ()
    probe: tuple[Example, ...] = ()
    summary: str = ""
    hint: str = "none"
    sample: int = 0

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of a student is in it."""
        return not (self.previous or self.attempts or self.probe or self.summary)


@runtime_checkable
class RationaleTeacher(Protocol):
    """Anything that writes rationales: a prompted model, a solver, a list of facts."""

    @property
    def name(self) -> str:
        """What tells it from other teachers."""
        ...

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order, ending with its final answer in the form of the item's task.

        A completion's text is the rationale itself, ready to be checked and learned from.
        """
        ...
