"""What sequence correction and re-generation makes of one row, and of which rows: all told by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from revising_kit import STOP, V, differing, model, ones, pack, responses_of, revise

from limbeck.revision import Measures
from limbeck.testing import peaked
from limbeck.types import Experience

# What happens to one row.


def test_the_largest_mismatch_is_corrected_and_not_the_first() -> None:
    student = model(lambda prefix: peaked(2 if 3 in prefix else 1, 0.9, vocab_size=V))
    revision = revise(pack([[1, 1, 1, 1, 1, 1]]), student, differing(_1=(2, 0.6), _3=(3, 0.99), _4=(2, 0.9)))
    assert responses_of(revision.sequences) == [[1, 1, 1, 3, 2, 2]]
    assert revision.sequences.origin == ("revised",)
    (found,) = revision.corrections
    assert (found.row, found.position, found.response_place, found.response_length, found.round) == (0, 5, 3, 6, 1)
    assert (found.drawn_token, found.teacher_token) == (1, 3)
    assert found.kl == pytest.approx(
        0.9 * math.log(0.9 / 0.0025) + 0.025 * math.log(0.025 / 0.99) + 3 * 0.025 * math.log(0.025 / 0.0025), rel=1e-6
    )


def test_the_first_of_equal_mismatches_is_corrected() -> None:
    revision = revise(pack([[1, 1, 1, 1]]), ones(), differing(_1=(3, 0.9), _2=(3, 0.9), _3=(3, 0.9)))
    assert [each.response_place for each in revision.corrections] == [1]


def test_a_row_without_a_mismatch_is_the_same_object_and_nothing_is_decoded() -> None:
    student = ones()
    drawn = dataclasses.replace(pack([[1, 1, STOP]]), experience=Experience(behaviour_logp=torch.zeros(3)))
    revision = revise(drawn, student, differing(_2=(STOP, 0.9)))
    assert revision.sequences is drawn
    assert revision.corrections == ()
    assert student.forwards == 0
    assert revision.measures == Measures(rows=1, positions=3, mismatches=0, kl=revision.measures.kl)


def test_a_stop_token_as_correction_ends_the_row_and_nothing_is_decoded() -> None:
    student = ones()
    revision = revise(pack([[1, 1, 1, 1]]), student, differing(_2=(STOP, 0.9)))
    assert responses_of(revision.sequences) == [[1, 1, STOP]]
    assert student.forwards == 0


def test_a_stop_token_at_the_first_place_is_passed_over_for_the_next_best() -> None:
    teacher = differing(_0=(STOP, 0.999), _2=(3, 0.9), _3=(2, 0.6))
    revision = revise(pack([[1, 1, 1, 1]]), ones(), teacher)
    assert responses_of(revision.sequences) == [[1, 1, 3, 1, 1, 1]]
    alone = revise(pack([[1, 1, 1, 1]]), ones(), differing(_0=(STOP, 0.999)))
    assert responses_of(alone.sequences) == [[1, 1, 1, 1]]
    assert alone.sequences.origin == ("student",)


def test_another_token_at_the_first_place_is_a_correction_like_any_other() -> None:
    revision = revise(pack([[2, 2, STOP]]), ones(), differing(_0=(3, 0.99)))
    assert responses_of(revision.sequences) == [[3, 1, 1, 1, 1, 1]]


def test_the_last_token_of_a_full_row_is_only_replaced() -> None:
    student = ones()
    revision = revise(pack([[1] * 6], limits=[8]), student, differing(_5=(3, 0.9)))
    assert responses_of(revision.sequences) == [[1, 1, 1, 1, 1, 3]]
    assert student.forwards == 0
    assert revision.measures.place == 1.0


def test_a_stop_token_that_the_teacher_would_not_have_drawn_is_an_error_and_the_row_goes_on() -> None:
    revision = revise(pack([[1, 1, STOP]]), ones(), differing(_2=(3, 0.9)))
    assert responses_of(revision.sequences) == [[1, 1, 3, 1, 1, 1]]


def test_what_stands_behind_a_stop_token_is_never_corrected() -> None:
    revision = revise(pack([[1, STOP, 1, 1]]), ones(), differing(_1=(STOP, 0.9), _2=(3, 0.99)))
    assert revision.corrections == ()


def test_the_redrawn_part_ends_where_the_student_stops() -> None:
    student = model(lambda prefix: peaked(STOP if prefix[-2:] == (3, 1) else 1, 0.9, vocab_size=V))
    revision = revise(pack([[1, 1, 1, 1, 1, 1]]), student, differing(_1=(3, 0.99)))
    assert responses_of(revision.sequences) == [[1, 3, 1, STOP]]


@pytest.mark.parametrize(("limits", "length"), [([5], 3), ([8], 6), (None, 6)])
def test_a_row_becomes_as_long_as_its_own_limit(limits: list[int] | None, length: int) -> None:
    revision = revise(pack([[1, 1]], limits=limits), ones(), differing(_1=(3, 0.99)))
    assert [len(response) for response in responses_of(revision.sequences)] == [length]
    assert revision.sequences.limits == (None if limits is None else tuple(limits))


def test_a_row_without_limit_is_bound_by_the_length_of_rows_too() -> None:
    revision = revise(pack([[1, 1]]), ones(), differing(_1=(3, 0.99)), max_length=7)
    assert [len(response) for response in responses_of(revision.sequences)] == [5]


def test_the_teachers_token_is_not_filtered_as_the_students_are() -> None:
    teacher = model(lambda prefix: [0.0, 0.4, 0.35, 0.25, 0.0])
    seen = set()
    for seed in range(40):
        revision = revise(pack([[1, 1]]), ones(), teacher, greedy=False, seed=seed, temperature=0.0)
        seen |= {each.teacher_token for each in revision.corrections}
    assert seen == {2, 3}


# Which rows.


def test_rows_of_another_origin_come_back_untouched_and_are_not_looked_at() -> None:
    origin = ["reference", "student", "teacher", "revised", "prompt"]
    drawn = pack([[1] * 4, [1] * 4, [1] * 5, [1] * 6, []], origin=origin, limits=[9, 8, 9, 8, 9])
    student, teacher = ones(), differing(_1=(3, 0.99))
    revision = revise(drawn, student, teacher)
    redrawn = [1, 3, 1, 1, 1, 1]
    assert responses_of(revision.sequences) == [[1] * 4, redrawn, [1] * 5, redrawn, []]
    assert revision.sequences.origin == ("reference", "revised", "teacher", "revised", "prompt")
    assert revision.sequences.keys == drawn.keys
    assert revision.sequences.limits == drawn.limits
    assert [each.row for each in revision.corrections] == [1, 3]
    assert revision.measures.rows == 2
    assert revision.evidence is not None
    assert revision.evidence.row.tolist() == [0] * 4 + [1] * 6
    assert student.views == teacher.views == 1


def test_nothing_drawn_is_nothing_to_do() -> None:
    student, teacher = ones(), differing(_1=(3, 0.99))
    drawn = pack([[1, 1], [1]], origin=["reference"] * 2)
    revision = revise(drawn, student, teacher)
    assert revision.sequences is drawn
    assert revision.evidence is None
    assert (student.views, teacher.views, revision.measures, revision.measures.row()) == (0, 0, Measures(), {})


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (5, 3)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_viewers_are_called_by_the_number_of_rows_alone(count: int, groups: int, rounds: int) -> None:
    for teacher in (differing(), differing(_1=(3, 0.99))):
        student = ones()
        revise(pack([[1, 1]] * count), student, teacher, group_rows=2, rounds=rounds)
        assert student.views == teacher.views == groups * rounds


def test_measures_by_hand() -> None:
    teacher = differing(_0=(3, 0.5), _2=(3, 0.99))
    revision = revise(pack([[1, 1, 1, 1, 1], [1, STOP, 1]]), ones(), teacher)
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
