"""The detector of three rules: loops, rises, unlikely tokens; by hand, and against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from revising_kit import differing, model, ones, pack, responses_of, revise

from limbeck.revision import Heuristic
from limbeck.testing import peaked, toy_evidence
from reference import detectors as reference

NEVER = -math.inf
LOOPS = {"rise": None, "top_p": None}
RISES = {"loop_tokens": None, "top_p": None}
UNLIKELY = {"loop_tokens": None, "rise": None}


def _scores(detector: Heuristic, **columns: Any) -> list[float]:
    return detector(toy_evidence(**columns)).tolist()


# Loops.


def test_a_loop_begins_at_its_second_turn() -> None:
    found = _scores(Heuristic(loop_tokens=3, **LOOPS), drawn_token=[7, 1, 2, 3, 8, 1, 2, 3, 9])
    assert found == [NEVER] * 5 + [3.0] + [NEVER] * 3


def test_turns_shorter_than_the_stretch_overlap() -> None:
    assert _scores(Heuristic(**LOOPS), drawn_token=[5, 1, 1, 1, 1, 1, 1]) == [NEVER] * 2 + [3.0, 3.0] + [NEVER] * 3
    assert _scores(Heuristic(**LOOPS), drawn_token=[1, 2, 1, 2, 1]) == [NEVER] * 5
    assert _scores(Heuristic(**LOOPS), drawn_token=[1, 2, 1, 2, 1, 2]) == [NEVER] * 2 + [3.0] + [NEVER] * 3


def test_the_first_token_of_a_loop_that_may_be_corrected_is_taken() -> None:
    eligible = [False, False, False, True, True, True, True]
    found = _scores(Heuristic(**LOOPS), drawn_token=[1] * 7, eligible=eligible)
    assert found == [NEVER] * 3 + [3.0] + [NEVER] * 3
    student = model(lambda prefix: peaked(2, 0.9, vocab_size=5))
    teacher = differing(_0=(3, 0.99), _3=(3, 0.9), _4=(3, 0.99), _5=(3, 0.999))
    revision = revise(pack([[1] * 8], limits=[10]), student, teacher, detector=Heuristic(**LOOPS))
    assert responses_of(revision.sequences) == [[1, 1, 1, 3, 2, 2, 2, 2]]


def test_the_prompt_and_an_earlier_answer_are_no_first_turn() -> None:
    # Places 3 to 5 are a user's turn: the two answers are two responses.
    columns = {"drawn_token": [1, 2, 3, 1, 2, 3], "position": [0, 1, 2, 6, 7, 8]}
    assert _scores(Heuristic(loop_tokens=3, **LOOPS), **columns) == [NEVER] * 6
    columns["position"] = list(range(6))
    assert _scores(Heuristic(loop_tokens=3, **LOOPS), **columns)[3] == 3.0


# Rises.


def _surprising(surprises: list[float]) -> dict[str, list[float]]:
    return {"drawn_teacher_logp": [-each for each in surprises]}


def test_a_rise_is_measured_in_deviations_of_what_came_before() -> None:
    # Mean 2, deviation 1; then mean 2.8, deviation sqrt(3.36).
    found = _scores(Heuristic(rise=2.0, rise_after=4, **RISES), **_surprising([1, 3, 1, 3, 6, 6]))
    assert found[:4] + found[5:] == [NEVER] * 5
    assert found[4] == pytest.approx(1 + 4 / 5)
    found = _scores(Heuristic(rise=1.0, rise_after=4, **RISES), **_surprising([1, 3, 1, 3, 6, 6]))
    z = (6 - 2.8) / math.sqrt(3.36)
    assert found[4:] == pytest.approx([1 + 4 / 5, 1 + z / (1 + z)])


def test_the_first_tokens_never_rise() -> None:
    surprises = [0.0, 0.0, 9.0, 0.0]
    assert _scores(Heuristic(rise_after=3, **RISES), **_surprising(surprises)) == [NEVER] * 4
    assert _scores(Heuristic(rise_after=2, **RISES), **_surprising(surprises))[2] == pytest.approx(1 + 18 / 19)


def test_certain_tokens_make_no_small_step_a_rise() -> None:
    surprises = [0.001] * 6 + [0.4]
    assert _scores(Heuristic(**RISES), **_surprising(surprises)) == [NEVER] * 7
    assert _scores(Heuristic(rise_floor=0.1, **RISES), **_surprising(surprises))[6] > 1.0


def test_an_infinite_surprise_rises_furthest_and_leaves_no_trace() -> None:
    found = _scores(Heuristic(**RISES), **_surprising([1, 1, 1, 1, math.inf, 1, 9, math.nan, 1]))
    assert found[4] == 2.0
    assert found[6] == pytest.approx(1 + 16 / 17)
    assert found[5] == found[7] == found[8] == NEVER
    assert _scores(Heuristic(**RISES), **_surprising([math.inf, 1, 1, 1, 1, 1])) == [NEVER] * 6


# Unlikely tokens, and all three.


def test_outside_of_the_nucleus_the_furthest_is_taken() -> None:
    found = _scores(Heuristic(top_p=0.5, **UNLIKELY), nucleus=[0.25, 0.5, 0.75, 0.49])
    assert found == [NEVER, 0.5, 0.75, NEVER]
    assert _scores(Heuristic(top_p=0.5, **UNLIKELY), nucleus=[1.0000001])[0] == 1.0


def test_a_loop_is_above_a_rise_and_a_rise_above_an_unlikely_token() -> None:
    columns = {
        "drawn_token": [1, 1, 1, 1, 1, 5, 6],
        "drawn_teacher_logp": [0.0, 0.0, 0.0, 0.0, -math.inf, -9.0, 0.0],
        "nucleus": [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
    }
    found = _scores(Heuristic(loop_tokens=4), **columns)
    assert found == [NEVER, 3.0, NEVER, NEVER, 2.0, pytest.approx(1 + 18 / 19), 1.0]
    assert sorted(found, reverse=True)[:4] == [3.0, 2.0, pytest.approx(1 + 18 / 19), 1.0]


def test_a_row_where_no_rule_fires_is_left_alone() -> None:
    drawn, student = pack([[1, 1, 1]]), ones()
    revision = revise(drawn, student, differing(_1=(3, 0.5)), detector=Heuristic(top_p=0.6))
    assert revision.sequences is drawn
    assert revision.corrections == ()
    assert revision.measures.mismatches == 1
    assert student.forwards == 0
    assert len(revise(drawn, ones(), differing(_1=(3, 0.5)), detector=Heuristic(top_p=0.4)).corrections) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"loop_tokens": 1}, "greater than or equal to 2"),
        ({"rise": 0.0}, "greater than 0"),
        ({"rise": math.inf}, "finite"),
        ({"rise_after": 0}, "greater than or equal to 1"),
        ({"rise_floor": 0.0}, "greater than 0"),
        ({"top_p": 1.5}, "less than or equal to 1"),
        ({"loop_tokens": None, "rise": None, "top_p": None}, "no token is an error"),
        ({"rise": None, "rise_after": 9}, "rise_after is 9"),
        ({"loops": 3}, "loops"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Heuristic(**fields)


# Against the loops.

surprise = st.one_of(st.floats(0, 12, width=32), st.sampled_from([0.0, 1.0, math.inf]))
token = st.tuples(st.integers(0, 2), surprise, st.floats(0, 1, width=32), st.booleans())
responses = st.lists(st.lists(token, min_size=1, max_size=14), min_size=1, max_size=4)
settings_of = st.fixed_dictionaries(
    {
        "loop_tokens": st.sampled_from([None, 2, 4]),
        "rise": st.sampled_from([0.5, 2.0]),
        "rise_after": st.integers(1, 5),
        "rise_floor": st.sampled_from([0.1, 0.5]),
        "top_p": st.sampled_from([None, 0.3, 0.9]),
    }
)


@given(responses, settings_of, st.randoms(use_true_random=False), st.integers(0, 3))
def test_scores_are_those_of_the_loops(rows, fields, random, start) -> None:
    """Of several rows in one evidence, in any order."""
    entries = [(row, start + place, *each) for row, own in enumerate(rows) for place, each in enumerate(own)]
    expected = {}
    for row, own in enumerate(rows):
        tokens, surprises, nucleus, eligible = zip(*own, strict=True)
        scores = reference.heuristic(tokens, surprises, nucleus, **fields)
        for place, score in enumerate(scores):
            expected[row, start + place] = score if eligible[place] else NEVER
    random.shuffle(entries)
    row, position, drawn, surprises, nucleus, eligible = (list(column) for column in zip(*entries, strict=True))
    found = _scores(
        Heuristic(**fields),
        row=row,
        position=position,
        drawn_token=drawn,
        drawn_teacher_logp=[-each for each in surprises],
        nucleus=nucleus,
        eligible=eligible,
    )
    # Near its threshold, rounding decides whether a rule fires.
    for place, score in zip(zip(row, position, strict=True), found, strict=True):
        assert score == pytest.approx(expected[place], rel=1e-5) or _is_close_call(rows, place, fields, start)


def _is_close_call(rows, place, fields, start) -> bool:
    row, index = place[0], place[1] - start
    surprises = [each[1] for each in rows[row]]
    around = [
        reference.heuristic(
            [each[0] for each in rows[row]],
            surprises,
            [each[2] for each in rows[row]],
            **{**fields, "rise": fields["rise"] * factor},
        )[index]
        for factor in (1 - 1e-6, 1 + 1e-6)
    ]
    return around[0] != around[1]
