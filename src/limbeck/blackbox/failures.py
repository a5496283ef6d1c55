"""The ways in which an attempt can go wrong, and how they are told apart where no step can be checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from limbeck.blackbox.checkers import Verdict

ErrorClass = Literal[
    "ok",
    "arithmetic_slip",
    "wrong_operation",
    "wrong_operand",
    "invented_operand",
    "skipped_step",
    "stopped_early",
    "wrong_final_copy",
    "no_final",
    "truncated",
    "repetition",
    "malformed",
    "empty",
    "wrong_choice",
    "unknown",
]
ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)

_WORDS = re.compile(r"\S+")
_ANNOUNCED = re.compile(r"####|\\boxed|\b(?:answer|result)\s*(?:is|=|:)", re.IGNORECASE)
_REPEATS = 4
_LONGEST_PERIOD = 40
_FEWEST_WORDS = 12


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is wrong with an attempt, with a `reason` in words for reports.

    `first_bad_step`: the place, from 0, of the gold step that it went wrong at; None where no step did.
    """

    error: ErrorClass
    first_bad_step: int | None = None
    reason: str = ""


def is_repetitive(text: str) -> bool:
    """Whether a text ends in a loop: its last words are one period of up to 40 words, four times or more.

    >>> is_repetitive("so " + "it is 4 apples and " * 5), is_repetitive("2 + 2 = 4. 4 + 2 = 6. 6 + 2 = 8. 8 + 2 = 10.")
    (True, False)
    """
    words = _WORDS.findall(text)
    # A text that was cut ends in the middle of a period, and with half a word.
    for end in (len(words), len(words) - 1):
        for period in range(1, min(_LONGEST_PERIOD, end // _REPEATS) + 1):
            looped = max(_REPEATS * period, _FEWEST_WORDS)
            if end >= looped and all(words[i] == words[i - period] for i in range(end - looped + period, end)):
                return True
    return False


def shape_of(text: str, *, finish: str, verdict: Verdict) -> Diagnosis | None:
    """What is wrong with the form of a wrong answer, whatever it is about; None where a final answer was said.

    `finish` "length" is an attempt that was cut. In this order: empty, repetition, truncated, malformed (an answer is
    announced, and none can be read there), no_final (none is announced).
    """
    if not text.strip():
        return Diagnosis(error="empty", reason="nothing was written")
    is_final = verdict.mode not in ("none", "fallback")
    if is_repetitive(text) and not (is_final and finish == "stop"):
        return Diagnosis(error="repetition", reason="the text ends in a loop")
    if is_final:
        return None
    if finish == "length":
        return Diagnosis(error="truncated", reason="the text was cut before an answer was said")
    if not any(map(str.isalnum, text)):
        return Diagnosis(error="malformed", reason="there is no word and no number")
    if _announces(text):
        return Diagnosis(error="malformed", reason="an answer is announced, and none can be read there")
    return Diagnosis(error="no_final", reason="no final answer is said")


def of_choice(text: str, *, finish: str, verdict: Verdict) -> Diagnosis:
    """The diagnosis of an attempt at a question that is answered by a label, or by yes or no.

    >>> from limbeck.blackbox.checkers import boolean
    >>> from limbeck.blackbox.items import Item
    >>> item = Item(id="1", question="Is it?", gold="no", kind="boolean")
    >>> said = ["It is big.\\n#### yes", "#### yes and no", "It is big.", ""]
    >>> [of_choice(text, finish="stop", verdict=boolean(text, item)).error for text in said]
    ['wrong_choice', 'malformed', 'no_final', 'empty']
    """
    if verdict.strict:
        return Diagnosis(error="ok")
    shape = shape_of(text, finish=finish, verdict=verdict)
    # A bare "Yes." or "(B)" says an answer, if not where answers are said: a wrong one is wrong first of all.
    if shape is not None and (verdict.correct or verdict.mode == "none" or shape.error in ("repetition", "truncated")):
        return shape
    return Diagnosis(error="wrong_choice", reason=f"'{verdict.extracted}' is the wrong one")


def _announces(text: str) -> bool:
    return (
        "####" in text or "\\boxed" in text or re.search(r"\b(?:answer|result)\s*(?:is|=|:)", text.lower()) is not None
    )
