"""A teacher that is a rule: it knows each question's solution, and tells it so as to fit the student's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.blackbox.asking import Answer, Completion, Refusal
from limbeck.blackbox.failures import Diagnosis, ErrorClass
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
from limbeck.blackbox.solutions import Step, solution_steps
from limbeck.blackbox.solver_styles import STYLES, Style, Telling, tell
from limbeck.blackbox.writing import Assignment, Attempt, Example

STYLE_AGAINST: Mapping[ErrorClass, Style] = {
    "arithmetic_slip": "expanded",
    "wrong_operation": "named",
    "wrong_operand": "named",
    "invented_operand": "named",
    "skipped_step": "numbered",
    "stopped_early": "numbered",
    "wrong_final_copy": "strict",
    "no_final": "strict",
    "malformed": "strict",
    "truncated": "terse",
    "repetition": "terse",
    "empty": "plain",
    "unknown": "plain",
}


class SolverTeacher:
    """Writes rationales for questions with a known numeric solution (`solution_steps`); a `RationaleTeacher`.

    Afresh, every question is told in the one style "plain", whoever the student is. A rewrite takes the style of
    `STYLE_AGAINST` for the measured error: of the student's last attempts at this very question, at the step that went
    wrong; without any, of the commonest error on the probe set or in the summary, at all steps. What went right is left
    as it was, or told tersely where there is no previous rationale. Where the previous rationale already was that
    style at that step, all steps take it.

    `blind`, and any assignment of a later round that tells nothing of a student, gives style and step by a seeded draw
    instead: as many rewrites with no information. Numbers of parts stand in square brackets. A question without a
    solution is a `Refusal`. It never mentions a student. It is a rule, and no evidence about language models.

    >>> item = Item(id="1", question="47, 38 more?", gold="85", kind="numeric", expression="47 + 38")
    >>> tried = Attempt(item_id="1", round=0, text="47 + 38 = 75\\n#### 75", finish="stop", is_right=False)
    >>> teacher = SolverTeacher()
    >>> for answer in teacher.write([Assignment(item=item), Assignment(item=item, round=1, attempts=(tried,))]):
    ...     print(answer.text)
    47 + 38 = 85
    #### 85
    47 + 38 [40 + 30 = 70; 7 + 8 = 15; 70 + 15 = 85] = 85
    #### 85
    """

    def __init__(self, *, blind: bool = False, seed: int = 0) -> None:
        self._blind = blind
        self._seed = seed

    @property
    def name(self) -> str:
        """What it is, and how it draws."""
        return f"solver 1{' blind' if self._blind else ''} seed {self._seed}"

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order."""
        return [self._written(assignment) for assignment in assignments]

    def diagnose(self, attempt: Attempt, item: Item) -> Diagnosis:
        """What is wrong with an attempt: the first bad step and the class of the error, read from its text."""
        return diagnose_attempt(attempt, item)

    def summarise(self, examples: Sequence[Example], *, round: int) -> Answer:
        """The probe set's errors, counted by class, as it reads them itself in `Assignment.summary`."""
        return summary_of(error_counts(examples))

    def telling(self, assignment: Assignment) -> Telling | None:
        """The style that it takes, and at which step; None where the previous rationale stays."""
        steps = solution_steps(assignment.item)
        if is_uninformed(assignment) or (self._blind and assignment.round > 0):
            return drawn(_tellings(len(steps)), assignment, seed=self._seed)
        return Telling() if assignment.is_fresh else _against(measured(assignment), assignment, steps)

    def _written(self, assignment: Assignment) -> Answer:
        item = assignment.item
        steps = solution_steps(item)
        if not steps:
            return Refusal(
                reason="rejected",
                message=f"the solver has no solution of {item.source or item.id}: no expression, steps or equations"
                " that come to its answer",
            )
        telling = self.telling(assignment)
        text = assignment.previous if telling is None else tell(steps, item, telling)
        return Completion(text=text, finish="stop")


def _against(seen: Measured, assignment: Assignment, steps: Sequence[Step]) -> Telling | None:
    error = seen.diagnosis.error
    if error == "ok" or error not in STYLE_AGAINST:
        return None if assignment.previous else Telling(style="terse" if seen.scope == "item" else "plain")
    style = STYLE_AGAINST[error]
    narrow = Telling(style=style, step=seen.diagnosis.first_bad_step)
    if seen.scope == "item" and tell(steps, assignment.item, narrow) == assignment.previous:
        return Telling(style=style)
    return narrow


def _tellings(count: int) -> list[Telling]:
    """Every style, at each step and at all of them."""
    return [Telling(style=style, step=step) for style in STYLES for step in [None, *range(count)]]
