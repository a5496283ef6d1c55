"""What is wrong with an attempt: injected errors are found, at their step, with their class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from attempt_kit import KINDS, with_error
from hypothesis import given
from hypothesis import strategies as st

from limbeck.blackbox import CHECKERS, Choice, Item, read_items
from limbeck.blackbox.diagnosing import diagnose
from limbeck.blackbox.failures import ERROR_CLASSES, is_repetitive
from limbeck.blackbox.generating import generate_items
from limbeck.blackbox.solutions import solution_steps
from limbeck.blackbox.solver_styles import STYLES, Telling, final_line, tell
from limbeck.seeds import Seeds

DATA = Path(__file__).parents[4] / "shared" / "data"
ITEMS = generate_items(30, seed=12)
SUM = Item(id="1", question="12 eggs, 7 more, 3 times?", gold="57", kind="numeric", expression="(12 + 7) * 3")


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_injected_errors_of_nine_kinds_are_found_at_their_step(count: int) -> None:
    right: Counter[str] = Counter()
    placed: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for item in generate_items(count, seed=11):
        for kind in KINDS:
            faulty = with_error(kind, item, Seeds(2).child(item.id, kind).generator())
            if faulty is None:
                continue
            found = diagnose(faulty.text, finish=faulty.finish, item=item)
            assert found.error != "ok"
            made[kind] += 1
            right[kind] += found.error == kind
            placed[kind] += faulty.step is None or found.first_bad_step == faulty.step
    assert set(made) == set(KINDS)
    assert made.total() > 7 * count
    assert right.total() / made.total() >= 0.98
    assert placed.total() / made.total() >= 0.99
    # A skipped step can look exactly like another operation on its neighbour.
    assert all(right[kind] / made[kind] >= (0.85 if kind == "skipped_step" else 0.95) for kind in KINDS), (right, made)


def test_no_right_rationale_in_any_style_holds_a_bad_step() -> None:
    for item in ITEMS:
        steps = solution_steps(item)
        for style in STYLES:
            text = tell(steps, item, Telling(style=style, step=len(steps) - 1 if len(item.id) % 2 else None))
            assert CHECKERS["numeric"](text, item).strict
            assert diagnose(text, finish="stop", item=item).error == "ok"
            # All that is wrong is the last line, so that every step before it was recognised.
            other = text.replace(final_line(item), final_line(item, "99999"))
            assert diagnose(other, finish="stop", item=item).error == "wrong_final_copy"


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
@pytest.mark.parametrize("name", ["gsm8k", "svamp"])
def test_the_same_of_real_questions(name: str) -> None:
    for item in read_items(DATA / name / "train.jsonl")[:60]:
        steps = solution_steps(item)
        for style in STYLES if steps else ():
            text = tell(steps, item, Telling(style=style))
            assert CHECKERS["numeric"](text, item).strict
            other = text.replace(final_line(item), final_line(item, "99999"))
            assert diagnose(other, finish="stop", item=item).error == "wrong_final_copy", (text, item)


@pytest.mark.parametrize(
    ("text", "finish", "error", "step"),
    [
        ("12 + 7 = 19\n19 * 3 = 57\n#### 57", "stop", "ok", None),
        ("#### 57", "stop", "ok", None),
        ("12 + 7 = 19; 19 * 3 = 57", "stop", "no_final", None),
        ("12 + 7 = 19\n19 * 3 = 57\n#### 59", "stop", "wrong_final_copy", None),
        ("12 + 7 = 18\n18 * 3 = 54\n#### 54", "stop", "arithmetic_slip", 0),
        ("7 + 12 = 19\n3 * 19 = 67\n#### 67", "stop", "arithmetic_slip", 1),
        ("12 - 7 = 5\n5 * 3 = 15\n#### 15", "stop", "wrong_operation", 0),
        ("12 + 3 = 15\n15 * 3 = 45\n#### 45", "stop", "wrong_operand", 0),
        ("12 + 88 = 100\n100 * 3 = 300\n#### 300", "stop", "invented_operand", 0),
        ("12 * 3 = 36\n#### 36", "stop", "skipped_step", 0),
        ("12 + 7 = 19\n#### 19", "stop", "stopped_early", 1),
        ("#### 19", "stop", "skipped_step", 0),
        ("12 + 7 = 19\n19 * 3 = 5", "length", "truncated", None),
        ("12 + 7 = 18\n18 * 3 = 5", "length", "arithmetic_slip", 0),
        ("12 + 7 = 19 eggs " * 9, "length", "repetition", None),
        ("  \n", "stop", "empty", None),
        ("...", "stop", "malformed", None),
        ("I do not know", "stop", "no_final", None),
        ("The answer is many", "stop", "malformed", None),
        ("(12 + 7) * 3 = 57\n#### 58", "stop", "wrong_final_copy", None),
        ("12 + 7 = 19\n19 * 3 = 57\n57 + 1 = 58\n#### 58", "stop", "unknown", None),
    ],
)
def test_attempts_at_a_sum(text: str, finish: str, error: str, step: int | None) -> None:
    found = diagnose(text, finish=finish, item=SUM)
    assert (found.error, found.first_bad_step) == (error, step)
    assert found.reason or error == "ok"


def test_independent_steps_may_come_in_any_order() -> None:
    item = Item(id="1", question="2 * 3 and 4 * 5?", gold="26", kind="numeric", expression="2 * 3 + 4 * 5")
    assert diagnose("4 * 5 = 20\n2 * 3 = 6\n6 + 20 = 26\n#### 27", finish="stop", item=item).error == "wrong_final_copy"
    assert diagnose("4 * 5 = 20\n2 * 3 = 8\n#### 28", finish="stop", item=item).error == "arithmetic_slip"


OPTIONS = (Choice(label="A", text="barn"), Choice(label="B", text="moon"))


@pytest.mark.parametrize(
    ("text", "finish", "error"),
    [
        ("Cows sleep there. The answer is (A).", "stop", "ok"),
        ("The answer is (B).", "stop", "wrong_choice"),
        ("(B)", "stop", "wrong_choice"),
        ("(A)", "stop", "no_final"),
        ("Cows sleep.", "stop", "no_final"),
        ("Cows sleep in", "length", "truncated"),
        ("The answer is (A) or (B).", "stop", "malformed"),
        ("#### C", "stop", "malformed"),
        ("?!", "stop", "malformed"),
        ("", "stop", "empty"),
        ("a cow is a cow and " * 12, "length", "repetition"),
    ],
)
def test_attempts_at_a_choice(text: str, finish: str, error: str) -> None:
    item = Item(id="1", question="Where do cows sleep?", gold="A", kind="choice", choices=OPTIONS)
    assert diagnose(text, finish=finish, item=item).error == error


@pytest.mark.parametrize(
    ("text", "error"),
    [("So it melts.\n#### yes", "ok"), ("No.", "wrong_choice"), ("Yes.", "no_final"), ("Perhaps.", "no_final")],
)
def test_attempts_at_yes_or_no(text: str, error: str) -> None:
    item = Item(id="1", question="Does it melt?", gold="yes", kind="boolean")
    assert diagnose(text, finish="stop", item=item).error == error


def test_a_wrong_text_without_a_known_solution_is_unknown() -> None:
    item = Item(id="1", question="How many?", gold="4", kind="numeric")
    assert diagnose("#### 5", finish="stop", item=item).error == "unknown"
    assert diagnose("2 + 2 = 4", finish="stop", item=item).error == "no_final"


@given(
    text=st.text(alphabet="0123456789+-*/=#().,x% \n[]ab$", max_size=120), finish=st.sampled_from(["stop", "length"])
)
def test_any_text_gets_a_class(text: str, finish: str) -> None:
    found = diagnose(text, finish=finish, item=SUM)
    assert found.error in ERROR_CLASSES
    assert (found.error == "ok") == CHECKERS["numeric"](text, SUM).strict


@given(period=st.integers(1, 40), times=st.integers(4, 6), cut=st.integers(0, 3))
def test_loops_are_seen_wherever_they_are_cut(period: int, times: int, cut: int) -> None:
    words = [f"w{place}" for place in range(period)]
    looped = " ".join(words * (1 + max(times, -(-13 // period))))
    assert is_repetitive(f"It begins well. {looped[: len(looped) - cut]}")
    assert not is_repetitive(" ".join(f"w{place}" for place in range(period * times)))
