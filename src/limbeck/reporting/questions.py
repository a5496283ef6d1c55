"""The eight questions that a page answers at its top, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

QUESTIONS: dict[str, str] = {
    "best": "Which arm is best, and by how much?",
    "sft": "Is the difference from SFT real?",
    "checkpoint": "Which checkpoint was kept, and why?",
    "rows": "Were rows dropped or cut?",
    "drawn": "How much did the student draw, and how much was revised?",
    "watch": "Did a watch fire, and what is to be done?",
    "cost": "What did it cost?",
    "repeat": "Which command repeats it?",
}
"""The questions by the name that their place on the page has: `#answer-best`."""


@dataclass(frozen=True, kw_only=True)
class KeyAnswer:
    """The answer to one of the `QUESTIONS`: sentences, the sections that they are read from (by `ident`), a command.

    An answer that cannot be given says why, and what would give it; it is never left out.
    """

    about: str
    says: tuple[str, ...]
    see: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        assert self.about in QUESTIONS, f"no question is called '{self.about}'"
        assert self.says, f"the question '{self.about}' has no answer"

    @property
    def question(self) -> str:
        """The question in words."""
        return QUESTIONS[self.about]


def all_answered(answers: Sequence[KeyAnswer], *, shown: Sequence[str]) -> tuple[KeyAnswer, ...]:
    """The answers in the order of the questions, each given once, leading to those of their sections that are shown."""
    by_name = {answer.about: answer for answer in answers}
    assert len(by_name) == len(answers) == len(QUESTIONS), f"answered: {[each.about for each in answers]}"
    ordered = (by_name[about] for about in QUESTIONS)
    return tuple(replace(each, see=tuple(ident for ident in each.see if ident in shown)) for each in ordered)


def of_each(told: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """(run, sentence) pairs as sentences, the run named where there are several; equal sentences once.

    >>> of_each([("a", "the only one.")]), of_each([("a", "no."), ("b", "no."), ("c", "yes.")])
    (('The only one.',), ('a, b: no.', 'c: yes.'))
    """
    if len({name for name, _ in told}) == 1:
        return tuple(sentence[:1].upper() + sentence[1:] for _, sentence in told)
    names: dict[str, list[str]] = {}
    for name, sentence in told:
        names.setdefault(sentence, []).append(name)
    return tuple(f"{', '.join(of)}: {sentence}" for sentence, of in names.items())
