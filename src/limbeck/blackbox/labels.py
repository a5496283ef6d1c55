"""Which option of a multiple-choice question a text names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from limbeck.blackbox.items import Choice
from limbeck.blackbox.numbers import without_latex

_LEAD = r"^[\W_]*(?:(?:the\s+)?(?:option|choice|letter)\s+)?"
_JOINED = r"\W*(?:\bor\b|\band\b|/|&)"
_NOT_DENIED = r"(?<!\bnot )"
# An English word too: before another word it is read as one.
_WORDS = ("a", "i")


def label_of(said: str, choices: Sequence[Choice], *, is_said: bool) -> str | None:
    """The label of the option that a text names; None for none, and for two of them.

    Where an answer `is_said`, its first line counts: a label at its beginning ("B", "(B) a barn", "option B", "b."),
    an option's whole text at its beginning, else the one label in parentheses, else the one option whose text stands
    in it. Elsewhere only the last two.

    >>> options = (Choice(label="A", text="a dog"), Choice(label="B", text="a cat"))
    >>> [label_of(text, options, is_said=True) for text in ("A cat.", "B, not (A)", "(A) or (B)", "b", "A since")]
    ['B', 'B', None, 'B', 'A']
    """
    if not is_said:
        return _in_parentheses(said, choices) or _by_text(said, choices)
    first = without_latex(said).strip().split("\n")[0]
    if _names_two(first, choices):
        return None
    return (
        _leading(first, choices, end=r"\s*(?:$|[.):,;!*_–—-])", any_case=True)
        or _by_leading_text(first, choices)
        or _leading(first, choices, end=r"(?=\W|$)", any_case=False)
        or _in_parentheses(first, choices)
        or _by_text(first, choices)
    )


def folded(text: str) -> str:
    """A text without what does not matter in it: case, white space, quotes and points around it, how accents are coded.

    >>> folded(' "The  Moon". ')
    'the moon'
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().split()).strip(" .!\"'")


def _leading(first: str, choices: Sequence[Choice], *, end: str, any_case: bool) -> str | None:
    """The label that a line begins with, followed by `end`."""
    for choice in choices:
        label = re.escape(choice.label)
        flags = re.IGNORECASE if any_case and _is_unlike_others(choice, choices) else re.NOFLAG
        if re.match(rf"{_LEAD}(?:{label}){end}", first, flags):
            is_word = not any_case and choice.label.lower() in _WORDS
            # "A dog" says nothing of the option A; "A because" does.
            if not is_word or re.match(rf"{_LEAD}{label}\s+(?:because|since|as|for|is)\b", first):
                return choice.label
    return None


def _is_unlike_others(choice: Choice, choices: Sequence[Choice]) -> bool:
    return sum(each.label.lower() == choice.label.lower() for each in choices) == 1


def _names_two(first: str, choices: Sequence[Choice]) -> bool:
    """Whether a line begins with two labels that are joined: "A or B", "(A) and (C)"."""
    labels = "|".join(re.escape(each.label) for each in choices)
    found = re.match(rf"{_LEAD}({labels}){_JOINED}\W*({labels})(?=\W|$)", first)
    return found is not None and found[1] != found[2]


def _by_leading_text(first: str, choices: Sequence[Choice]) -> str | None:
    said = folded(first)
    begins = [each for each in choices if re.match(rf"{re.escape(folded(each.text))}(?!\w)", said)]
    longest = max(begins, key=lambda each: len(folded(each.text)), default=None)
    return None if longest is None else longest.label


def _in_parentheses(text: str, choices: Sequence[Choice]) -> str | None:
    labels = "|".join(re.escape(each.label) for each in choices)
    found = set(re.findall(rf"{_NOT_DENIED}\(({labels})\)", text))
    return found.pop() if len(found) == 1 else None


def _by_text(text: str, choices: Sequence[Choice]) -> str | None:
    said = folded(text)
    found = [each for each in choices if re.search(rf"{_NOT_DENIED}\b{re.escape(folded(each.text))}\b", said)]
    # "ice" is no second answer beside "ice cream".
    whole = [each for each in found if not any(_is_inside(each, other) for other in found)]
    return whole[0].label if len(whole) == 1 else None


def _is_inside(one: Choice, other: Choice) -> bool:
    return folded(one.text) != folded(other.text) and folded(one.text) in folded(other.text)
