"""Generated problems: exact, fresh, and in one split only."""

from __future__ import annotations

from fractions import Fraction

import pytest

from limbeck.blackbox import CHECKERS, Item
from limbeck.blackbox.arithmetic import equations_in, value_of
from limbeck.blackbox.generating import generate_items, masked, split_of
from limbeck.blackbox.numbers import numbers_in
from limbeck.blackbox.solutions import solution_steps
from limbeck.errors import ConfigError

TEST = generate_items(150, split="test")
TRAIN = generate_items(100, seed=5)


def test_gold_expression_and_rationale_say_the_same() -> None:
    for item in (*TEST, *TRAIN):
        assert value_of(item.expression) == Fraction(item.gold)
        steps = solution_steps(item)
        assert [step.operation for step in steps] == [
            operation for equation in equations_in(item.rationale) for operation in equation.operations
        ]
        assert all(step.name for step in steps)
        assert CHECKERS["numeric"](f"{item.rationale}\n#### {item.gold}", item).strict


def test_every_number_is_in_the_question_and_in_bounds() -> None:
    for item in TEST:
        asked = numbers_in(item.question)
        operations = [step.operation for step in solution_steps(item)]
        assert asked == [operations[0].left, *(each.right for each in operations)]
        assert all(1 <= each.claimed <= 400 and each.claimed.denominator == 1 for each in operations)


def test_lengths_are_taken_in_turn() -> None:
    assert {len(solution_steps(item)) for item in TEST[:9]} == {2, 3, 4}
    assert {len(solution_steps(item)) for item in generate_items(6, steps=(1, 5))} == {1, 5}


def _are_apart(test: tuple[Item, ...], train: tuple[Item, ...]) -> None:
    assert len({item.question for item in test}) == len({item.id for item in test}) == len(test)
    assert len({item.question for item in train}) == len(train)
    assert all(split_of(masked(item.question)) == "test" for item in test)
    assert all(split_of(masked(item.question)) == "train" for item in train)
    assert not {masked(item.question) for item in test} & {masked(item.question) for item in train}
    assert not {item.id for item in test} & {item.id for item in train}


def test_no_question_twice_and_no_masked_question_in_both_splits() -> None:
    _are_apart(TEST, TRAIN)


@pytest.mark.slow
def test_the_same_of_sets_as_large_as_one_would_use() -> None:
    _are_apart(generate_items(2_500, split="test"), generate_items(5_000, seed=7))


def test_equal_seeds_give_equal_problems_and_longer_sets_begin_alike() -> None:
    assert generate_items(40, seed=5) == TRAIN[:40]
    assert not {item.question for item in generate_items(40, seed=6)} & {item.question for item in TRAIN}


def test_masking() -> None:
    assert masked("12 of 340, and 5") == "# of #, and #"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "asked for -1 items"),
        ({"count": 1, "steps": ()}, "of \\[\\] steps"),
        ({"count": 1, "steps": (0,)}, "of \\[0\\] steps"),
        ({"count": 1, "largest": 5}, "numbers up to 5"),
        ({"count": 1, "split": "valid"}, "no split 'valid'"),
        ({"count": 1, "steps": (30,)}, "no new problem of 30 steps"),
    ],
)
def test_what_cannot_be_generated(arguments: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.blackbox.generating._MOST_TRIES", 20)
    with pytest.raises(ConfigError, match=message):
        generate_items(**arguments)
