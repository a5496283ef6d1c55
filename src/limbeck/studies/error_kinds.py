"""Errors that are put into a text on purpose: what each kind changes, in characters. English, by rule, no model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.registry import Registry

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
_BEFORE_A_SENTENCE = re.compile(r"(?:^|[.!?:;\n])[\s\"'“”‘’()*#>–-]*$")
_NEGATED = frozenset(
    {"is", "are", "was", "were", "can", "could", "will", "would", "should", "must", "may", "might", "does", "did"}
)
_NEGATIONS = frozenset({"not", "never", "no"})
_LOOP_WORDS, _LOOP_TURNS = 4, 2
_DRIFT_WORDS, _FEWEST_DRIFT_WORDS = 8, 3


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The characters [start, end) of a text become `text`; an insertion where start = end.

    >>> Edit(start=6, end=6, text=" not").applied("It was so.")
    'It was not so.'
    """

    start: int
    end: int
    text: str

    def applied(self, text: str) -> str:
        """The text after it."""
        return text[: self.start] + self.text + text[self.end :]


ErrorKind = Callable[[str, Sequence[str], np.random.Generator], Iterator[Edit]]
"""(text, other texts, generator) -> every edit that would put this error into the text, in the generator's order.

None where the text has nothing to spoil. The first word of a text is never touched: an error is one by its context.
"""


def repetition(text: str, others: Sequence[str], draw: np.random.Generator) -> Iterator[Edit]:
    """Four words in a row are said twice more, as by a model in a loop.

    >>> edit = next(repetition("We all eat bread.", [], np.random.default_rng(0)))
    >>> edit.applied("We all eat bread.")
    'We all eat bread We all eat bread We all eat bread.'
    """
    words = _spans(text)
    for first in _shuffled(len(words) - _LOOP_WORDS + 1, draw):
        start, end = words[first][0], words[first + _LOOP_WORDS - 1][1]
        yield Edit(start=end, end=end, text=f" {_one_line(text[start:end])}" * _LOOP_TURNS)


def drift(text: str, others: Sequence[str], draw: np.random.Generator) -> Iterator[Edit]:
    """Up to eight words in a row, three at least, become as many words of another text; then the text goes on.

    >>> edit = next(drift("Boil it for long.", ["Nine ships were lost at sea."], np.random.default_rng(1)))
    >>> edit.applied("Boil it for long.")
    'Boil ships were lost.'
    """
    words = _spans(text)
    for place in _shuffled(len(words) - _FEWEST_DRIFT_WORDS, draw):
        first = place + 1
        count = min(_DRIFT_WORDS, len(words) - first)
        start, end = words[first][0], words[first + count - 1][1]
        for other in _shuffled(len(others), draw):
            theirs = _spans(others[other])
            if len(theirs) < count:
                continue
            chosen = int(draw.integers(len(theirs) - count + 1))
            said = _one_line(others[other][theirs[chosen][0] : theirs[chosen + count - 1][1]])
            if said.casefold() != _one_line(text[start:end]).casefold():
                yield Edit(start=start, end=end, text=said)
                break


def number(text: str, others: Sequence[str], draw: np.random.Generator) -> Iterator[Edit]:
    """One digit of a number becomes another; the number stays as long as it was.

    >>> edit = next(number("It has 7 days.", [], np.random.default_rng(0)))
    >>> edit.start, edit.end, edit.text.isdigit(), edit.text != "7"
    (7, 8, True, True)
    """
    found = [match for match in _NUMBER.finditer(text) if match.start() > 0]
    for place in _shuffled(len(found), draw):
        said = found[place].group()
        digits = [at for at, letter in enumerate(said) if letter.isdigit()]
        at = digits[int(draw.integers(len(digits)))]
        # A number of several digits does not begin with the 0 that this would make of its first one.
        is_leading = at == 0 and len(digits) > 1
        allowed = [digit for digit in "0123456789" if digit != said[at] and not (is_leading and digit == "0")]
        changed = said[:at] + allowed[int(draw.integers(len(allowed)))] + said[at + 1 :]
        yield Edit(start=found[place].start(), end=found[place].end(), text=changed)


def name(text: str, others: Sequence[str], draw: np.random.Generator) -> Iterator[Edit]:
    """A word with a capital letter inside of a sentence becomes such a word of another text.

    >>> edit = next(name("He met Anna there.", ["Once Paul came."], np.random.default_rng(0)))
    >>> edit.applied("He met Anna there.")
    'He met Paul there.'
    """
    own = _names(text)
    known = {text[start:end] for start, end in own}
    for place in _shuffled(len(own), draw):
        for other in _shuffled(len(others), draw):
            theirs = {others[other][start:end] for start, end in _names(others[other])}
            new = sorted(theirs - known)
            if new:
                start, end = own[place]
                yield Edit(start=start, end=end, text=new[int(draw.integers(len(new)))])
                break


def negation(text: str, others: Sequence[str], draw: np.random.Generator) -> Iterator[Edit]:
    """ "not" behind an auxiliary verb that is not negated already.

    >>> edit = next(negation("The sun is hot.", [], np.random.default_rng(0)))
    >>> edit.applied("The sun is hot.")
    'The sun is not hot.'
    """
    words = _spans(text)
    said = [text[start:end].lower() for start, end in words]
    spots = [
        words[at][1]
        for at in range(1, len(words))
        if said[at] in _NEGATED and not _NEGATIONS.intersection(said[at + 1 : at + 2])
    ]
    for place in _shuffled(len(spots), draw):
        yield Edit(start=spots[place], end=spots[place], text=" not")


ERROR_KINDS: Registry[ErrorKind] = Registry(
    "kind of error",
    {"repetition": repetition, "drift": drift, "number": number, "name": name, "negation": negation},
)


def _spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def _names(text: str) -> list[tuple[int, int]]:
    """Words with one capital letter, the first, where no sentence begins."""
    return [
        (start, end)
        for start, end in _spans(text)
        if end - start > 1
        and text[start].isupper()
        and text[start + 1 : end].isalpha()
        and text[start + 1 : end].islower()
        and not _BEFORE_A_SENTENCE.search(text[:start])
    ]


def _shuffled(count: int, draw: np.random.Generator) -> list[int]:
    return [int(place) for place in draw.permutation(max(0, count))]


def _one_line(text: str) -> str:
    return " ".join(text.split())
