"""A teacher of yes-or-no questions that knows each one's facts, and orders, drops or restates them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from limbeck.blackbox.asking import Answer, Completion, Refusal
from limbeck.blackbox.failures import Diagnosis, ErrorClass
from limbeck.blackbox.items import Item
from limbeck.blackbox.refining import (
    diagnose_attempt,
    drawn,
    error_counts,
    is_uninformed,
    measured,
    summary_of,
)
from limbeck.blackbox.solver_styles import final_line
from limbeck.blackbox.writing import Assignment, Attempt, Example

FactStyle = Literal["all", "ordered", "restated", "listed", "short"]
FACT_STYLES: tuple[FactStyle, ...] = ("all", "ordered", "restated", "listed", "short")
FACT_STYLE_AGAINST: Mapping[ErrorClass, FactStyle] = {
    "wrong_choice": "restated",
    "no_final": "short",
    "malformed": "short",
    "truncated": "short",
    "repetition": "listed",
    "empty": "ordered",
    "unknown": "ordered",
}

_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and for are was were did does has have had can could would will with from that this than its into not any"
        " they their them been being but who what which when where how his her one all",
    )
)


class FactsTeacher:
    """Writes rationales from `Item.facts` for questions answered by yes or no; a `RationaleTeacher`.

    Afresh, all facts in their order ("all"). A rewrite takes the style of `FACT_STYLE_AGAINST` for the measured error,
    found as `SolverTeacher` finds it: "ordered" puts the facts that share most words with the question last, next to
    the answer; "restated" does so and repeats the question before the answer; "listed" numbers them; "short" keeps the
    half that shares most words. What went right stays. `blind`, and any assignment of a later round that tells nothing
    of a student, draws the style. A question without facts is a `Refusal`. It adds no fact and judges none.

    >>> facts = ("Snow is frozen water.", "The Sahara is a hot desert.")
    >>> item = Item(id="1", question="Is snow common in the Sahara?", gold="no", kind="boolean", facts=facts)
    >>> print(FactsTeacher().write([Assignment(item=item)])[0].text)
    Snow is frozen water. The Sahara is a hot desert. So the answer is no.
    #### no
    """

    def __init__(self, *, blind: bool = False, seed: int = 0) -> None:
        self._blind = blind
        self._seed = seed

    @property
    def name(self) -> str:
        """What it is, and how it draws."""
        return f"facts 1{' blind' if self._blind else ''} seed {self._seed}"

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order."""
        return [self._written(assignment) for assignment in assignments]

    def diagnose(self, attempt: Attempt, item: Item) -> Diagnosis:
        """What is wrong with an attempt, by its form and its answer."""
        return diagnose_attempt(attempt, item)

    def summarise(self, examples: Sequence[Example], *, round: int) -> Answer:
        """The probe set's errors, counted by class, as it reads them itself in `Assignment.summary`."""
        return summary_of(error_counts(examples))

    def style(self, assignment: Assignment) -> FactStyle | None:
        """The style that it takes; None where the previous rationale stays."""
        if is_uninformed(assignment) or (self._blind and assignment.round > 0):
            return drawn(FACT_STYLES, assignment, seed=self._seed)
        if assignment.is_fresh:
            return "all"
        seen = measured(assignment)
        style = FACT_STYLE_AGAINST.get(seen.diagnosis.error)
        if style is None:
            return None if assignment.previous else "all"
        # What did not help once is not said again.
        if seen.scope == "item" and tell_facts(assignment.item, style) == assignment.previous:
            return FACT_STYLES[(FACT_STYLES.index(style) + 1) % len(FACT_STYLES)]
        return style

    def _written(self, assignment: Assignment) -> Answer:
        item = assignment.item
        if item.kind != "boolean" or not item.facts:
            return Refusal(
                reason="rejected",
                message=f"the teacher of facts has none for {item.source or item.id}; it needs a yes-or-no question"
                " with 'facts'",
            )
        style = self.style(assignment)
        text = assignment.previous if style is None else tell_facts(item, style)
        return Completion(text=text, finish="stop")


def tell_facts(item: Item, style: FactStyle) -> str:
    """The rationale of a yes-or-no question in this style.

    >>> facts = ("The Sahara is a hot desert.", "Snow is frozen water.")
    >>> item = Item(id="1", question="Is snow common in the Sahara desert?", gold="no", kind="boolean", facts=facts)
    >>> print(tell_facts(item, "short"))
    The Sahara is a hot desert.
    #### no
    """
    return _TELLINGS[style](item)


def _all(item: Item) -> str:
    return _closed(_ended(item.facts), item)


def _ordered(item: Item) -> str:
    return _closed(_ended(_by_relevance(item)), item)


def _restated(item: Item) -> str:
    question = item.question.strip()
    return _closed([*_ended(_by_relevance(item)), f"The question is: {question}"], item)


def _listed(item: Item) -> str:
    lines = [f"Fact {place}: {fact}" for place, fact in enumerate(_ended(item.facts), start=1)]
    return "\n".join([*lines, final_line(item)])


def _short(item: Item) -> str:
    kept = set(_by_relevance(item)[-max(1, len(item.facts) // 2) :])
    return "\n".join([" ".join(_ended([fact for fact in item.facts if fact in kept])), final_line(item)])


_TELLINGS: dict[FactStyle, Callable[[Item], str]] = {
    "all": _all,
    "ordered": _ordered,
    "restated": _restated,
    "listed": _listed,
    "short": _short,
}


def _closed(sentences: Sequence[str], item: Item) -> str:
    return f"{' '.join(sentences)} So the answer is {item.gold}.\n{final_line(item)}"


def _ended(facts: Sequence[str]) -> list[str]:
    return [fact if fact.endswith((".", "!", "?", '."')) else f"{fact}." for fact in facts]


def _by_relevance(item: Item) -> list[str]:
    """The facts by how many words they share with the question, the fewest first; equal ones in their order."""
    asked = _words(item.question)
    return sorted(item.facts, key=lambda fact: len(_words(fact) & asked))


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if word not in _COMMON}
