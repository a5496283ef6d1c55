"""The solver's rationales: always right, and rewritten for what the student did wrong."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from limbeck.blackbox import CHECKERS, Item
from limbeck.blackbox.asking import Completion, Refusal
from limbeck.blackbox.failures import ERROR_CLASSES
from limbeck.blackbox.generating import generate_items
from limbeck.blackbox.refining import measured
from limbeck.blackbox.rule_teacher import RuleTeacher
from limbeck.blackbox.solutions import solution_steps
from limbeck.blackbox.solver import STYLE_AGAINST, solver_teacher
from limbeck.blackbox.solver_styles import STYLES, Telling, parts_of, tell
from limbeck.blackbox.writing import Assignment, Attempt, Example, RationaleTeacher

ITEM = Item(
    id="1",
    question="12 eggs, 37 more, 3 times?",
    gold="147",
    kind="numeric",
    expression="(12 + 37) * 3",
    rationale="Eggs after buying: 12 + 37 = 49\nAll eggs: 49 * 3 = 147",
)
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
RIGHT = "12 + 37 = 49\n49 * 3 = 147\n#### 147"
SLIP = "12 + 37 = 39\n39 * 3 = 117\n#### 117"
COPY = "12 + 37 = 49\n49 * 3 = 147\n#### 174"


def attempt(text: str, *, round: int = 0, finish: str = "stop") -> Attempt:
    return Attempt(item_id="1", round=round, text=text, finish=finish, is_right=text == RIGHT)


def written(assignment: Assignment, teacher: RuleTeacher[Telling] | None = None) -> str:
    (answer,) = (teacher or solver_teacher()).write([assignment])
    assert isinstance(answer, Completion)
    return answer.text


def plain(item: Item) -> str:
    return tell(solution_steps(item), item, Telling())


def test_it_is_a_teacher_of_rationales() -> None:
    assert isinstance(solver_teacher(), RationaleTeacher)
    assert len({solver_teacher().name, solver_teacher(blind=True).name, solver_teacher(blind=True, seed=1).name}) == 3


def test_the_styles_in_full() -> None:
    steps = solution_steps(ITEM)
    texts = {style: tell(steps, ITEM, Telling(style=style)) for style in STYLES}
    assert texts == {
        "plain": "Eggs after buying: 12 + 37 = 49\nAll eggs: 49 * 3 = 147\n#### 147",
        "expanded": "Eggs after buying: 12 + 37 [10 + 30 = 40; 2 + 7 = 9; 40 + 9 = 49] = 49\n"
        "All eggs: 49 * 3 [40 * 3 = 120; 9 * 3 = 27; 120 + 27 = 147] = 147\n#### 147",
        "named": "Add 37 to 12 to get the eggs after buying. 12 + 37 = 49\n"
        "Multiply 49 by 3 to get the all eggs. 49 * 3 = 147\n#### 147",
        "numbered": "Step 1 of 2. Eggs after buying: 12 + 37 = 49. Steps left: 1.\n"
        "Step 2 of 2. All eggs: 49 * 3 = 147. This was the last step.\n#### 147",
        "terse": RIGHT,
        "strict": "12 + 37 = 49\n49 * 3 = 147\nThe last value is the answer. The answer is 147.\n#### 147",
    }
    only = tell(steps, ITEM, Telling(style="expanded", step=1))
    assert only.splitlines()[0] == texts["plain"].splitlines()[0]
    assert only.splitlines()[1] == texts["expanded"].splitlines()[1]


def test_parts_are_right_and_end_with_the_value() -> None:
    made = 0
    for item in generate_items(60, seed=3):
        for step in solution_steps(item):
            parts = parts_of(step.operation)
            made += bool(parts)
            values = []
            for part in parts:
                left, sign, right, _, value = part.split()
                assert {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right),
                        "/": int(left) / int(right)}[sign] == int(value)  # fmt: skip
                values.append(int(value))
            assert not parts or values[-1] == step.operation.claimed
    assert made > 70


def test_afresh_every_question_is_told_in_one_style() -> None:
    for item in generate_items(20, seed=9):
        assert written(Assignment(item=item)) == plain(item)
        assert CHECKERS["numeric"](written(Assignment(item=item)), item).strict


@pytest.mark.parametrize(
    ("text", "finish", "telling"),
    [
        (SLIP, "stop", Telling(style="expanded", step=0)),
        ("12 + 37 = 49\n49 - 3 = 46\n#### 46", "stop", Telling(style="named", step=1)),
        ("12 + 37 = 49\n49 * 12 = 588\n#### 588", "stop", Telling(style="named", step=1)),
        ("12 + 37 = 49\n49 * 8 = 392\n#### 392", "stop", Telling(style="named", step=1)),
        ("12 * 3 = 36\n#### 36", "stop", Telling(style="numbered", step=0)),
        ("12 + 37 = 49\n#### 49", "stop", Telling(style="numbered", step=1)),
        (COPY, "stop", Telling(style="strict")),
        ("12 + 37 = 49; 49 * 3 = 147", "stop", Telling(style="strict")),
        ("12 + 37 = 49\n49 * ", "length", Telling(style="terse")),
        ("an egg and " * 20, "length", Telling(style="terse")),
    ],
)
def test_a_rewrite_follows_the_questions_own_error(text: str, finish: str, telling: Telling) -> None:
    assignment = Assignment(item=ITEM, round=1, previous=plain(ITEM), attempts=(attempt(text, finish=finish),))
    assert solver_teacher().telling(assignment) == telling
    assert written(assignment) == tell(solution_steps(ITEM), ITEM, telling)


def test_what_went_right_stays_or_is_shortened() -> None:
    right = Assignment(item=ITEM, round=1, previous="as it was\n#### 147", attempts=(attempt(RIGHT),))
    assert written(right) == "as it was\n#### 147"
    assert written(replace(right, previous="")) == RIGHT


def test_the_same_error_again_widens_the_rewrite() -> None:
    narrow = written(Assignment(item=ITEM, round=1, previous=plain(ITEM), attempts=(attempt(SLIP),)))
    again = Assignment(item=ITEM, round=2, previous=narrow, attempts=(attempt(SLIP), attempt(SLIP, round=1)))
    assert solver_teacher().telling(again) == Telling(style="expanded")


def test_the_latest_round_counts_and_in_it_the_first_wrong_attempt() -> None:
    tried = (attempt(COPY), attempt(RIGHT, round=1), attempt(SLIP, round=1), attempt(COPY, round=1))
    assert measured(Assignment(item=ITEM, round=2, attempts=tried)).diagnosis.error == "arithmetic_slip"
    assert measured(Assignment(item=ITEM, round=2, attempts=tried[:2])).diagnosis.error == "ok"


def example(*texts: str) -> Example:
    return Example(item=ITEM, rationales=(), attempts=tuple(attempt(text) for text in texts))


def test_the_probe_set_decides_where_the_question_was_not_tried() -> None:
    probe = (example(SLIP), example(SLIP), example(COPY), example(RIGHT), example(RIGHT), example(RIGHT))
    other = generate_items(1, seed=1)[0]
    assignment = Assignment(item=other, round=1, previous=plain(other), probe=probe)
    assert solver_teacher().telling(assignment) == Telling(style="expanded")
    assert solver_teacher().telling(replace(assignment, probe=(example(RIGHT), example(RIGHT)))) is None
    assert written(replace(assignment, probe=(example(RIGHT),))) == assignment.previous


def test_the_questions_own_error_overrides_the_probe_set() -> None:
    probe = (example(SLIP), example(SLIP))
    own = Assignment(item=ITEM, round=1, previous=plain(ITEM), attempts=(attempt(COPY),), probe=probe)
    assert solver_teacher().telling(own) == Telling(style="strict")
    assert solver_teacher().telling(replace(own, attempts=(attempt(RIGHT),))) is None


def test_it_reads_its_own_summary() -> None:
    probe = [example(COPY), example(SLIP), example(SLIP), example(RIGHT)]
    summary = solver_teacher().summarise(probe, round=1)
    assert summary == Completion(text="arithmetic_slip 2, wrong_final_copy 1", finish="stop")
    assert solver_teacher().telling(Assignment(item=ITEM, round=1, summary=summary.text)) == Telling(style="expanded")
    none = solver_teacher().summarise([example(RIGHT)], round=1)
    assert isinstance(none, Completion)
    assert written(Assignment(item=ITEM, round=1, summary=none.text)) == plain(ITEM)
    named = Assignment(item=ITEM, round=1, summary="Two made a wrong_operand, one a no_final and a wrong_operand.")
    assert solver_teacher().telling(named) == Telling(style="named")
    assert written(Assignment(item=ITEM, round=1, summary="all is well")) == plain(ITEM)


@pytest.mark.parametrize("blind", [True, False])
def test_without_information_style_and_step_are_drawn(blind: bool) -> None:
    items = generate_items(150, seed=2)
    teacher = solver_teacher(blind=blind, seed=4)
    told = [Assignment(item=item, round=1, previous=plain(item)) for item in items]
    if blind:
        told = [replace(each, attempts=(attempt(SLIP),), probe=(example(SLIP),)) for each in told]
    tellings = [teacher.telling(each) for each in told]
    assert None not in tellings
    styles = Counter(each.style for each in tellings if each is not None)
    assert set(styles) == set(STYLES)
    assert min(styles.values()) > 8
    assert {each.step for each in tellings if each is not None} == {None, 0, 1, 2, 3}
    for item, each in zip(items, teacher.write(told), strict=True):
        assert isinstance(each, Completion)
        assert CHECKERS["numeric"](each.text, item).strict


def test_a_blind_draw_knows_seed_round_question_and_retry_and_nothing_else() -> None:
    teacher, items = solver_teacher(blind=True), generate_items(60, seed=2)
    base = [Assignment(item=item, round=1, previous=plain(item)) for item in items]
    drawn = [teacher.telling(each) for each in base]
    assert drawn == [teacher.telling(replace(each, attempts=(attempt(SLIP),))) for each in base]
    assert drawn == [teacher.telling(each) for each in reversed(base)][::-1]
    others = [
        [solver_teacher(blind=True, seed=1).telling(each) for each in base],
        [teacher.telling(replace(each, round=2)) for each in base],
        [teacher.telling(replace(each, sample=1)) for each in base],
    ]
    assert all(one != other for one, other in pairwise([drawn, *others]))
    assert written(replace(base[0], round=0, previous=""), teacher) == plain(items[0])


@pytest.mark.parametrize("item", [replace(ITEM, expression="", rationale=""), replace(ITEM, gold="9")])
def test_a_question_without_a_solution_is_refused(item: Item) -> None:
    (answer,) = solver_teacher().write([Assignment(item=item)])
    assert isinstance(answer, Refusal)
    assert (answer.reason, "no solution of 1" in answer.message) == ("rejected", True)


def test_every_error_that_a_sum_can_show_has_a_style() -> None:
    assert set(STYLE_AGAINST) == set(ERROR_CLASSES) - {"ok", "wrong_choice"}
