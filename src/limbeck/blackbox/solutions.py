"""The gold way to an answer as operations: from an expression, from steps, or from the equations of a rationale."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

from limbeck.blackbox.arithmetic import Operation, equations_in, operations_of, shown, value_of
from limbeck.blackbox.items import Item
from limbeck.blackbox.numbers import read_number, same_number

_NAME = re.compile(r"^([A-Z][^=:.\d]{2,80}):(?=\s)")
_LINE = re.compile(r"[^\n]+")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation of a solution. `name`: what its value is, in words ("" where nothing says so)."""

    operation: Operation
    name: str = ""

    @property
    def asked(self) -> str:
        """The operation without its value: "12 + 7"."""
        return f"{shown(self.operation.left)} {self.operation.sign} {_operand(self.operation.right)}"

    @property
    def said(self) -> str:
        """The whole equation: "12 + 7 = 19"."""
        return f"{self.asked} = {shown(self.operation.claimed)}"


@functools.lru_cache(maxsize=20_000)
def solution_steps(item: Item) -> tuple[Step, ...]:
    """The operations that lead to the gold answer, each with two operands; () where the item has none that do.

    Read from `expression`, else `steps`, else the equations of `rationale`. All of it has to be true, and the last
    value the gold answer: a solution that rounds or skips something is none. Names are the words before a colon in the
    rationale's lines, where each line holds one operation.

    >>> item = Item(id="1", question="", gold="57", kind="numeric", rationale="Sum: 12 + 7 = 19\\nAll: 19 x 3 = 57")
    >>> [(step.name, step.said) for step in solution_steps(item)]
    [('Sum', '12 + 7 = 19'), ('All', '19 * 3 = 57')]
    """
    gold = read_number(item.gold) if item.kind == "numeric" else None
    if gold is None:
        return ()
    operations = _operations(item)
    if not operations or not all(each.is_true for each in operations):
        return ()
    if not same_number(operations[-1].claimed, gold):
        return ()
    names = _names(item.rationale, operations)
    return tuple(Step(operation=each, name=name) for each, name in zip(operations, names, strict=True))


def agrees(expression: str, gold: str) -> bool:
    """Whether an expression comes to the gold answer; False also for what is no arithmetic.

    >>> agrees("( ( 4.0 - 2.0 ) + 3.0 )", "1"), agrees("43.0 - 21.0", "22")
    (False, True)
    """
    value, number = value_of(expression), read_number(gold)
    return value is not None and number is not None and same_number(value, number)


def _operations(item: Item) -> tuple[Operation, ...]:
    if item.expression:
        return operations_of(item.expression) or ()
    said = "\n".join(item.steps) or item.rationale
    return tuple(operation for equation in equations_in(said) for operation in equation.operations)


def _names(rationale: str, operations: tuple[Operation, ...]) -> list[str]:
    lines = [line[0] for line in _LINE.finditer(rationale) if equations_in(line[0])]
    names = [found[1] if (found := _NAME.match(line.strip())) else "" for line in lines]
    return names if len(names) == len(operations) else [""] * len(operations)


def _operand(value: Fraction) -> str:
    return f"({shown(value)})" if value < 0 or "/" in shown(value) else shown(value)
