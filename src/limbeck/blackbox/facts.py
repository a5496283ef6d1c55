"""A teacher of yes-or-no questions that knows each one's facts, and orders, drops or restates them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from limbeck.blackbox.failures import ErrorClass
from limbeck.blackbox.items import Item
from limbeck.blackbox.refining import Measured
from limbeck.blackbox.rule_teacher import RuleTeacher
from limbeck.blackbox.solver_styles import final_line
from limbeck.blackbox.writing import Assignment

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


def facts_teacher(*, blind: bool = False, seed: int = 0) -> RuleTeacher[FactStyle]:
    """A teacher from `Item.facts` for questions answered by yes or no.

    Afresh, all facts in their order ("all"). A rewrite takes the style of `FACT_STYLE_AGAINST` for the measured error:
    "ordered" puts the facts that share most words with the question last, next to the answer; "restated" does so and
    repeats the question before the answer; "listed" numbers them; "short" keeps the half that shares most words. What
    went right stays; what did not help once is followed by the next style. `blind` draws it (`RuleTeacher`). It adds no
    fact and judges none.

    >>> facts = ("Snow is frozen water.", "The Sahara is a hot desert.")
    >>> item = Item(id="1", question="Is snow common in the Sahara?", gold="no", kind="boolean", facts=facts)
    >>> print(facts_teacher().write([Assignment(item=item)])[0].text)
    Snow is frozen water. The Sahara is a hot desert. So the answer is no.
    #### no
    """
    return RuleTeacher(_Facts(), blind=blind, seed=seed)


class _Facts:
    """The `Rule` of `facts_teacher`."""

    name = "facts 1"

    def refusal(self, item: Item) -> str:
        if item.kind == "boolean" and item.facts:
            return ""
        where = item.source or item.id
        return f"the teacher of facts has none for {where}; it needs a yes-or-no question with 'facts'"

    def tellings(self, item: Item) -> Sequence[FactStyle]:
        return FACT_STYLES

    def fresh(self) -> FactStyle:
        return "all"

    def against(self, seen: Measured, assignment: Assignment) -> FactStyle | None:
        style = FACT_STYLE_AGAINST.get(seen.diagnosis.error)
        if style is None:
            return None if assignment.previous else "all"
        # What did not help once is not said again.
        if seen.scope == "item" and tell_facts(assignment.item, style) == assignment.previous:
            return FACT_STYLES[(FACT_STYLES.index(style) + 1) % len(FACT_STYLES)]
        return style

    def tell(self, item: Item, telling: FactStyle) -> str:
        return tell_facts(item, telling)


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
