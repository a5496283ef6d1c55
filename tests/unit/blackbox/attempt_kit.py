"""Faulty calculations made from right ones: one error of a known kind at a known step, carried on faithfully."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from limbeck.blackbox.arithmetic import Sign, computed, shown
from limbeck.blackbox.items import Item
from limbeck.blackbox.numbers import numbers_in
from limbeck.blackbox.solutions import solution_steps

KINDS = (
    "arithmetic_slip",
    "wrong_operation",
    "wrong_operand",
    "invented_operand",
    "skipped_step",
    "stopped_early",
    "wrong_final_copy",
    "no_final",
    "truncated",
)
SIGNS: tuple[Sign, ...] = ("+", "-", "*", "/")


@dataclass(frozen=True)
class Faulty:
    text: str
    finish: str
    kind: str
    step: int | None


def with_error(kind: str, item: Item, draw: np.random.Generator) -> Faulty | None:
    """None where this problem leaves no room for an error of this kind."""
    start, moves = _moves(item)
    place: int | None = int(draw.integers(len(moves)))
    assert place is not None
    if kind in ("arithmetic_slip", "wrong_operation", "wrong_operand", "invented_operand"):
        lines, last = _chain(start, moves, kind=kind, place=place, item=item, draw=draw)
    elif kind == "skipped_step":
        if len(moves) < 2 or place == len(moves) - 1:
            return None
        lines, last = _walked(start, moves[:place] + moves[place + 1 :])
    elif kind == "stopped_early":
        if place == 0:
            return None
        lines, last = _walked(start, moves[:place])
    else:
        lines, last = _walked(start, moves)
        place = None
    if lines is None:
        return None
    if kind == "wrong_final_copy":
        last += int(draw.integers(1, 20))
    elif kind not in ("no_final", "truncated") and last == Fraction(item.gold):
        return None
    text = "\n".join(lines)
    if kind == "no_final":
        return Faulty(text, "stop", kind, place)
    if kind == "truncated":
        return Faulty(text[: int(draw.integers(3, len(text)))], "length", kind, place)
    return Faulty(f"{text}\n#### {shown(last)}", "stop", kind, place)


def _moves(item: Item) -> tuple[Fraction, list[tuple[Sign, Fraction]]]:
    """A chain as its first number, and what is done to it one after the other."""
    operations = [step.operation for step in solution_steps(item)]
    return operations[0].left, [(each.sign, each.right) for each in operations]


def _walked(start: Fraction, moves: list[tuple[Sign, Fraction]]) -> tuple[list[str] | None, Fraction]:
    value, lines = start, []
    for sign, number in moves:
        result = computed(value, sign, number)
        assert result is not None
        lines.append(f"{shown(value)} {sign} {shown(number)} = {shown(result)}")
        value = result
    return lines, value


def _chain(
    start: Fraction,
    moves: list[tuple[Sign, Fraction]],
    *,
    kind: str,
    place: int,
    item: Item,
    draw: np.random.Generator,
) -> tuple[list[str] | None, Fraction]:
    before, value = _walked(start, moves[:place])
    assert before is not None
    sign, number = moves[place]
    right = computed(value, sign, number)
    if kind == "wrong_operation":
        sign = draw.choice([other for other in SIGNS if other != sign])
    elif kind == "wrong_operand":
        others = sorted({each for each in numbers_in(item.question) if each != number})
        if not others:
            return None, value
        number = others[int(draw.integers(len(others)))]
    elif kind == "invented_operand":
        named = {*numbers_in(item.question), value, *(each for line in before for each in numbers_in(line))}
        number = next(each for each in (Fraction(int(n)) for n in draw.integers(2, 1000, size=99)) if each not in named)
    result = computed(value, sign, number)
    assert result is not None
    if kind == "arithmetic_slip":
        result += int(draw.choice([-10, -2, -1, 1, 2, 10]))
    if result == right:
        return None, value
    line = f"{shown(value)} {sign} {shown(number)} = {shown(result)}"
    after, last = _walked(result, moves[place + 1 :])
    assert after is not None
    return [*before, line, *after], last
