"""Numbers as people and models write them, read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?<![\w./])(?P<sign>[-+]?)[$€£]?(?P<minus>-?)"
    rf"(?:(?P<whole>\d+)\s+(?P<over>\d+)/(?P<under>\d+)"
    rf"|(?P<top>{_DECIMAL})/(?P<bottom>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}))"
    r"(?![\d/]|\.\d|[eE][-+]?\d)"
)
# Python refuses to read integers of some thousand digits, and a model that loops writes them.
_MOST_CHARACTERS = 400
_DASHES = str.maketrans({"−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-"})


def numbers_in(text: str) -> list[Fraction]:
    """Every number of a text, in order: "1,234", "-3", "$2.50", "1/2", "2 1/2", "50%" (which is 50), ".5".

    Fractions are read as one number; a zero denominator is none. A sign stands against its number: "10 - 4" is 10 and
    4. Words ("seven"), exponents, dates, version numbers and endless rows of digits are not read.

    >>> [str(number) for number in numbers_in("He paid $1,250.50 for 2 1/2 tons, so −3 is left.")]
    ['2501/2', '5/2', '-3']
    """
    matches = _NUMBER.finditer(text.translate(_DASHES))
    found = [_value(match) for match in matches if len(match[0]) <= _MOST_CHARACTERS]
    return [value for value in found if value is not None]


def read_number(text: str) -> Fraction | None:
    """The number that a text is, units and currency aside; None where it has none, or more than one.

    >>> read_number("$1,000.00"), read_number("12 apples"), read_number("3 or 4"), read_number("none")
    (Fraction(1000, 1), Fraction(12, 1), None, None)
    """
    found = numbers_in(text)
    return found[0] if len(found) == 1 else None


def same_number(one: Fraction, other: Fraction, *, tolerance: Fraction = Fraction(1, 10_000)) -> bool:
    """Whether two numbers are equal up to a relative tolerance of the larger one; exact for integers.

    >>> same_number(Fraction(1, 3), Fraction("0.33333")), same_number(Fraction(10_000), Fraction(10_001))
    (True, False)
    """
    if one.denominator == 1 and other.denominator == 1:
        return one == other
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    if part["whole"] is not None:
        under = int(part["under"])
        value = int(part["whole"]) + Fraction(int(part["over"]), under) if under else None
    elif part["top"] is not None:
        bottom = _decimal(part["bottom"])
        value = _decimal(part["top"]) / bottom if bottom else None
    else:
        value = _decimal(part["plain"])
    is_negative = (part["sign"] == "-") != (part["minus"] == "-")
    return -value if value is not None and is_negative else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "") if not text.startswith(".") else f"0{text}")
