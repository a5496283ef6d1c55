"""Arithmetic as people and models write it, read exactly and never evaluated as code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

Sign = Literal["+", "-", "*", "/"]

_TOKEN = re.compile(
    r"(?<!\d)(?P<number>[$€£]?(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,30})(?:\.\d{1,30})?|[$€£]?\.\d{1,30})"
    r"(?!\d)(?P<percent>\s?%)?"
    r"|(?P<per>/[^\W\d_]+)|(?P<times>(?<=[\s\d)])[xX](?=[\s\d($]))"
    r"|(?P<sign>[-+*/×·÷−–])|(?P<open>\()|(?P<close>\))|(?P<equals>=)|(?P<money>[$€£])|(?P<space>[^\S\n]+)"
    r"|(?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)|(?P<other>.|\n)"
)
_SIGNS: dict[str, Sign] = {
    **{"+": "+", "-": "-", "*": "*", "/": "/"},
    **{"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-"},
}
_BRACKETS = re.compile(r"\[[^\]\n]*(?:\]|$)", re.MULTILINE)
_BULLETS = re.compile(r"^\s*[-*•]\s+", re.MULTILINE)
_MOST_WORDS = 5
_MOST_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation with two operands, and the value that was claimed for it.

    >>> Operation(left=Fraction(7), sign="-", right=Fraction(2), claimed=Fraction(4)).is_true
    False
    """

    left: Fraction
    sign: Sign
    right: Fraction
    claimed: Fraction

    @property
    def value(self) -> Fraction | None:
        """What it comes to; None for a division by zero."""
        return computed(self.left, self.sign, self.right)

    @property
    def is_true(self) -> bool:
        """Whether the claim is what it comes to, up to rounding of what is no integer."""
        value = self.value
        return value is not None and nearly(value, self.claimed)

    @property
    def operands(self) -> tuple[Fraction, Fraction]:
        """Left and right; where the order does not matter, the smaller first."""
        if self.sign in "+*":
            return min(self.left, self.right), max(self.left, self.right)
        return self.left, self.right


@dataclass(frozen=True, kw_only=True)
class Equation:
    """An expression of a text, its operations in the order of evaluation, and the value that was claimed for it."""

    operations: tuple[Operation, ...]
    claimed: Fraction

    @property
    def is_true(self) -> bool:
        """Whether what was claimed for the whole is right."""
        return all(operation.is_true for operation in self.operations)


class _Token(NamedTuple):
    kind: str
    sign: Sign | None = None
    value: Fraction = Fraction(0)
    is_percent: bool = False


_FIXED = {kind: _Token(kind) for kind in ("open", "close", "equals", "word", "per", "other")}


def computed(left: Fraction, sign: Sign, right: Fraction) -> Fraction | None:
    """left sign right, exactly; None for a division by zero."""
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left / right if right else None


def nearly(one: Fraction, other: Fraction) -> bool:
    """Whether two values are equal: exactly for integers, else up to what rounding to two decimals leaves.

    >>> nearly(Fraction(100, 3), Fraction("33.33")), nearly(Fraction(33), Fraction(34))
    (True, False)
    """
    if one.denominator == 1 and other.denominator == 1:
        return one == other
    return abs(one - other) <= max(Fraction(1, 200), max(abs(one), abs(other)) / 10_000)


def shown(value: Fraction) -> str:
    """A value as it is written: an integer, a decimal that ends, else a fraction.

    >>> shown(Fraction(12)), shown(Fraction(5, 4)), shown(Fraction(-1, 3))
    ('12', '1.25', '-1/3')
    """
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    places = 0
    while (value * 10**places).denominator > 1:
        places += 1
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def operations_of(expression: str) -> tuple[Operation, ...] | None:
    """The operations of an expression, innermost and leftmost first; None for what is no arithmetic.

    Reads + - * / × x ÷, parentheses, commas, currency and percent. A single number has no operation.

    >>> [f"{each.left} {each.sign} {each.right} = {each.claimed}" for each in operations_of("(4 - 2) * 3 + 1")]
    ['4 - 2 = 2', '2 * 3 = 6', '6 + 1 = 7']
    >>> operations_of("4 + two") is None, operations_of("1 / 0") is None
    (True, True)
    """
    read = _whole(expression)
    return None if read is None else read[1]


def value_of(expression: str) -> Fraction | None:
    """What an expression comes to; None for what is no arithmetic.

    >>> value_of("( 4.0 + 3.0 ) / 2"), value_of("$1,000 x 5%"), value_of("")
    (Fraction(7, 2), Fraction(50, 1), None)
    """
    read = _whole(expression)
    return None if read is None else read[0]


def equations_in(text: str) -> tuple[Equation, ...]:
    """The equations of a text, in order: "12 + 7 = 19", "3 boxes * 4 apples = 12 apples", "2 * 3 + 4 = 6 + 4 = 10".

    What stands in square brackets is a note on the side and not read. Units of a few words may follow a number.
    What has no operation before its "=" is none, and neither is what does not parse.

    >>> [str(each.claimed) for each in equations_in("So 12 + 7 [2 + 7 = 9; 10 + 9 = 19] = 19. x = 4, 19 x 2 = 38.")]
    ['19', '38']
    """
    found: list[Equation] = []
    lines = [line for line in _BRACKETS.sub(" ", text).split("\n") if "=" in line]
    for run in _runs(_BULLETS.sub("", "\n".join(lines))):
        sides: list[list[_Token]] = [[]]
        for token in run:
            if token.kind == "equals":
                sides.append([])
            else:
                sides[-1].append(token)
        for left, right in itertools.pairwise(sides):
            said, claim = _ending(left), _claim(right)
            if said is not None and said[1] and claim is not None:
                found.append(_equation(said[1], claim, is_percent=right[-1].is_percent if right else False))
    return tuple(found)


def _equation(operations: tuple[Operation, ...], claimed: Fraction, *, is_percent: bool) -> Equation:
    """The operations with the claim as the last one's value. Both "1 / 2 = 50%" and "10 * 5 = 50%" hold."""
    *before, last = operations
    if is_percent and last.value == claimed * 100:
        claimed *= 100
    whole = Operation(left=last.left, sign=last.sign, right=last.right, claimed=claimed)
    return Equation(operations=(*before, whole), claimed=claimed)


def _claim(side: Sequence[_Token]) -> Fraction | None:
    """The value of the right-hand side: of all of it, else of the number that it begins with."""
    whole = _parsed(side)
    if whole is not None:
        return whole[0]
    negative = bool(side) and side[0].sign == "-"
    first = side[1:2] if negative else side[:1]
    if not first or first[0].kind != "number":
        return None
    return -first[0].value if negative else first[0].value


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind in ("number", "percent"):
            digits = match["number"].lstrip("$€£").replace(",", "")
            value = Fraction(int(digits)) if digits.isdigit() else Fraction(f"0{digits}")
            yield _Token("number", value=value / 100 if kind == "percent" else value, is_percent=kind == "percent")
        elif kind in ("sign", "times"):
            yield _Token("sign", sign=_SIGNS[match[0]])
        elif kind not in ("space", "money"):
            yield _FIXED[kind or "other"]


def _runs(text: str) -> Iterator[list[_Token]]:
    """Stretches of numbers, signs, parentheses and "=" that hold an "=", units dropped."""
    run: list[_Token] = []
    words = 0
    for token in [*_tokens(text), _Token("other")]:
        is_after_value = bool(run) and run[-1].kind in ("number", "close")
        if token.kind in ("word", "per") and is_after_value and words < _MOST_WORDS:
            words += 1
            continue
        # After a unit only a sign, a parenthesis or "=" goes on: "5 apples 3" are two numbers, "5 apples + 3" one sum.
        goes_on = token.kind in ("sign", "equals", "close") or (
            token.kind in ("number", "open") and not words and not (is_after_value and token.kind == "number")
        )
        if goes_on and len(run) < _MOST_TOKENS:
            run.append(token)
            words = 0
            continue
        if any(each.kind == "equals" for each in run):
            yield run
        run, words = ([token] if token.kind in ("number", "open", "sign") else []), 0


def _whole(expression: str) -> tuple[Fraction, tuple[Operation, ...]] | None:
    """Value and operations of a text that is one expression."""
    return _parsed(list(_tokens(expression)))


def _ending(side: Sequence[_Token]) -> tuple[Fraction, tuple[Operation, ...]] | None:
    """Value and operations of the longest end of these tokens that is an expression."""
    return next((read for first in range(len(side)) if (read := _parsed(side[first:])) is not None), None)


def _parsed(tokens: Sequence[_Token]) -> tuple[Fraction, tuple[Operation, ...]] | None:
    reader = _Reader(tokens)
    value = reader.sum()
    return (value, tuple(reader.operations)) if value is not None and reader.is_at_end else None


class _Reader:
    """Recursive descent over tokens: sums of products of signed numbers and parentheses."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self.operations: list[Operation] = []

    @property
    def is_at_end(self) -> bool:
        return self._place == len(self._tokens)

    def _next(self) -> _Token:
        return _Token("end") if self.is_at_end else self._tokens[self._place]

    def sum(self) -> Fraction | None:
        return self._joined(self._product, "+-")

    def _product(self) -> Fraction | None:
        return self._joined(self._factor, "*/")

    def _joined(self, part: Callable[[], Fraction | None], signs: str) -> Fraction | None:
        value = part()
        while value is not None and (sign := self._next().sign) is not None and sign in signs:
            self._place += 1
            right = part()
            result = None if right is None else computed(value, sign, right)
            if right is None or result is None:
                return None
            self.operations.append(Operation(left=value, sign=sign, right=right, claimed=result))
            value = result
        return value

    def _factor(self) -> Fraction | None:
        token = self._next()
        self._place += 1
        if token.kind == "number":
            return token.value
        if token.sign == "-":
            value = self._factor()
            return None if value is None else -value
        if token.kind != "open":
            return None
        value = self.sum()
        if value is None or self._next().kind != "close":
            return None
        self._place += 1
        return value
