"""Rounds, noise and detectors of sequence correction and re-generation; and all of it against loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from revising_kit import PROMPT, STOP, V, differing, model, ones, pack, responses_of, revise
from torch import Tensor

from limbeck.revision import KLDArgmax
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import peaked, random_script
from limbeck.types import Evidence, Sequences
from reference import revision as reference


def test_each_round_corrects_what_is_worst_now_and_never_a_position_twice() -> None:
    teacher = differing(_0=(2, 0.9), _1=(2, 0.9), _3=(2, 0.99), _4=(3, 0.99))
    drawn, after = pack([[1] * 6], limits=[8]), {}
    for rounds in (1, 2, 3, 4, 6):
        revision = revise(drawn, ones(), teacher, rounds=rounds)
        after[rounds] = responses_of(revision.sequences)[0]
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
    drawn = pack([[1, 2, 3, 1, 2, 3]] * 8, limits=[10] * 8)

    def tokens(seed: int, *, rows: Sequences = drawn) -> list[list[int]]:
        settings = {"greedy": False, "temperature": 1.0, "seed": seed, "max_new_tokens": 8}
        return responses_of(revise(rows, model(student), model(teacher), **settings).sequences)

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
    teacher = differing(_0=(3, 0.9), _2=(3, 0.9), _4=(3, 0.99))
    revision = revise(pack([[1] * 6]), ones(), teacher, detector=_Last())
    assert [each.response_place for each in revision.corrections] == [2]


def test_the_direction_decides() -> None:
    # At place 0 the student is sure and the teacher open, at place 1 the other way round.
    student = model(lambda prefix: peaked(1, 0.999 if len(prefix) == 2 else 0.2, vocab_size=V))
    teacher = model(lambda prefix: peaked(3, 0.201 if len(prefix) == 2 else 0.999, vocab_size=V))
    for direction, place in (("student-teacher", 1), ("teacher-student", 0)):
        revision = revise(pack([[1, 1]]), student, teacher, detector=KLDArgmax(direction=direction))
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
    drawn = pack(responses, limits=[max(len(PROMPT) + most, len(PROMPT) + len(each)) for each in responses])
    settings = {"temperature": 1.0, "seed": seed, "group_rows": group_rows, "greedy": greedy, "rounds": rounds}
    revision = revise(drawn, model(student), model(teacher), **settings)
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
