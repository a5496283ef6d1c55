"""Numbers as people and models write them, read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
# An exponent, an index, what stands below a root, the second half of a time or of a ratio.
_NOT_BEHIND = r"(?<![\w./^√])(?<![\^_]\{)(?<!\^[-(])(?<!\^\{-)(?<!√\()(?<!sqrt[\{\[(])(?<!\]\{)(?<!\d:)(?<!\d[eE][-+])"
# A base, a factor of a power of ten or of a root, the first half of those.
_NOT_BEFORE = (
    r"(?!\d|/\d|\.\d|:\d|,\d{3}(?!\d)|[eE][-+]?\d|\s*\^|\s*(?:[×x*]|\\times|\\cdot)\s*10\s*\^"
    r"|\s*\\?(?:pi|sqrt)(?![a-zA-Z])|\s*[π√])"
)
_NUMBER = re.compile(
    rf"{_NOT_BEHIND}(?P<sign>[-+]?)[$€£]?(?P<minus>-?)"
    rf"(?:(?P<whole>\d+)\s+(?P<over>\d+)/(?P<under>\d+)"
    rf"|(?P<top>{_DECIMAL})/(?P<bottom>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}))"
    rf"{_NOT_BEFORE}"
)
_FRACTION = re.compile(r"(\d?)\s*\\[dt]?frac\s*(?:\{\s*(-?[\d.]+)\s*\}\s*\{\s*([\d.]+)\s*\}|(\d)(\d))")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|\\[,!;: ]|[\u00a0\u2009\u202f'’_])(?=\d{3}(?!\d))")
_UNIT = r"(?:\s*%|\s*°[CF]?|\s*(?!pi\b)[a-zA-Z]{2,}\.?|\s+[a-zA-Z]+\.?)"
_ALONE = re.compile(rf"(?:about\s+)?{_NUMBER.pattern}(?:\s*[€£$])?(?:{_UNIT}(?:[ /]+[a-zA-Z]+)*)?\.?", re.IGNORECASE)
# Python refuses to read integers of some thousand digits, and a model that loops writes them.
_MOST_CHARACTERS = 400
_DASHES = str.maketrans({"−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-"})


def numbers_in(text: str) -> list[Fraction]:
    """Every number of a text, in order: "1,234", "1'234", "-3", "$2.50", "1/2", "2 1/2", "50%" (which is 50), ".5".

    Fractions are read as one number, those of LaTeX too; a zero denominator is none. A sign stands against its number:
    "10 - 4" is 10 and 4. What is no number by itself is not read: words ("seven"), powers, roots, multiples of π, times
    and ratios, dates, version numbers, endless rows of digits.

    >>> [str(number) for number in numbers_in("He paid $1,250.50 for 2 1/2 tons, so −3 is left.")]
    ['2501/2', '5/2', '-3']
    >>> [str(number) for number in numbers_in("\\\\frac{3}{4} of 1{,}200 is not 10^3 or 3\\\\pi")]
    ['3/4', '1200']
    """
    matches = _NUMBER.finditer(without_latex(text))
    found = [_value(match) for match in matches if len(match[0]) <= _MOST_CHARACTERS]
    return [value for value in found if value is not None]


def read_number(text: str) -> Fraction | None:
    """The number that a text is, units and currency aside; None where it has none, or more than one.

    >>> read_number("$1,000.00"), read_number("12 apples"), read_number("3 or 4"), read_number("none")
    (Fraction(1000, 1), Fraction(12, 1), None, None)
    """
    found = numbers_in(text)
    return found[0] if len(found) == 1 else None


def is_number(text: str) -> bool:
    """Whether a text is one number and nothing else but currency, percent and a unit.

    >>> [is_number(text) for text in ("$1,000.00", "12 apples", "5kg", "1/2", "3x", "Apollo 11", "5!", "x^2")]
    [True, True, True, True, False, False, False, False]
    """
    return read_number(text) is not None and _ALONE.fullmatch(without_latex(text).strip()) is not None


def without_latex(text: str) -> str:
    """A text whose fractions, groups of digits, dashes and words are written without LaTeX.

    >>> without_latex("2\\\\frac{1}{2} \\\\text{tons}, 1{,}234, \\\\$5")
    '2 1/2 tons, 1,234, $5'
    """
    text = _WRAPPED.sub(r"\1", text.translate(_DASHES)).replace("\\$", "$").replace("\\%", "%")
    return _FRACTION.sub(_slashed, _GROUPED.sub(",", text))


def same_number(one: Fraction, other: Fraction, *, tolerance: Fraction = Fraction(1, 10_000)) -> bool:
    """Whether two numbers are equal up to a relative tolerance of the larger one; exact for integers.

    >>> same_number(Fraction(1, 3), Fraction("0.33333")), same_number(Fraction(10_000), Fraction(10_001))
    (True, False)
    """
    if one.denominator == 1 and other.denominator == 1:
        return one == other
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def _slashed(match: re.Match[str]) -> str:
    before, top, bottom, one, other = match.groups()
    return f"{f'{before} ' if before else ''}{top or one}/{bottom or other}"


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
