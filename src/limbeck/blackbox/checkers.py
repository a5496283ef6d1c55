"""Whether an answer in a model's words is right. Text is read, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from limbeck.blackbox.items import Item
from limbeck.blackbox.numbers import numbers_in, read_number, same_number
from limbeck.errors import DataError
from limbeck.registry import Registry

Mode = Literal["marker", "boxed", "phrase", "fallback", "none"]

_PHRASE = re.compile(r"(?:answer|result)\s*(?:is|=|:)+\s*:?\s*", re.IGNORECASE)
_MARKER = "####"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was read as the answer, how, and whether it is right.

    `mode`: "marker" after ####, "boxed" in \\boxed{}, "phrase" after "answer is" or "answer:", "fallback" the last
    thing that could be one, "none" where nothing could. `strict` is right without a fallback. `unknown`: why nothing
    could be found out ("timeout", "crash", "unparsed", "failed"), which counts as wrong; "" where it was.
    """

    extracted: str
    mode: Mode
    correct: bool
    unknown: str = ""

    @property
    def strict(self) -> bool:
        """Whether it is right and was said where an answer is said."""
        return self.correct and self.mode != "fallback"


Checker = Callable[[str, Item], Verdict]


def numeric(text: str, item: Item) -> Verdict:
    """A number, equal to the gold one up to 1e-4 relative (exactly, for integers).

    Read in this order: the first number after the last ####, the last \\boxed{}, the first number after the last
    "answer is" or "answer:", else the last number of the text.

    >>> item = Item(id="1", question="6 times 7?", gold="42", kind="numeric")
    >>> numeric("6 * 7 = 42\\n#### 42", item).mode, numeric("So it is 42.", item).strict, numeric("41", item).correct
    ('marker', False, False)
    """
    gold = read_number(item.gold)
    if gold is None:
        raise DataError(f"the gold answer '{item.gold}' is no number\n  {item.source or item.id}")
    for mode, said in places_of(text):
        found = numbers_in(said)
        if found:
            value = found[0] if mode != "fallback" else found[-1]
            return Verdict(extracted=str(value), mode=mode, correct=same_number(value, gold))
    return _NOTHING


def choice(text: str, item: Item) -> Verdict:
    """A label of the question's choices: alone or in parentheses where an answer is said, or one option's whole text.

    Two different labels in one place are no answer. In the fallback a label counts only in parentheses.

    >>> from limbeck.blackbox.items import Choice
    >>> options = (Choice(label="A", text="barn"), Choice(label="B", text="moon"))
    >>> item = Item(id="1", question="Where?", gold="A", kind="choice", choices=options)
    >>> choice("The answer is (A).", item).strict, choice("(A) or (B)", item).mode
    (True, 'none')
    """
    for mode, said in places_of(text):
        label = _label(said, item, alone=mode != "fallback")
        if label is not None:
            return Verdict(extracted=label, mode=mode, correct=label == item.gold)
    return _NOTHING


def boolean(text: str, item: Item) -> Verdict:
    """Yes or no (true or false) where an answer is said, else in the first sentence. Both in one place are no answer.

    >>> item = Item(id="1", question="Is it?", gold="no", kind="boolean")
    >>> boolean("No, it is not.", item).mode, boolean("Yes and no.", item).mode, boolean("Answer: false", item).strict
    ('fallback', 'none', True)
    """
    for mode, said in places_of(text):
        part = said if mode != "fallback" else re.split(r"[.!?\n]", said.strip(), maxsplit=1)[0]
        words = re.findall(r"\b(yes|true|no|false)\b", part.lower())
        found = {"yes" if word in ("yes", "true") else "no" for word in words}
        if len(found) == 1:
            value = found.pop()
            return Verdict(extracted=value, mode=mode, correct=value == item.gold)
    return _NOTHING


def exact(text: str, item: Item) -> Verdict:
    """The gold text where an answer is said, else as the whole text: case, outer white space and end points aside.

    >>> item = Item(id="1", question="Last letters?", gold="ab c", kind="exact")
    >>> exact("The answer is AB  C.", item).correct, exact("ab c", item).mode, exact("abc", item).correct
    (True, 'fallback', False)
    """
    for mode, said in places_of(text):
        value = _folded(said.strip().split("\n")[0])
        if value:
            return Verdict(extracted=value, mode=mode, correct=value == _folded(item.gold))
    return _NOTHING


def latex(text: str, item: Item) -> Verdict:
    """A mathematical text that is equal to the gold one, "\\frac{1}{2}" to "0.5": see `LatexChecker`.

    Equal texts and equal numbers are told here; for all else math-verify (extra `eval`) reads both in a process of its
    own, which is killed after five seconds. Raises `ConfigError` where that package is needed and not installed.

    >>> item = Item(id="1", question="x?", gold="\\\\frac{1}{2}", kind="latex")
    >>> latex("So \\\\boxed{\\\\dfrac{1}{2}}.", item).strict
    True
    """
    from limbeck.blackbox.latex_checker import default_checker

    return default_checker()(text, item)


CHECKERS: Registry[Checker] = Registry(
    "checker", {"numeric": numeric, "choice": choice, "boolean": boolean, "exact": exact, "latex": latex}
)

_NOTHING = Verdict(extracted="", mode="none", correct=False)


def places_of(text: str) -> list[tuple[Mode, str]]:
    """The places where an answer may stand, the surest first."""
    places: list[tuple[Mode, str]] = []
    _, marker, after = text.rpartition(_MARKER)
    if marker:
        places.append(("marker", after))
    boxed = _boxed(text)
    if boxed is not None:
        places.append(("boxed", boxed))
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        places.append(("phrase", text[phrases[-1].end() :]))
    return [*places, ("fallback", text)]


def _boxed(text: str) -> str | None:
    """What the last \\boxed{} holds, braces balanced; None where there is none or it never closes."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, first = 0, start + len("\\boxed{") - 1
    for place in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[first + 1 : place]
    return None


def _label(said: str, item: Item, *, alone: bool) -> str | None:
    labels = "|".join(re.escape(each.label) for each in item.choices)
    first = said.strip().split("\n")[0] if alone else said
    found = set(re.findall(rf"\(({labels})\)", first))
    if not found and alone:
        found = set(re.findall(rf"^\W*({labels})(?=\W|$)", first))
    if not found:
        folded = _folded(first)
        found = {each.label for each in item.choices if re.search(rf"\b{re.escape(_folded(each.text))}\b", folded)}
        longest = max((len(each.text) for each in item.choices if each.label in found), default=0)
        # "ice" is no second answer beside "ice cream".
        found = {
            each.label
            for each in item.choices
            if each.label in found and not (len(each.text) < longest and _is_inside(each.text, item, found))
        }
    return found.pop() if len(found) == 1 else None


def _is_inside(text: str, item: Item, found: set[str]) -> bool:
    return any(
        each.label in found and _folded(text) != _folded(each.text) and _folded(text) in _folded(each.text)
        for each in item.choices
    )


def _folded(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .!\"'")
