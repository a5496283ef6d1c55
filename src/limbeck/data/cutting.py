"""Shortening the messages of an over-long prompt: whole old turns first, then the middle of the last user turn.

The system message, the template's headers and the response header are never touched, because what is cut is the
content, before the template is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from limbeck.records import Message

GAP = " … "
Fits = Callable[[Sequence[Message]], bool]


def shortened(messages: Sequence[Message], *, fits: Fits) -> tuple[Message, ...] | None:
    """The messages with as much of the content as fits; None where even an empty last turn does not fit.

    First the oldest exchanges go, then the middle of the last turn's input, then the middle of its content.

    >>> turn = Message(role="user", content="Sum up:", input="0123456789")
    >>> shortened([turn], fits=lambda kept: sum(len(m.content + m.input) for m in kept) <= 14)[0].input
    '01 … 89'
    """
    first = 1 if messages[0].role == "system" else 0
    system, turns = tuple(messages[:first]), list(messages[first:])
    while len(asked := [index for index, turn in enumerate(turns) if turn.role == "user"]) > 1:
        turns = turns[asked[1] :]
        if fits((*system, *turns)):
            return (*system, *turns)
    *before, last = turns
    kept = (*system, *before)
    if last.input:
        without = replace(last, input="")
        if fits((*kept, without)):
            size = _most(len(last.input), lambda k: fits((*kept, replace(last, input=middle_cut(last.input, keep=k)))))
            return (*kept, replace(last, input=middle_cut(last.input, keep=size)))
        last = without
    if not fits((*kept, replace(last, content=""))):
        return None
    size = _most(len(last.content), lambda k: fits((*kept, replace(last, content=middle_cut(last.content, keep=k)))))
    return (*kept, replace(last, content=middle_cut(last.content, keep=size)))


def middle_cut(text: str, *, keep: int) -> str:
    """The text without its middle: `keep` characters, half from each end, with a mark between; "" for 0.

    >>> middle_cut("abcdefgh", keep=3)
    'ab … h'
    """
    if keep <= 0:
        return ""
    tail = keep // 2
    return text[: keep - tail] + GAP + (text[-tail:] if tail else "")


def _most(size: int, fits: Callable[[int], bool]) -> int:
    """The largest number found by bisection that fits; 0 is known to."""
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
