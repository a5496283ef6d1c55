"""How a solution is told: one fixed style, and what is changed in it for a student's kind of error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from limbeck.blackbox.arithmetic import Operation, shown
from limbeck.blackbox.items import Item
from limbeck.blackbox.solutions import Step

Style = Literal["plain", "expanded", "named", "numbered", "terse", "strict"]
STYLES: tuple[Style, ...] = ("plain", "expanded", "named", "numbered", "terse", "strict")

_VERBS = {"+": "Add {right} to {left}", "-": "Take {right} from {left}", "*": "Multiply {left} by {right}",
          "/": "Divide {left} by {right}"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Telling:
    """A style, and the place of the one step that it is for (None: all steps). Steps that it is not for are plain."""

    style: Style = "plain"
    step: int | None = None


def final_line(item: Item, answer: str | None = None) -> str:
    """The line that ends a rationale: "#### " and the answer, the gold one unless another is given; labels in brackets.

    >>> final_line(Item(id="1", question="Is it?", gold="yes", kind="boolean"))
    '#### yes'
    """
    said = item.gold if answer is None else answer
    return f"#### ({said})" if item.kind == "choice" else f"#### {said}"


def tell(steps: Sequence[Step], item: Item, telling: Telling) -> str:
    """The rationale: one line a step in this style, then the final line.

    "plain" names the value where it has a name. "expanded" puts an operation's parts in brackets before its value,
    "named" says what is done before doing it, "numbered" counts the steps and what is left, "terse" has equations
    alone, "strict" also says once more what the answer is. The last two are about the whole text: `step` does not
    touch them.

    >>> item = Item(id="1", question="", gold="57", kind="numeric", expression="(12 + 7) * 3")
    >>> from limbeck.blackbox.solutions import solution_steps
    >>> print(tell(solution_steps(item), item, Telling(style="expanded", step=1)))
    12 + 7 = 19
    19 * 3 [10 * 3 = 30; 9 * 3 = 27; 30 + 27 = 57] = 57
    #### 57
    """
    lines = []
    for place, step in enumerate(steps):
        is_meant = telling.step in (None, place) or telling.style in ("terse", "strict")
        lines.append(_LINES[telling.style if is_meant else "plain"](step, place, len(steps)))
    if telling.style == "strict":
        lines.append(f"The last value is the answer. The answer is {item.gold}.")
    return "\n".join([*lines, final_line(item)])


def parts_of(operation: Operation) -> list[str]:
    """The smaller equations that an operation on integers is made of; [] where it has none that are easier.

    Sums and products by the tens and ones of an operand, differences in two goes, quotients by the nearest multiple of
    ten.

    >>> from fractions import Fraction
    >>> parts_of(Operation(left=Fraction(47), sign="+", right=Fraction(38), claimed=Fraction(85)))
    ['40 + 30 = 70', '7 + 8 = 15', '70 + 15 = 85']
    >>> parts_of(Operation(left=Fraction(85), sign="-", right=Fraction(38), claimed=Fraction(47)))
    ['85 - 30 = 55', '55 - 8 = 47']
    >>> parts_of(Operation(left=Fraction(96), sign="/", right=Fraction(4), claimed=Fraction(24)))
    ['80 / 4 = 20', '16 / 4 = 4', '20 + 4 = 24']
    """
    numbers = (operation.left, operation.right, operation.claimed)
    if any(number.denominator != 1 or number < 0 for number in numbers):
        return []
    left, right, value = (int(number) for number in numbers)
    if operation.sign == "+":
        return _sum_parts(left, right, value)
    if operation.sign == "-":
        high, low = right - right % 10, right % 10
        return [f"{left} - {high} = {left - high}", f"{left - high} - {low} = {value}"] if high and low else []
    if operation.sign == "*":
        return _product_parts(left, right, value)
    high, low = value - value % 10, value % 10
    if not high or not low:
        return []
    return [f"{high * right} / {right} = {high}", f"{low * right} / {right} = {low}", f"{high} + {low} = {value}"]


def _sum_parts(left: int, right: int, value: int) -> list[str]:
    tens, ones = (left - left % 10, right - right % 10), (left % 10, right % 10)
    if not sum(tens) or not sum(ones):
        return []
    parts = [f"{a} + {b} = {a + b}" for a, b in (tens, ones) if a and b]
    return [*parts, f"{sum(tens)} + {sum(ones)} = {value}"] if parts else []


def _product_parts(left: int, right: int, value: int) -> list[str]:
    high, low = left - left % 10, left % 10
    if high and low:
        return [f"{high} * {right} = {high * right}", f"{low} * {right} = {low * right}",
                f"{high * right} + {low * right} = {value}"]  # fmt: skip
    high, low = right - right % 10, right % 10
    if high and low:
        return [f"{left} * {high} = {left * high}", f"{left} * {low} = {left * low}",
                f"{left * high} + {left * low} = {value}"]  # fmt: skip
    return []


def _plain(step: Step, place: int, count: int) -> str:
    return f"{step.name}: {step.said}" if step.name else step.said


def _expanded(step: Step, place: int, count: int) -> str:
    parts = parts_of(step.operation)
    if not parts:
        return _plain(step, place, count)
    named = f"{step.name}: " if step.name else ""
    return f"{named}{step.asked} [{'; '.join(parts)}] = {shown(step.operation.claimed)}"


def _named(step: Step, place: int, count: int) -> str:
    left, right = shown(step.operation.left), shown(step.operation.right)
    verb = _VERBS[step.operation.sign].format(left=left, right=right)
    aim = f" to get the {step.name[:1].lower()}{step.name[1:]}" if step.name else ""
    return f"{verb}{aim}. {step.said}"


def _numbered(step: Step, place: int, count: int) -> str:
    left = count - place - 1
    rest = "This was the last step." if not left else f"Steps left: {left}."
    return f"Step {place + 1} of {count}. {_plain(step, place, count)}. {rest}"


def _terse(step: Step, place: int, count: int) -> str:
    return step.said


_LINES: dict[Style, Callable[[Step, int, int], str]] = {
    "plain": _plain,
    "expanded": _expanded,
    "named": _named,
    "numbered": _numbered,
    "terse": _terse,
    "strict": _terse,
}
