"""Returns and advantages: by hand, against loops, and whatever the rows are."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_gradient_kit import drawn_case

from limbeck.losses import ReverseKLGradient
from limbeck.types import Experience
from reference import minillm

_REWARDS = torch.tensor([1.0, -2.0, 4.0, 8.0])


def _drawn(rewards: torch.Tensor) -> Experience:
    zeros = torch.zeros(len(rewards))
    return Experience(behaviour_logp=zeros, student_logp=zeros, teacher_logp=rewards)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [10 / 3, 6.0, 8.0, 0.0]),
        ({"length_normalised": False}, [10.0, 12.0, 8.0, 0.0]),
        ({"length_normalised": False, "gamma": 0.5}, [2.0, 8.0, 8.0, 0.0]),
        ({"gamma": 0.5}, [2 / 3, 4.0, 8.0, 0.0]),
        ({"gamma": 0.0, "length_normalised": False}, [-2.0, 4.0, 8.0, 0.0]),
        ({"single_step": False}, [11 / 4, 10 / 3, 6.0, 8.0]),
        ({"returns_from": "own"}, [11 / 4, 10 / 3, 6.0, 8.0]),
        ({"single_step": False, "returns_from": "next"}, [10 / 3, 6.0, 8.0, 0.0]),
        ({"single_step": False, "length_normalised": False, "gamma": 0.5}, [2.0, 2.0, 8.0, 8.0]),
        ({"reward_scale": 2.0}, [20 / 3, 12.0, 16.0, 0.0]),
        ({"reward_scale": 2.0, "reward_limit": 8.0}, [4.0, 8.0, 8.0, 0.0]),
    ],
)
def test_returns_by_hand(fields: dict[str, Any], expected: list[float]) -> None:
    found = ReverseKLGradient(**fields).returns(_drawn(_REWARDS), row_lengths=torch.tensor([4]))
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_return_ends_with_its_row() -> None:
    lengths = torch.tensor([2, 0, 1, 1])
    found = ReverseKLGradient().returns(_drawn(_REWARDS), row_lengths=lengths)
    assert found.tolist() == [-2.0, 0.0, 0.0, 0.0]
    own = ReverseKLGradient(single_step=False).returns(_drawn(_REWARDS), row_lengths=lengths)
    assert own.tolist() == [-0.5, -2.0, 4.0, 8.0]


@given(
    rows=st.lists(st.lists(st.floats(-5, 5), min_size=0, max_size=6), min_size=1, max_size=4),
    gamma=st.floats(0, 1),
    normalised=st.booleans(),
    is_own=st.booleans(),
)
def test_returns_are_those_of_the_loops(rows: Any, gamma: float, normalised: bool, is_own: bool) -> None:
    term = ReverseKLGradient(
        gamma=gamma, length_normalised=normalised, returns_from="own" if is_own else "next", single_step=not is_own
    )
    flat = torch.tensor([r for row in rows for r in row], dtype=torch.float64)
    experience = dataclasses.replace(_drawn(flat), student_logp=torch.zeros(len(flat), dtype=torch.float64))
    lengths = torch.tensor([len(row) for row in rows])
    loops = minillm.returns_with_the_own_reward if is_own else minillm.returns_of_what_follows
    expected = [loops(row, gamma=gamma, normalised=normalised) for row in rows]
    found = term.returns(experience, row_lengths=lengths).tolist()
    assert found == pytest.approx([value for row in expected for value in row], abs=1e-9)
    if len(flat):
        ready = term.prepared(experience, row_lengths=lengths).advantage
        assert ready is not None
        whitened = [value for row in minillm.whitened(expected) for value in row]
        assert ready.tolist() == pytest.approx(whitened, abs=1e-6)


def test_advantages_are_centred_and_scaled_over_all_tokens() -> None:
    case = drawn_case([9, 3, 4])
    ready = ReverseKLGradient().prepared(case["experience"], row_lengths=case["lengths"])
    assert ready.advantage is not None
    assert ready.advantage.mean().item() == pytest.approx(0, abs=1e-12)
    assert ready.advantage.square().mean().item() == pytest.approx(1, abs=1e-6)
    plain = ReverseKLGradient(whitened=False)
    unscaled = plain.prepared(case["experience"], row_lengths=case["lengths"]).advantage
    assert torch.equal(unscaled, plain.returns(case["experience"], row_lengths=case["lengths"]))


@pytest.mark.parametrize("lengths", [[], [0, 0], [1], [1, 1]])
def test_nothing_to_tell_apart_gives_advantages_of_zero(lengths: list[int]) -> None:
    case, term = drawn_case(lengths), ReverseKLGradient()
    ready = term.prepared(case["experience"], row_lengths=case["lengths"])
    assert ready.advantage is not None
    assert ready.advantage.tolist() == [0.0] * sum(lengths)
    summary = term.summary(case["experience"], row_lengths=case["lengths"])
    assert all(math.isfinite(value) for value in summary.values())
