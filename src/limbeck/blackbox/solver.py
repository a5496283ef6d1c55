"""A teacher that is a rule: it knows each question's solution, and tells it so as to fit the student's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.blackbox.failures import ErrorClass
from limbeck.blackbox.items import Item
from limbeck.blackbox.refining import Measured
from limbeck.blackbox.rule_teacher import RuleTeacher
from limbeck.blackbox.solutions import solution_steps
from limbeck.blackbox.solver_styles import STYLES, Style, Telling, tell
from limbeck.blackbox.writing import Assignment

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


def solver_teacher(*, blind: bool = False, seed: int = 0) -> RuleTeacher[Telling]:
    """A teacher for questions with a known numeric solution (`solution_steps`).

    Afresh, every question is told in the one style "plain". A rewrite takes the style of `STYLE_AGAINST` for the
    measured error: of the question's own last attempts, at the step that went wrong; else of the probe set's commonest
    error, at all steps. What went right is left as it was, or told tersely where there is no previous rationale. Where
    the previous rationale already was that style at that step, all steps take it. Numbers of parts stand in square
    brackets. `blind` draws style and step (`RuleTeacher`).

    >>> from limbeck.blackbox.writing import Attempt
    >>> item = Item(id="1", question="47, 38 more?", gold="85", kind="numeric", expression="47 + 38")
    >>> tried = Attempt(item_id="1", round=0, text="47 + 38 = 75\\n#### 75", finish="stop", is_right=False)
    >>> teacher = solver_teacher()
    >>> for answer in teacher.write([Assignment(item=item), Assignment(item=item, round=1, attempts=(tried,))]):
    ...     print(answer.text)
    47 + 38 = 85
    #### 85
    47 + 38 [40 + 30 = 70; 7 + 8 = 15; 70 + 15 = 85] = 85
    #### 85
    """
    return RuleTeacher(_Solver(), blind=blind, seed=seed)


class _Solver:
    """The `Rule` of `solver_teacher`."""

    name = "solver 1"

    def refusal(self, item: Item) -> str:
        if solution_steps(item):
            return ""
        where = item.source or item.id
        return f"the solver has no solution of {where}: no expression, steps or equations that come to its answer"

    def tellings(self, item: Item) -> Sequence[Telling]:
        """Every style, at each step and at all of them."""
        places = [None, *range(len(solution_steps(item)))]
        return [Telling(style=style, step=step) for style in STYLES for step in places]

    def fresh(self) -> Telling:
        return Telling()

    def against(self, seen: Measured, assignment: Assignment) -> Telling | None:
        """A telling against the error that was seen, at its first wrong step; None where nothing needs to change."""
        error = seen.diagnosis.error
        if error == "ok" or error not in STYLE_AGAINST:
            return None if assignment.previous else Telling(style="terse" if seen.scope == "item" else "plain")
        style = STYLE_AGAINST[error]
        narrow = Telling(style=style, step=seen.diagnosis.first_bad_step)
        if seen.scope == "item" and self.tell(assignment.item, narrow) == assignment.previous:
            return Telling(style=style)
        return narrow

    def tell(self, item: Item, telling: Telling) -> str:
        return tell(solution_steps(item), item, telling)
