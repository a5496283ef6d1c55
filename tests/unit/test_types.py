"""The tensor records, and that a tensor of the wrong shape does not get through in the suite."""

from __future__ import annotations

import dataclasses

import jaxtyping
import pytest
import torch

from limbeck.losses.divergences import ForwardKL
from limbeck.models.scoring import predicting_states, scored_tokens
from limbeck.types import Experience, Sequences, pack_rows


def packed() -> Sequences:
    return pack_rows(
        [[5, 6, 7], [8, 9], [4]],
        [[False, True, True], [False, True], [False]],
        origin=["reference", "student", "prompt"],
        keys=[(0, 0), (0, 1), ("validation", "a")],
        pad_id=0,
    )


def test_rows_keep_their_origin_and_key_and_lose_their_experience() -> None:
    sequences = dataclasses.replace(packed(), experience=Experience(behaviour_logp=torch.zeros(3)))
    chosen = sequences.rows([2, 1])
    assert chosen.origin == ("prompt", "student")
    assert chosen.keys == (("validation", "a"), (0, 1))
    assert chosen.tokens.tolist() == [[4, 0], [8, 9]]
    assert chosen.experience is None
    assert sequences.to("cpu").experience is sequences.experience


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
