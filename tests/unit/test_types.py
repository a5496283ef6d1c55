"""The tensor records, and that a tensor of the wrong shape does not get through in the suite."""

from __future__ import annotations

import dataclasses

import jaxtyping
import pytest
import torch

from limbeck.losses.divergences import ForwardKL
from limbeck.models.scoring import predicting_states, scored_tokens, split_rows
from limbeck.types import Experience, Sequences, joined, pack_rows


def packed() -> Sequences:
    return pack_rows(
        [[5, 6, 7], [8, 9], [4]],
        [[False, True, True], [False, True], [False]],
        origin=["reference", "student", "prompt"],
        keys=[(0, 0), (0, 1), ("validation", "a")],
        pad_id=0,
    )


def experienced() -> Sequences:
    """Rows of 2, 1 and 0 scored tokens whose columns name them: 10·row + place."""
    column = torch.tensor([0.0, 1.0, 10.0])
    return dataclasses.replace(packed(), experience=Experience(behaviour_logp=column, advantage=-column))


def test_rows_keep_their_origin_and_key() -> None:
    chosen = packed().rows([2, 1])
    assert chosen.origin == ("prompt", "student")
    assert chosen.keys == (("validation", "a"), (0, 1))
    assert chosen.tokens.tolist() == [[4, 0], [8, 9]]
    assert chosen.experience is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([0, 1, 2], [0, 1, 10]), ([1, 0], [10, 0, 1]), ([2], []), ([], []), ([1, 2, 1], [10, 10]), ([2, 0], [0, 1])],
)
def test_experience_goes_where_its_rows_go(rows: list[int], expected: list[float]) -> None:
    chosen = experienced().rows(rows)
    assert chosen.experience is not None
    assert chosen.experience.behaviour_logp.tolist() == expected
    assert chosen.experience.advantage is not None
    assert chosen.experience.advantage.tolist() == [-value for value in expected]
    assert chosen.experience.student_logp is None
    assert chosen.to("cpu").experience is not None


def test_micro_batches_share_the_experience_out() -> None:
    parts = [experienced().rows(group) for group in split_rows(experienced(), 2)]
    seen = [value for part in parts if part.experience for value in part.experience.behaviour_logp.tolist()]
    assert sorted(seen) == [0, 1, 10]
    with pytest.raises(AssertionError, match="one entry a scored token"):
        dataclasses.replace(packed(), experience=Experience(behaviour_logp=torch.zeros(2)))


def test_rows_that_were_dealt_out_are_joined_again() -> None:
    whole = dataclasses.replace(experienced(), limits=(4, 5, 6))
    again = joined([whole.rows([row]) for row in range(3)], pad_id=0)
    assert torch.equal(again.tokens, whole.tokens)
    assert torch.equal(again.attended, whole.attended)
    assert torch.equal(again.is_response, whole.is_response)
    assert (again.origin, again.keys, again.limits) == (whole.origin, whole.keys, whole.limits)
    assert again.experience is not None
    assert again.experience.columns().keys() == {"behaviour_logp", "advantage"}
    assert again.experience.behaviour_logp.tolist() == [0, 1, 10]
    mixed = joined([whole.rows([0]), packed().rows([1])], pad_id=0)
    assert (mixed.experience, mixed.limits, len(joined([], pad_id=0))) == (None, None, 0)


def test_no_rows_are_still_a_batch() -> None:
    nothing = packed().rows([])
    assert (len(nothing), nothing.num_scored, tuple(nothing.tokens.shape)) == (0, 0, (0, 1))
    assert len(pack_rows([], [], origin=[], keys=[], pad_id=0)) == 0


def test_lengths_count_tokens_and_a_row_without_a_response_is_all_prompt() -> None:
    assert packed().lengths.tolist() == [3, 2, 1]
    assert packed().prompt_lengths.tolist() == [1, 1, 1]
    assert packed().num_scored == 3


@pytest.mark.parametrize(
    ("rows", "flags", "origin", "keys"),
    [
        ([[1, 2]], [[True]], ["reference"], [(0,)]),
        ([[1], [2]], [[True], [True]], ["reference"], [(0,), (1,)]),
        ([[1], [2]], [[True], [True]], ["reference"] * 2, [(0,)]),
    ],
)
def test_a_flag_an_origin_and_a_key_belong_to_each_row(rows, flags, origin, keys) -> None:
    with pytest.raises(AssertionError):
        pack_rows(rows, flags, origin=origin, keys=keys, pad_id=0)
    with pytest.raises(ValueError, match="argument 2 is"):
        pack_rows([[1], [2]], [[True]], origin=["reference"] * 2, keys=[(0,), (1,)], pad_id=0)


# The shape hook.


def test_the_hook_refuses_a_function_two_tensors_whose_shapes_do_not_fit() -> None:
    target, student = torch.zeros(2, 3).log_softmax(-1), torch.zeros(2, 4).log_softmax(-1)
    with pytest.raises(jaxtyping.TypeCheckError, match="student_logp"):
        ForwardKL()(target_logp=target, student_logp=student)


def test_the_hook_refuses_a_record_whose_tensors_do_not_fit() -> None:
    good = packed()
    with pytest.raises(jaxtyping.TypeCheckError, match="is_response"):
        dataclasses.replace(good, is_response=good.is_response[:, :2])
    with pytest.raises(jaxtyping.TypeCheckError, match="attended"):
        dataclasses.replace(good, attended=good.attended.long())


def test_the_hook_refuses_states_without_a_position_axis() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="states"):
        predicting_states(torch.zeros(3, 8), scored_tokens(packed()))
