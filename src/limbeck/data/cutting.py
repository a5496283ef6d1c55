"""Shortening the messages of an over-long prompt: whole old turns first, then the middle of the last user turn.

The system message, the template's headers and the response header are never touched, because what is cut is the
content, before the template is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from limbeck.records import Message

GAP = " … "
Excess = Callable[[Sequence[Message]], int]
# A cut this close to the limit is good enough: each further look costs an encoding of the whole prompt.
_SLACK = 2


def shortened(messages: Sequence[Message], *, excess: Excess) -> tuple[Message, ...] | None:
    """The messages with as much of the content as fits; None where even an empty last turn does not fit.

    `excess` says by how many tokens messages are too long; 0 and less fit. First the oldest exchanges go, then the
    middle of the last turn's input, then the middle of its content. Up to two tokens that would fit may go too.

    >>> turn = Message(role="user", content="Sum up:", input="0123456789")
    >>> shortened([turn], excess=lambda kept: sum(len(m.content + m.input) for m in kept) - 14)[0].input
    '01 … 89'
    """

    first = 1 if messages[0].role == "system" else 0
    system, turns = tuple(messages[:first]), list(messages[first:])
    while (asked := [index for index, turn in enumerate(turns) if turn.role == "user"]) != [0]:
        # Before the first question there may be a greeting.
        turns = turns[asked[0] or asked[1] :]
        if excess((*system, *turns)) <= 0:
            return (*system, *turns)
    *before, last = turns
    kept = (*system, *before)
    above = excess((*kept, last))
    if last.input:
        text, without = last.input, replace(last, input="")
        below = excess((*kept, without))
        if below <= 0:
            size = _most(
                len(text),
                lambda k: excess((*kept, replace(last, input=middle_cut(text, keep=k)))),
                below=below,
                above=above,
            )
            return (*kept, replace(last, input=middle_cut(text, keep=size)))
        last, above = without, below
    said, below = last.content, excess((*kept, replace(last, content="")))
    if below > 0:
        return None
    size = _most(
        len(said),
        lambda k: excess((*kept, replace(last, content=middle_cut(said, keep=k)))),
        below=below,
        above=above,
    )
    return (*kept, replace(last, content=middle_cut(said, keep=size)))


def middle_cut(text: str, *, keep: int) -> str:
    """The text without its middle: `keep` characters, half from each end, with a mark between; "" for 0.

    >>> middle_cut("abcdefgh", keep=3)
    'ab … h'
    """
    if keep <= 0:
        return ""
    tail = keep // 2
    return text[: keep - tail] + GAP + (text[-tail:] if tail else "")


def _most(size: int, excess: Callable[[int], int], *, below: int, above: int) -> int:
    """The largest number found that fits, to within `_SLACK` tokens. `below` and `above`: the excess at its ends.

    False position: tokens grow nearly in proportion to characters, so that a straight line between two looks finds
    what bisection needs a dozen for. A look that leaves most of the interval is followed by one that halves it.
    """
    low, high, halves = 0, size, False
    while high - low > 1 and below < -_SLACK:
        line = low + int((high - low) * -below / max(1, above - below))
        middle = (low + high) // 2 if halves else min(max(line, low + 1), high - 1)
        found, width = excess(middle), high - low
        if found <= 0:
            low, below = middle, found
        else:
            high, above = middle, found
        halves = not halves and high - low > 0.75 * width
    return low
