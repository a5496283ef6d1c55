"""Sequence correction and re-generation on scripted models, where every token can be told by hand, and in loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from limbeck.revision import SCRG, KLDArgmax, Measures, Revision
from limbeck.seeds import RowNoise, Seeds
from limbeck.sequences import Rollouts
from limbeck.testing import ScriptedModel, peaked, random_script, scripted_rollouts
from limbeck.testing.scripted import Script
from limbeck.types import Evidence, Experience, Sequences, pack_rows
from reference import revision as reference

V, STOP = 5, 4
PROMPT = [0, 0]


def _model(script: Script) -> ScriptedModel:
    return ScriptedModel(script, vocab_size=V)


def _ones() -> ScriptedModel:
    """A student that goes on and on with 1."""
    return _model(lambda prefix: peaked(1, 0.9, vocab_size=V))


def _differing(**at: tuple[int, float]) -> ScriptedModel:
    """A teacher that agrees with `_ones` but at these places of the response: `_2=(3, 0.9)` says 3 at place 2."""
    places = {len(PROMPT) + int(place.removeprefix("_")): says for place, says in at.items()}
    return _model(lambda prefix: peaked(*places.get(len(prefix), (1, 0.9)), vocab_size=V))


def _pack(responses: Sequence[Sequence[int]], **changed: Any) -> Sequences:
    named: dict[str, Any] = {
        "origin": ["student"] * len(responses),
        "keys": [(0, row) for row in range(len(responses))],
        "pad_id": 0,
        **changed,
    }
    flags = [[False] * len(PROMPT) + [True] * len(response) for response in responses]
    return pack_rows([[*PROMPT, *response] for response in responses], flags, **named)


def _rollouts(student: ScriptedModel, **changed: Any) -> Rollouts:
    settings: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": frozenset({STOP}), "temperature": 0.0, **changed}
    return scripted_rollouts(student, **settings)


def _revise(drawn: Sequences, student: ScriptedModel, teacher: ScriptedModel, **changed: Any) -> Revision:
    named = {"detector", "rounds", "greedy"}
    scrg = SCRG(**{"greedy": True, **{key: value for key, value in changed.items() if key in named}})
    rollouts = _rollouts(student, **{key: value for key, value in changed.items() if key not in named})
    return scrg.revise(drawn, rollouts=rollouts, student=student, teacher=teacher, chunk=3)


def _responses(sequences: Sequences) -> list[list[int]]:
    lengths = sequences.lengths.tolist()
    for row, length in enumerate(lengths):
        flags = [False] * len(PROMPT) + [True] * (length - len(PROMPT))
        assert sequences.is_response[row, :length].tolist() == flags
        assert not sequences.is_response[row, length:].any()
        assert sequences.tokens[row, : len(PROMPT)].tolist() == PROMPT
    return [sequences.tokens[row, len(PROMPT) : length].tolist() for row, length in enumerate(lengths)]


# What happens to one row.


def test_the_largest_mismatch_is_corrected_and_not_the_first() -> None:
    student = _model(lambda prefix: peaked(2 if 3 in prefix else 1, 0.9, vocab_size=V))
    revision = _revise(_pack([[1, 1, 1, 1, 1, 1]]), student, _differing(_1=(2, 0.6), _3=(3, 0.99), _4=(2, 0.9)))
    assert _responses(revision.sequences) == [[1, 1, 1, 3, 2, 2]]
    assert revision.sequences.origin == ("revised",)
    (found,) = revision.corrections
    assert (found.row, found.position, found.response_place, found.response_length, found.round) == (0, 5, 3, 6, 1)
    assert (found.drawn_token, found.teacher_token) == (1, 3)
    assert found.kl == pytest.approx(
        0.9 * math.log(0.9 / 0.0025) + 0.025 * math.log(0.025 / 0.99) + 3 * 0.025 * math.log(0.025 / 0.0025), rel=1e-6
    )


def test_the_first_of_equal_mismatches_is_corrected() -> None:
    revision = _revise(_pack([[1, 1, 1, 1]]), _ones(), _differing(_1=(3, 0.9), _2=(3, 0.9), _3=(3, 0.9)))
    assert [each.response_place for each in revision.corrections] == [1]


def test_a_row_without_a_mismatch_is_the_same_object_and_nothing_is_decoded() -> None:
    student = _ones()
    drawn = dataclasses.replace(_pack([[1, 1, STOP]]), experience=Experience(behaviour_logp=torch.zeros(3)))
    revision = _revise(drawn, student, _differing(_2=(STOP, 0.9)))
    assert revision.sequences is drawn
    assert revision.corrections == ()
    assert student.forwards == 0
    assert revision.measures == Measures(rows=1, positions=3, mismatches=0, kl=revision.measures.kl)


def test_a_stop_token_as_correction_ends_the_row_and_nothing_is_decoded() -> None:
    student = _ones()
    revision = _revise(_pack([[1, 1, 1, 1]]), student, _differing(_2=(STOP, 0.9)))
    assert _responses(revision.sequences) == [[1, 1, STOP]]
    assert student.forwards == 0


def test_a_stop_token_at_the_first_place_is_passed_over_for_the_next_best() -> None:
    teacher = _differing(_0=(STOP, 0.999), _2=(3, 0.9), _3=(2, 0.6))
    revision = _revise(_pack([[1, 1, 1, 1]]), _ones(), teacher)
    assert _responses(revision.sequences) == [[1, 1, 3, 1, 1, 1]]
    alone = _revise(_pack([[1, 1, 1, 1]]), _ones(), _differing(_0=(STOP, 0.999)))
    assert _responses(alone.sequences) == [[1, 1, 1, 1]]
    assert alone.sequences.origin == ("student",)


def test_another_token_at_the_first_place_is_a_correction_like_any_other() -> None:
    revision = _revise(_pack([[2, 2, STOP]]), _ones(), _differing(_0=(3, 0.99)))
    assert _responses(revision.sequences) == [[3, 1, 1, 1, 1, 1]]


def test_the_last_token_of_a_full_row_is_only_replaced() -> None:
    student = _ones()
    revision = _revise(_pack([[1] * 6], limits=[8]), student, _differing(_5=(3, 0.9)))
    assert _responses(revision.sequences) == [[1, 1, 1, 1, 1, 3]]
    assert student.forwards == 0
    assert revision.measures.place == 1.0


def test_a_stop_token_that_the_teacher_would_not_have_drawn_is_an_error_and_the_row_goes_on() -> None:
    revision = _revise(_pack([[1, 1, STOP]]), _ones(), _differing(_2=(3, 0.9)))
    assert _responses(revision.sequences) == [[1, 1, 3, 1, 1, 1]]


def test_what_stands_behind_a_stop_token_is_never_corrected() -> None:
    revision = _revise(_pack([[1, STOP, 1, 1]]), _ones(), _differing(_1=(STOP, 0.9), _2=(3, 0.99)))
    assert revision.corrections == ()


def test_the_redrawn_part_ends_where_the_student_stops() -> None:
    student = _model(lambda prefix: peaked(STOP if prefix[-2:] == (3, 1) else 1, 0.9, vocab_size=V))
    revision = _revise(_pack([[1, 1, 1, 1, 1, 1]]), student, _differing(_1=(3, 0.99)))
    assert _responses(revision.sequences) == [[1, 3, 1, STOP]]


@pytest.mark.parametrize(("limits", "length"), [([5], 3), ([8], 6), (None, 6)])
def test_a_row_becomes_as_long_as_its_own_limit(limits: list[int] | None, length: int) -> None:
    revision = _revise(_pack([[1, 1]], limits=limits), _ones(), _differing(_1=(3, 0.99)))
    assert [len(response) for response in _responses(revision.sequences)] == [length]
    assert revision.sequences.limits == (None if limits is None else tuple(limits))


def test_a_row_without_limit_is_bound_by_the_length_of_rows_too() -> None:
    revision = _revise(_pack([[1, 1]]), _ones(), _differing(_1=(3, 0.99)), max_length=7)
    assert [len(response) for response in _responses(revision.sequences)] == [5]


def test_the_teachers_token_is_not_filtered_as_the_students_are() -> None:
    teacher = _model(lambda prefix: [0.0, 0.4, 0.35, 0.25, 0.0])
    seen = set()
    for seed in range(40):
        revision = _revise(_pack([[1, 1]]), _ones(), teacher, greedy=False, seed=seed, temperature=0.0)
        seen |= {each.teacher_token for each in revision.corrections}
    assert seen == {2, 3}


# Which rows.


def test_rows_of_another_origin_come_back_untouched_and_are_not_looked_at() -> None:
    origin = ["reference", "student", "teacher", "revised", "prompt"]
    drawn = _pack([[1] * 4, [1] * 4, [1] * 5, [1] * 6, []], origin=origin, limits=[9, 8, 9, 8, 9])
    student, teacher = _ones(), _differing(_1=(3, 0.99))
    revision = _revise(drawn, student, teacher)
    redrawn = [1, 3, 1, 1, 1, 1]
    assert _responses(revision.sequences) == [[1] * 4, redrawn, [1] * 5, redrawn, []]
    assert revision.sequences.origin == ("reference", "revised", "teacher", "revised", "prompt")
    assert revision.sequences.keys == drawn.keys
    assert revision.sequences.limits == drawn.limits
    assert [each.row for each in revision.corrections] == [1, 3]
    assert revision.measures.rows == 2
    assert revision.evidence is not None
    assert revision.evidence.row.tolist() == [0] * 4 + [1] * 6
    assert student.views == teacher.views == 1


def test_nothing_drawn_is_nothing_to_do() -> None:
    student, teacher = _ones(), _differing(_1=(3, 0.99))
    drawn = _pack([[1, 1], [1]], origin=["reference"] * 2)
    revision = _revise(drawn, student, teacher)
    assert revision.sequences is drawn
    assert revision.evidence is None
    assert (student.views, teacher.views, revision.measures, revision.measures.row()) == (0, 0, Measures(), {})


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (5, 3)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_viewers_are_called_by_the_number_of_rows_alone(count: int, groups: int, rounds: int) -> None:
    for teacher in (_differing(), _differing(_1=(3, 0.99))):
        student = _ones()
        _revise(_pack([[1, 1]] * count), student, teacher, group_rows=2, rounds=rounds)
        assert student.views == teacher.views == groups * rounds


# Rounds, noise and detectors.


def test_each_round_corrects_what_is_worst_now_and_never_a_position_twice() -> None:
    teacher = _differing(_0=(2, 0.9), _1=(2, 0.9), _3=(2, 0.99), _4=(3, 0.99))
    drawn, after = _pack([[1] * 6], limits=[8]), {}
    for rounds in (1, 2, 3, 4, 6):
        revision = _revise(drawn, _ones(), teacher, rounds=rounds)
        after[rounds] = _responses(revision.sequences)[0]
    # The third correction draws everything behind it anew; what was corrected there is lost, and stays so.
    assert after == {
        1: [1, 1, 1, 2, 1, 1],
        2: [1, 1, 1, 2, 3, 1],
        3: [2, 1, 1, 1, 1, 1],
        4: [2, 2, 1, 1, 1, 1],
        6: [2, 2, 1, 1, 1, 1],
    }
    assert [(each.round, each.response_place) for each in revision.corrections] == [(1, 3), (2, 4), (3, 0), (4, 1)]
    measures = revision.measures
    assert (measures.rows, measures.revised, measures.corrections, measures.positions) == (1, 1, 4, 36)
    assert measures.mismatches == 4 + 3 + 2 + 3 + 2 + 2
    assert measures.place == pytest.approx((3 + 4 + 0 + 1) / 5)


def test_equal_seeds_give_equal_rows_and_others_do_not() -> None:
    student, teacher = (random_script(seed, vocab_size=V) for seed in (1, 2))
    drawn = _pack([[1, 2, 3, 1, 2, 3]] * 8, limits=[10] * 8)

    def tokens(seed: int, *, rows: Sequences = drawn) -> list[list[int]]:
        settings = {"greedy": False, "temperature": 1.0, "seed": seed, "max_new_tokens": 8}
        return _responses(_revise(rows, _model(student), _model(teacher), **settings).sequences)

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)
    # Eight equal rows have eight keys, and so eight fates; equal keys have one.
    assert len({tuple(row) for row in tokens(1)}) > 1
    assert len({tuple(row) for row in tokens(1, rows=dataclasses.replace(drawn, keys=((0, 0),) * 8))}) == 1


class _Last:
    """The last eligible token, scored as a careless detector would: without regard to what may be corrected."""

    needs = ()

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        scores_N = evidence.position.float()
        scores_N[evidence.position == evidence.position.max() - 1] = math.nan
        return scores_N


def test_a_detector_of_ones_own_cannot_choose_what_may_not_be_corrected() -> None:
    teacher = _differing(_0=(3, 0.9), _2=(3, 0.9), _4=(3, 0.99))
    revision = _revise(_pack([[1] * 6]), _ones(), teacher, detector=_Last())
    assert [each.response_place for each in revision.corrections] == [2]


def test_the_direction_decides() -> None:
    # At place 0 the student is sure and the teacher open, at place 1 the other way round.
    student = _model(lambda prefix: peaked(1, 0.999 if len(prefix) == 2 else 0.2, vocab_size=V))
    teacher = _model(lambda prefix: peaked(3, 0.201 if len(prefix) == 2 else 0.999, vocab_size=V))
    for direction, place in (("student-teacher", 1), ("teacher-student", 0)):
        revision = _revise(_pack([[1, 1]]), student, teacher, detector=KLDArgmax(direction=direction))
        assert [each.response_place for each in revision.corrections] == [place]


# Against the loops.

rows_of_tokens = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=7), min_size=1, max_size=5)


def _uniform(seed: int, purpose: str, number: int, key: tuple[int, ...], position: int) -> float:
    return float(RowNoise([Seeds(seed).child(purpose, number, *key)]).at([0], [position])[0])


@settings(max_examples=40)
@given(rows_of_tokens, st.integers(0, 10**6), st.integers(1, 3), st.booleans(), st.integers(1, 4), st.integers(1, 9))
def test_revision_is_that_of_the_loops(responses, seed, rounds, greedy, group_rows, most) -> None:
    student = random_script(2 * seed, vocab_size=V)
    teacher = random_script(2 * seed + 1, vocab_size=V, sharpness=1.5)
    drawn = _pack(responses, limits=[max(len(PROMPT) + most, len(PROMPT) + len(each)) for each in responses])
    settings = {"temperature": 1.0, "seed": seed, "group_rows": group_rows, "greedy": greedy, "rounds": rounds}
    revision = _revise(drawn, _model(student), _model(teacher), **settings)
    found = [(each.row, each.round, each.position, each.teacher_token) for each in revision.corrections]
    expected = []
    for row, key in enumerate(drawn.keys):
        outcome = reference.scrg(
            [*PROMPT, *responses[row]],
            begins=len(PROMPT),
            limit=drawn.limits[row],
            student=student,
            teacher=teacher,
            teacher_noise=None if greedy else lambda n, i, key=key: _uniform(seed, "teacher-token", n, key, i),
            redraw_noise=lambda n, i, key=key: _uniform(seed, "redraw", n, key, i),
            stop_ids={STOP},
            rounds=rounds,
        )
        assert revision.sequences.tokens[row, : int(revision.sequences.lengths[row])].tolist() == outcome.row
        assert revision.sequences.origin[row] == ("revised" if outcome.steps else "student")
        expected += [(row, *step) for step in outcome.steps]
    assert sorted(found) == sorted(expected)
    assert revision.measures.corrections == len(expected)
    assert revision.measures.revised == len({row for row, *_ in expected})


def test_measures_by_hand() -> None:
    teacher = _differing(_0=(3, 0.5), _2=(3, 0.99))
    revision = _revise(_pack([[1, 1, 1, 1, 1], [1, STOP, 1]]), _ones(), teacher)
    measures, first, second = revision.measures, *revision.corrections
    assert (first.response_place, second.response_place) == (2, 0)
    assert dataclasses.replace(measures, kl=0.0, kl_corrected=0.0) == Measures(
        # 5 + 2 generated tokens; row 1's stop token and both first tokens differ, and row 0's third.
        rows=2, revised=2, corrections=2, positions=7, mismatches=4, place=2 / 4 + 0 / 2,
    )  # fmt: skip
    assert measures.kl_corrected == first.kl + second.kl
    sums = {name: value for name, value in measures.row().items() if not name.startswith("kl")}
    assert sums == {"revised_rows": 1.0, "mismatches": 4 / 7, "place": 0.25}
    assert measures.row()["kl_corrected"] > measures.row()["kl"] > 0.0
