"""What is said about a text that answers a question: right or wrong, and the class of its error."""

from __future__ import annotations

from limbeck.blackbox.checkers import CHECKERS, Verdict
from limbeck.blackbox.items import Item

_LOOP = 4


def judged(item: Item, text: str, *, finish: str = "stop") -> tuple[Verdict, str]:
    """The checker's verdict, and the class of the error as rules can tell it: "" for a right answer.

    Classes without a look at the steps: empty, truncated, repetition, no_final, wrong_choice; unknown for the rest.

    >>> item = Item(id="1", question="6 times 7?", gold="42", kind="numeric")
    >>> judged(item, "#### 42")[1], judged(item, "")[1], judged(item, "no idea")[1], judged(item, "#### 41")[1]
    ('', 'empty', 'no_final', 'unknown')
    """
    verdict = CHECKERS[item.kind](text, item)
    return verdict, "" if verdict.correct else _error(item, text, finish=finish, verdict=verdict)


def _error(item: Item, text: str, *, finish: str, verdict: Verdict) -> str:
    if not text.strip():
        return "empty"
    if _repeats(text):
        return "repetition"
    if finish == "length":
        return "truncated"
    if verdict.mode == "none":
        return "no_final"
    return _by_steps(item, text) or ("wrong_choice" if item.kind in ("choice", "boolean") else "unknown")


def _by_steps(item: Item, text: str) -> str:
    """The class by the steps of the text, where the item has an expression to hold them against; "" otherwise."""
    return ""


def _repeats(text: str) -> bool:
    """Whether a text ends in the same piece again and again."""
    words = text.split()
    return any(
        len(words) >= _LOOP * size and words[-size:] * _LOOP == words[-_LOOP * size :]
        for size in range(1, len(words) // _LOOP + 1)
    )
