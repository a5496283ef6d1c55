"""Whether an answer in a model's words is right. Text is read, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from limbeck.blackbox.items import Item
from limbeck.blackbox.labels import folded, label_of
from limbeck.blackbox.numbers import numbers_in, read_number, same_number, without_latex
from limbeck.errors import DataError
from limbeck.registry import Registry

Mode = Literal["marker", "boxed", "phrase", "fallback", "none"]

_PHRASE = re.compile(r"(?:answer|result)\s*(?:is|=|:)+\s*:?\s*", re.IGNORECASE)
_MARKER = "####"
# Up to the end of a sentence or clause; a point or comma inside a number ends none.
_CLAUSE = re.compile(r"(?:[^,;(\n.]|[,.](?=\d))*")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d|[.,]\d)")
_MINUS = re.compile(r"^([ \t]*)(?:-|minus\b|negative\b)[ \t]+(?=[$€£]?\d)", re.IGNORECASE)
_DENIED = re.compile(r"\W*(?:not|never)\b", re.IGNORECASE)
# Emphasis, code and LaTeX's text around the whole of an answer.
_DRESSED = re.compile(r"(\*\*|\*|__|_|`)(?!\s)(.+?)\1([.!]?)|\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")
_OPERATOR = re.compile(r"\d(?:[ \t]*(?:[-+*×÷^]|\\(?:times|cdot|div))[ \t]*|[ \t]+/[ \t]+)[$€£]?\d")
_YES = frozenset({"yes", "true"})
_SAID = re.compile(r"((?:\b(?:not|never)|n['’]t)\s+(?:\w+\s+)?)?\b(yes|true|no|false)\b")
# Here "no" answers nothing.
_NO_ANSWER = re.compile(
    r"\bno\s+(?=doubt|question|problem|way|longer|one|more|other|evidence|reason|such|matter|need|idea)"
)


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
    "answer is" or "answer:", else the last number of the text. Of an equation that stands there ("6 * 7 = 42") its
    right side counts; a sum that is not worked out, or a box of several numbers, is no answer.

    >>> item = Item(id="1", question="6 times 7?", gold="42", kind="numeric")
    >>> numeric("6 * 7 = 42\\n#### 42", item).mode, numeric("So it is 42.", item).strict, numeric("41", item).correct
    ('marker', False, False)
    """
    gold = read_number(item.gold)
    if gold is None:
        raise DataError(f"the gold answer '{item.gold}' is no number\n  {item.source or item.id}")
    for mode, said in places_of(text):
        value = _number(said, mode)
        if value is not None:
            return Verdict(extracted=str(value), mode=mode, correct=same_number(value, gold))
    return _NOTHING


def choice(text: str, item: Item) -> Verdict:
    """A label of the question's choices: alone or in parentheses where an answer is said, or one option's whole text.

    Two different labels in one place are no answer, unless the one that is said comes first ("B, not (A)"). In the
    fallback a label counts only in parentheses. See `label_of`.

    >>> from limbeck.blackbox.items import Choice
    >>> options = (Choice(label="A", text="barn"), Choice(label="B", text="moon"))
    >>> item = Item(id="1", question="Where?", gold="A", kind="choice", choices=options)
    >>> choice("The answer is (A).", item).strict, choice("(A) or (B)", item).mode
    (True, 'none')
    """
    for mode, said in places_of(text):
        label = label_of(said, item.choices, is_said=mode != "fallback")
        if label is not None:
            return Verdict(extracted=label, mode=mode, correct=label == item.gold)
    return _NOTHING


def boolean(text: str, item: Item) -> Verdict:
    """Yes or no (true or false) where an answer is said, else in the first sentence. Both in one place are no answer.

    "Not true" is no, and "not false" yes.

    >>> item = Item(id="1", question="Is it?", gold="no", kind="boolean")
    >>> boolean("No, it is not.", item).mode, boolean("Yes and no.", item).mode, boolean("Answer: false", item).strict
    ('fallback', 'none', True)
    """
    for mode, said in places_of(text):
        part = said if mode != "fallback" else re.split(r"[.!?\n]", said.strip(), maxsplit=1)[0]
        words = _SAID.findall(_NO_ANSWER.sub("", part.lower()))
        found = {"yes" if (word in _YES) != bool(negation) else "no" for negation, word in words}
        if len(found) == 1:
            value = found.pop()
            return Verdict(extracted=value, mode=mode, correct=value == item.gold)
    return _NOTHING


def exact(text: str, item: Item) -> Verdict:
    """The gold text where an answer is said, else as the whole text: case, outer white space, end points and emphasis
    of the whole aside.

    >>> item = Item(id="1", question="Last letters?", gold="ab c", kind="exact")
    >>> exact("The answer is AB  C.", item).correct, exact("ab c", item).mode, exact("abc", item).correct
    (True, 'fallback', False)
    >>> exact("#### **ab c**", item).strict
    True
    """
    for mode, said in places_of(text):
        line = said.strip().split("\n")[0]
        value = folded(_undressed(line, mode))
        if value:
            return Verdict(extracted=value, mode=mode, correct=folded(item.gold) in (value, folded(line)))
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
        # With a box on a later line, the marker is a heading.
        is_heading = bool(marker) and "\n" in after[: max(0, after.rfind("\\boxed{"))]
        places.insert(0 if is_heading else len(places), ("boxed", boxed))
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        places.append(("phrase", text[phrases[-1].end() :]))
    return [*places, ("fallback", text)]


def _undressed(line: str, mode: Mode) -> str:
    """An answer without emphasis or LaTeX's text around it, where that is around all of it."""
    # Emphasis that began before "answer:" ends behind it, or behind what follows.
    line = line.replace("**", "").strip() if mode == "phrase" and line.count("**") == 1 else line
    found = _DRESSED.fullmatch(line)
    return line if found is None else (found[2] or "") + (found[3] or "") or found[4]


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


def _number(said: str, mode: Mode) -> Fraction | None:
    """The number that is said in one place; None where none is, or nothing that is worked out."""
    if mode == "fallback":
        return next(reversed(numbers_in(said)), None)
    if _DENIED.match(said):
        return None
    text = _SPACED.sub(lambda match: match[0].replace(" ", ","), without_latex(said))
    text = _MINUS.sub(r"\1-", text)
    clause = _CLAUSE.match(text)
    right = numbers_in(clause[0].rpartition("=")[2]) if clause is not None and "=" in clause[0] else []
    if right:
        return right[0]
    found = numbers_in(text)
    is_one = len(found) == 1 or (bool(found) and mode != "boxed")
    return found[0] if is_one and _OPERATOR.search(clause[0] if clause else "") is None else None
