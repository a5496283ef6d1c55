"""A teacher that is a rule: it reads the student's errors, and chooses among a few ways to tell what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from limbeck.blackbox.asking import Answer, Completion, Refusal
from limbeck.blackbox.failures import Diagnosis
from limbeck.blackbox.items import Item
from limbeck.blackbox.refining import (
    Measured,
    diagnose_attempt,
    drawn,
    error_counts,
    is_uninformed,
    measured,
    summary_of,
)
from limbeck.blackbox.writing import Assignment, Attempt, Example

T = TypeVar("T")


@runtime_checkable
class Rule(Protocol[T]):
    """What a rule knows of questions. `T`: a way to tell a solution."""

    @property
    def name(self) -> str:
        """What tells it from other rules, with a version."""
        ...

    def refusal(self, item: Item) -> str:
        """Why it has nothing to say about a question; "" where it has."""
        ...

    def tellings(self, item: Item) -> Sequence[T]:
        """Every way to tell this question's solution."""
        ...

    def fresh(self) -> T:
        """The way in which every question is told at first, whoever the student is."""
        ...

    def against(self, seen: Measured, assignment: Assignment) -> T | None:
        """The way that fits the student's error; None where the previous rationale stays."""
        ...

    def tell(self, item: Item, telling: T) -> str:
        """The rationale."""
        ...


class RuleTeacher(Generic[T]):
    """Writes rationales by a rule; a `RationaleTeacher`.

    Afresh, every question is told in one way. A rewrite takes the way that the rule has against the measured error
    (`refining.measured`): of the student's last attempts at this very question; without any, the commonest error on the
    probe set or in the summary. `blind`, and any assignment of a later round that tells nothing of a student, draws the
    way by seed, round, question and retry: as many rewrites with no information. What the rule has nothing on is a
    `Refusal`. It never mentions a student. It is a rule, and no evidence about language models.
    """

    def __init__(self, rule: Rule[T], *, blind: bool = False, seed: int = 0) -> None:
        self._rule = rule
        self._blind = blind
        self._seed = seed

    @property
    def name(self) -> str:
        """What it is, and how it draws."""
        return f"{self._rule.name}{' blind' if self._blind else ''} seed {self._seed}"

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order."""
        return [self._written(assignment) for assignment in assignments]

    def diagnose(self, attempt: Attempt, item: Item) -> Diagnosis:
        """What is wrong with an attempt: the class of the error and, where steps are known, the first bad one."""
        return diagnose_attempt(attempt, item)

    def summarise(self, examples: Sequence[Example], *, round: int) -> Answer:
        """The probe set's errors, counted by class, as it reads them itself in `Assignment.summary`."""
        return summary_of(error_counts(examples))

    def telling(self, assignment: Assignment) -> T | None:
        """The way that it takes; None where the previous rationale stays."""
        if is_uninformed(assignment) or (self._blind and assignment.round > 0):
            return drawn(self._rule.tellings(assignment.item), assignment, seed=self._seed)
        if assignment.is_fresh:
            return self._rule.fresh()
        return self._rule.against(measured(assignment), assignment)

    def _written(self, assignment: Assignment) -> Answer:
        refusal = self._rule.refusal(assignment.item)
        if refusal:
            return Refusal(reason="rejected", message=refusal)
        telling = self.telling(assignment)
        text = assignment.previous if telling is None else self._rule.tell(assignment.item, telling)
        return Completion(text=text, finish="stop")
