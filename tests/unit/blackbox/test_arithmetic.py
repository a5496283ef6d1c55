"""Equations as people and models write them, read exactly."""

from __future__ import annotations

import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.blackbox import Item
from limbeck.blackbox.arithmetic import equations_in, operations_of, shown, value_of
from limbeck.blackbox.solutions import agrees, solution_steps

APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
numbers = st.integers(1, 99).map(Fraction)
trees = st.recursive(numbers, lambda part: st.tuples(part, st.sampled_from("+-*"), part), max_leaves=6)
Tree = Fraction | tuple[object, str, object]


def written(tree: Tree) -> str:
    if isinstance(tree, Fraction):
        return str(tree)
    left, sign, right = tree
    return f"({written(left)} {sign} {written(right)})"  # type: ignore[arg-type]


def value(tree: Tree) -> Fraction:
    if isinstance(tree, Fraction):
        return tree
    left, sign, right = tree
    return APPLY[sign](value(left), value(right))  # type: ignore[arg-type, no-any-return]


@given(tree=trees)
def test_an_expression_comes_to_what_its_tree_does(tree: Tree) -> None:
    text = written(tree)
    assert value_of(text) == value(tree)
    operations = operations_of(text)
    assert operations is not None
    assert len(operations) == sum(text.count(sign) for sign in "+-*")
    assert all(each.is_true for each in operations)
    if operations:
        assert operations[-1].claimed == value(tree)
        (equation,) = equations_in(f"So we get {text} = {shown(value(tree))}, as it should be.")
        assert equation.is_true
        assert not equations_in(f"So {text} = {shown(value(tree) + 1)}.")[0].is_true


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("10 - 4 - 3", "3"),
        ("48/2/3", "8"),
        ("-3 + 5", "2"),
        ("2 * -3", "-6"),
        ("1,250.50 × 2", "2501"),
        ("3 x 4 ÷ 6", "2"),
        ("$5 − $2", "3"),
        ("200 * 15%", "30"),
        (".5*10", "5"),
    ],
)
def test_how_expressions_are_read(expression: str, expected: str) -> None:
    assert value_of(expression) == Fraction(expected)


@pytest.mark.parametrize("text", ["", "two", "4 +", "(4", "4)", "4 5", "1/0", "2 ** 3", "__import__('os')", "x + 1"])
def test_what_is_no_arithmetic(text: str) -> None:
    assert value_of(text) is None
    assert operations_of(text) is None


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("12 + 7 = 19", ["19"]),
        ("Natalia sold 48/2 = 24 clips. Then 48+24 = 72 altogether.", ["24", "72"]),
        ("16 - 3 - 4 = 9 duck eggs", ["9"]),
        ("She makes 9 * 2 = $18 a day", ["18"]),
        ("2 * 3 + 4 = 6 + 4 = 10", ["10", "10"]),
        ("5 snakes/jaguar * 6 jaguars = 30 snakes", ["30"]),
        ("60 dogs * 2 = 120 dogs", ["120"]),
        ("Step 1 of 3: 12 + 7 = 19. Steps left: 2.", ["19"]),
        ("- 12 + 7 = 19\n- 19 * 3 = 57", ["19", "57"]),
        ("47 + 38 [40 + 30 = 70; 7 + 8 = 15] = 85", ["85"]),
        ("47 + 38 [40 + 30 = 70; 7", []),
        ("x = 12", []),
        ("12 = 12", []),
        ("There are 5 and 3 = 8", []),
        ("5 apples 3 + 4 = 7", ["7"]),
        ("2x + 3 = 7", []),
        ("10 / 20 * 100 = 50%", ["50"]),
        ("no numbers at all", []),
    ],
)
def test_equations_of_a_text(text: str, claims: list[str]) -> None:
    assert [str(each.claimed) for each in equations_in(text)] == claims


def test_a_loop_of_digits_is_read_in_time_and_without_an_error() -> None:
    assert equations_in("1 + " * 5_000 + "= 3") == ()
    assert equations_in("9" * 20_000 + " + 1 = 2") == ()
    assert value_of("(" * 50 + "1" + ")" * 50) == 1
    assert solution_steps(Item(id="1", question="", gold="9" * 300, kind="numeric")) == ()


@given(top=st.integers(-9_999, 9_999), bottom=st.integers(1, 400))
def test_what_is_shown_is_read_back(top: int, bottom: int) -> None:
    assert value_of(shown(Fraction(top, bottom))) == Fraction(top, bottom)


def item(gold: str, **fields: object) -> Item:
    return Item(id="1", question="", gold=gold, kind="numeric", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_item", "steps"),
    [
        (item("57", expression="(12 + 7) * 3"), ["12 + 7 = 19", "19 * 3 = 57"]),
        (item("57", expression="( ( 12.0 + 7.0 ) * 3.0 )"), ["12 + 7 = 19", "19 * 3 = 57"]),
        (item("9", steps=("16-3-4=9",)), ["16 - 3 = 13", "13 - 4 = 9"]),
        (item("25", steps=("1/4*100=25",)), ["1 / 4 = 0.25", "0.25 * 100 = 25"]),
        (item("-2", rationale="3 - 5 = -2"), ["3 - 5 = -2"]),
        (item("7", steps=("2+3=5",)), []),
        (item("5", rationale="2 + 3 = 6 and 3 + 2 = 5"), []),
        (item("8", expression="8.0"), []),
        (item("8"), []),
        (Item(id="1", question="", gold="yes", kind="boolean", rationale="2 + 2 = 4"), []),
    ],
)
def test_the_gold_way_of_a_question(given_item: Item, steps: list[str]) -> None:
    assert [step.said for step in solution_steps(given_item)] == steps


def test_names_belong_to_lines_of_one_operation() -> None:
    named = item("57", rationale="Sum: 12 + 7 = 19\nAll of it: 19 * 3 = 57")
    assert [step.name for step in solution_steps(named)] == ["Sum", "All of it"]
    together = item("57", rationale="Sum: 12 + 7 = 19, and 19 * 3 = 57")
    assert [step.name for step in solution_steps(together)] == ["", ""]


def test_an_equation_that_disagrees_with_its_answer() -> None:
    assert agrees("( 76.0 - 25.0 )", "51")
    assert not agrees("( ( 4.0 - 2.0 ) + 3.0 )", "1")
    assert not agrees("what", "1")
