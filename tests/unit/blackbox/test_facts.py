"""Rationales from facts: told, ordered, dropped and restated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from limbeck.blackbox import CHECKERS, Item
from limbeck.blackbox.asking import Completion, Refusal
from limbeck.blackbox.facts import FACT_STYLES, FactStyle, facts_teacher, tell_facts
from limbeck.blackbox.rule_teacher import RuleTeacher
from limbeck.blackbox.writing import Assignment, Attempt, Example, RationaleTeacher

FACTS = ("Snow is frozen water", "The Sahara desert is hot.", "Camels live long.")
ITEM = Item(id="1", question="Is snow common in the Sahara desert?", gold="no", kind="boolean", facts=FACTS)


def attempt(text: str, *, finish: str = "stop") -> Attempt:
    return Attempt(item_id="1", round=0, text=text, finish=finish, is_right=False)


def after(text: str, *, finish: str = "stop", previous: str = "before\n#### no") -> Assignment:
    return Assignment(item=ITEM, round=1, previous=previous, attempts=(attempt(text, finish=finish),))


def written(assignment: Assignment, teacher: RuleTeacher[FactStyle] | None = None) -> str:
    (answer,) = (teacher or facts_teacher()).write([assignment])
    assert isinstance(answer, Completion)
    return answer.text


def test_the_styles_in_full() -> None:
    assert isinstance(facts_teacher(), RationaleTeacher)
    question = "The question is: Is snow common in the Sahara desert?"
    assert {style: tell_facts(ITEM, style) for style in FACT_STYLES} == {
        "all": "Snow is frozen water. The Sahara desert is hot. Camels live long. So the answer is no.\n#### no",
        "ordered": "Camels live long. Snow is frozen water. The Sahara desert is hot. So the answer is no.\n#### no",
        "restated": "Camels live long. Snow is frozen water. The Sahara desert is hot."
        f" {question} So the answer is no.\n#### no",
        "listed": "Fact 1: Snow is frozen water.\nFact 2: The Sahara desert is hot.\nFact 3: Camels live long."
        "\n#### no",
        "short": "The Sahara desert is hot.\n#### no",
    }


@pytest.mark.parametrize("style", FACT_STYLES)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("gold", ["yes", "no"])
def test_every_style_passes_the_checker(style: str, count: int, gold: str) -> None:
    item = replace(ITEM, facts=("Yes and no are words.", *FACTS)[:count], gold=gold)
    assert CHECKERS["boolean"](tell_facts(item, style), item).strict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "finish", "style"),
    [
        ("#### yes", "stop", "restated"),
        ("Snow is cold.", "stop", "short"),
        ("#### yes and no", "stop", "short"),
        ("Snow is", "length", "short"),
        ("snow and " * 20, "length", "listed"),
        ("", "stop", "ordered"),
    ],
)
def test_a_rewrite_follows_the_error(text: str, finish: str, style: str) -> None:
    assert written(after(text, finish=finish)) == tell_facts(ITEM, style)  # type: ignore[arg-type]


def test_what_went_right_stays_and_what_did_not_help_is_not_said_again() -> None:
    assert written(after("#### no")) == "before\n#### no"
    assert written(after("#### no", previous="")) == tell_facts(ITEM, "all")
    assert written(after("#### yes", previous=tell_facts(ITEM, "restated"))) == tell_facts(ITEM, "listed")


def test_the_probe_set_and_its_summary_decide_where_the_question_was_not_tried() -> None:
    teacher = facts_teacher()
    probe = [Example(item=ITEM, rationales=(), attempts=(attempt(text),)) for text in ("#### yes", "#### yes", "")]
    assignment = Assignment(item=ITEM, round=1, previous="before\n#### no", probe=tuple(probe))
    assert teacher.telling(assignment) == "restated"
    summary = teacher.summarise(probe, round=1)
    assert isinstance(summary, Completion)
    assert teacher.telling(replace(assignment, probe=(), summary=summary.text)) == "restated"


def test_without_information_the_style_is_drawn() -> None:
    for teacher in (facts_teacher(), facts_teacher(blind=True)):
        told = [Assignment(item=replace(ITEM, id=str(i)), round=1, previous="x") for i in range(200)]
        styles = Counter(teacher.telling(each) for each in told)
        assert set(styles) == set(FACT_STYLES)
        assert min(styles.values()) > 20
    blind = facts_teacher(blind=True)
    assert [blind.telling(each) for each in told] == [
        blind.telling(replace(each, attempts=(attempt("#### yes"),))) for each in told
    ]
    assert written(Assignment(item=ITEM), blind) == tell_facts(ITEM, "all")


def test_a_question_without_facts_is_refused() -> None:
    for item in (replace(ITEM, facts=()), replace(ITEM, kind="exact")):
        (answer,) = facts_teacher().write([Assignment(item=item)])
        assert isinstance(answer, Refusal)
        assert answer.reason == "rejected"
