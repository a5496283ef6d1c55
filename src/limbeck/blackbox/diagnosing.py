"""Where a student's calculation leaves the gold one: its equations are read and walked against the gold operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from limbeck.blackbox.arithmetic import Operation, equations_in, nearly, shown
from limbeck.blackbox.checkers import CHECKERS, Verdict
from limbeck.blackbox.failures import Diagnosis, ErrorClass, of_choice, shape_of
from limbeck.blackbox.items import Item
from limbeck.blackbox.numbers import numbers_in
from limbeck.blackbox.solutions import solution_steps

_CUT_NUMBER = re.compile(r"[\d.,/]+$")


def diagnose(text: str, *, finish: str, item: Item) -> Diagnosis:
    """The first thing that is wrong with an attempt, after the classes of `ERROR_CLASSES`.

    A right answer that is said as one is "ok", whatever stands before it; a right one that is only read because nothing
    better stands there is "no_final". For numbers whose solution is known, the equations of the
    text are walked against it; for choices and booleans the form decides; else a wrong final answer is "unknown".
    What stands in square brackets is not read. Rules, not understanding: an attempt with two mistakes, or that goes
    another way, gets the class of what differs first.

    >>> item = Item(id="1", question="12, 7 more, times 3?", gold="57", kind="numeric", expression="(12 + 7) * 3")
    >>> said = ["12 + 7 = 18\\n18 * 3 = 54\\n#### 54", "12 + 7 = 19\\n#### 19", "12 + 7 = 19\\n19 - 3 = 16\\n#### 16"]
    >>> [(found.error, found.first_bad_step) for each in said for found in [diagnose(each, finish="stop", item=item)]]
    [('arithmetic_slip', 0), ('stopped_early', 1), ('wrong_operation', 1)]
    """
    verdict = CHECKERS[item.kind](text, item)
    if verdict.correct and verdict.mode != "fallback":
        return Diagnosis(error="ok")
    if item.kind in ("choice", "boolean"):
        return of_choice(text, finish=finish, verdict=verdict)
    gold = tuple(step.operation for step in solution_steps(item))
    if gold:
        return _of_steps(text, finish=finish, item=item, verdict=verdict, gold=gold)
    return shape_of(text, finish=finish, verdict=verdict) or Diagnosis(
        error="unknown", reason=f"'{verdict.extracted}' is not the answer"
    )


def _of_steps(text: str, *, finish: str, item: Item, verdict: Verdict, gold: tuple[Operation, ...]) -> Diagnosis:
    shape = shape_of(text, finish=finish, verdict=verdict)
    if shape is not None and shape.error in ("empty", "repetition"):
        return shape
    # A number at the end of a text that was cut may be half a number.
    whole = _CUT_NUMBER.sub("", text) if finish == "length" else text
    # A fraction is written again with each use, and an equation may be repeated.
    said = tuple(dict.fromkeys(operation for equation in equations_in(whole) for operation in equation.operations))
    known = {*numbers_in(item.question), *(value for each in gold for value in each.operands)}
    bad, missing = _Walk(gold=gold, said=said, known=known).first_bad()
    if bad is not None:
        return bad
    if shape is not None and shape.error == "truncated":
        return shape
    if missing and said:
        reason = f"steps are missing from {_asked(gold[missing[0]])} on"
        return Diagnosis(error="stopped_early", first_bad_step=missing[0], reason=reason)
    if shape is not None:
        return shape
    if not said:
        return Diagnosis(error="skipped_step", first_bad_step=0, reason="an answer is said without a calculation")
    return Diagnosis(error="wrong_final_copy", reason=f"the answer said is '{verdict.extracted}', not the last value")


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """The student's operations beside the gold ones; `known`: numbers that the question or the solution names."""

    gold: tuple[Operation, ...]
    said: tuple[Operation, ...]
    known: set[Fraction]

    def first_bad(self) -> tuple[Diagnosis | None, list[int]]:
        """The diagnosis of the first operation that is no gold one (None where all are), and the steps still open."""
        left = list(range(len(self.gold)))
        done: list[Operation] = []
        for index, said in enumerate(self.said):
            open_before = len(left)
            # A solution may take one step twice; said once, it is known.
            left = [place for place in left if not _same(said, self.gold[place])]
            if len(left) < open_before:
                done.append(said)
            elif not self._is_fraction(said) and not any(_same(said, each) for each in done):
                return self._bad(said, after=self.said[index + 1 :], left=left, done=done), left
        return None, left

    def _is_fraction(self, said: Operation) -> bool:
        """Whether it only writes a number that the gold way takes, and that is no integer: 1/3."""
        is_number = said.sign == "/" and said.is_true and said.claimed.denominator != 1
        return is_number and any(said.claimed in each.operands for each in self.gold)

    def _bad(
        self, said: Operation, *, after: Sequence[Operation], left: Sequence[int], done: Sequence[Operation]
    ) -> Diagnosis:
        for place in left:
            gold = self.gold[place]
            if (said.sign, said.operands) == (gold.sign, gold.operands):
                reason = f"{_asked(said)} is {shown(gold.claimed)}, not {shown(said.claimed)}"
                return Diagnosis(error="arithmetic_slip", first_bad_step=place, reason=reason)
        for place in left[:1] if left and self._shares(said, left[0]) else left:
            gold = self.gold[place]
            if sorted(said.operands) == sorted(gold.operands):
                return self._differs(_differing(said, gold), said, place)
        if not left:
            return Diagnosis(error="unknown", reason=f"{_asked(said)} goes on after the last step")
        known = self.known | {each.claimed for each in done}
        place = self._meant(said, left)
        if self._is_skip(said, after=after, left=left, known=known):
            return self._differs("skipped_step", said, left[0])
        if any(value not in known for value in said.operands):
            return self._differs("invented_operand", said, place)
        return self._differs(_differing(said, self.gold[place]), said, place)

    def _meant(self, said: Operation, left: Sequence[int]) -> int:
        """The open step that an operation was most likely meant as: one with its sign or an operand of it."""

        def likeness(place: int) -> int:
            gold = self.gold[place]
            return 2 * len(set(said.operands) & set(gold.operands)) + (said.sign == gold.sign)

        return left[0] if likeness(left[0]) >= 2 else max(left, key=lambda place: (likeness(place), -place))

    def _is_skip(
        self, said: Operation, *, after: Sequence[Operation], left: Sequence[int], known: set[Fraction]
    ) -> bool:
        """Whether a later step was taken in place of the first open one, as far as can be told.

        It shows by the step's sign and its own number, which no earlier step gives. Where the operation could also be
        the first open step with another number, the way that the rest of the text goes decides.
        """
        if any(value not in known for value in said.operands):
            return False
        could_be_first = self._shares(said, left[0])
        return any(
            _is_kind_of(said, self.gold[later], own=self._own(later))
            and (not could_be_first or (self._fits(after, later) and not self._fits(after, left[0])))
            for later in left[1:]
        )

    def _own(self, place: int) -> list[Fraction]:
        """The operands of a gold step that are no result of an earlier one, each result being taken once."""
        results: list[Fraction] = []
        own: list[Fraction] = []
        for each in self.gold[: place + 1]:
            own = []
            for value in (each.left, each.right):
                if value in results:
                    results.remove(value)
                else:
                    own.append(value)
            results.append(each.claimed)
        return own

    def _shares(self, said: Operation, place: int) -> bool:
        gold = self.gold[place]
        return said.sign == gold.sign and bool(set(said.operands) & set(gold.operands))

    def _fits(self, after: Sequence[Operation], place: int) -> bool:
        """Whether these operations are of the kinds of the gold steps after a place, one by one."""
        rest = range(place + 1, len(self.gold))
        return len(rest) == len(after) and all(
            _is_kind_of(said, self.gold[later], own=self._own(later)) for said, later in zip(after, rest, strict=True)
        )

    def _differs(self, error: ErrorClass, said: Operation, place: int) -> Diagnosis:
        reason = f"{_asked(said)} stands where {_asked(self.gold[place])} belongs"
        return Diagnosis(error=error, first_bad_step=place, reason=reason)


def _same(one: Operation, other: Operation) -> bool:
    return one.sign == other.sign and one.operands == other.operands and nearly(one.claimed, other.claimed)


def _differing(said: Operation, gold: Operation) -> ErrorClass:
    return "wrong_operation" if said.sign != gold.sign else "wrong_operand"


def _is_kind_of(said: Operation, gold: Operation, *, own: Sequence[Fraction]) -> bool:
    """Whether an operation has the sign of a gold one, and those of its operands that are its own."""
    return said.sign == gold.sign and bool(own) and all(value in said.operands for value in own)


def _asked(operation: Operation) -> str:
    return f"{shown(operation.left)} {operation.sign} {shown(operation.right)}"
