"""MiniLLM's term against the paper in plain Python, by hand, and as the gradient of KL(q‖p) over whole responses."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_gradient_kit import V, drawn_case, normal, scores_of

from limbeck.errors import ConfigError
from limbeck.losses import Match, ReverseKL, ReverseKLGradient, walking
from limbeck.losses.correlation import Correlation
from limbeck.losses.fused import HiddenView, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import TokenScores
from limbeck.losses.policy_gradient import importance
from limbeck.types import Experience
from reference import minillm


def _expected(case: dict[str, Any], logits: torch.Tensor, *, share: float) -> list[float]:
    """The loss of each token in plain Python, with its own advantages."""
    p, q, old = (each.tolist() for each in (case["target"].exp(), logits.softmax(-1), case["old"].exp()))
    tokens, returns, first = case["tokens"].tolist(), [], 0
    for length in case["lengths"].tolist():
        part = slice(first, first + length)
        returns.append(minillm.returns_of_what_follows(minillm.rewards(p[part], old[part], tokens[part])))
        first += length
    advantages = [value for row in minillm.whitened(returns) for value in row]
    return [
        minillm.token_loss(p_t=p_t, q_t=q_t, old_t=o_t, token=y, share=share, advantage=a, clip=0.2)
        for p_t, q_t, o_t, y, a in zip(p, q, old, tokens, advantages, strict=True)
    ]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("lengths", [[6], [1, 4, 2], [3, 0, 5]])
def test_the_loss_is_that_of_the_paper(lengths: list[int], share: float) -> None:
    case, term = drawn_case(lengths, share=share), ReverseKLGradient()
    ready = term.prepared(case["experience"], row_lengths=case["lengths"])
    loss = term(scores_of(case, ready))
    torch.testing.assert_close(
        loss, torch.tensor(_expected(case, case["logits"], share=share), dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_the_gradient_is_that_of_the_paper_by_finite_differences() -> None:
    case, term = drawn_case([4, 3]), ReverseKLGradient()
    ready = term.prepared(case["experience"], row_lengths=case["lengths"])
    logits = case["logits"].clone().requires_grad_()
    term(scores_of(case, ready, logits)).sum().backward()
    assert logits.grad is not None
    step = 1e-6
    for n, v in itertools.product(range(7), range(V)):
        shifted = [case["logits"].clone() for _ in range(2)]
        shifted[0][n, v] += step
        shifted[1][n, v] -= step
        above, below = (sum(_expected(case, each, share=0.2)) for each in shifted)
        assert logits.grad[n, v].item() == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_the_single_step_is_the_full_reverse_kl() -> None:
    case = drawn_case([5, 2])
    ready = ReverseKLGradient().prepared(case["experience"], row_lengths=case["lengths"])
    alone = Match(ReverseKL())(scores_of(case, None))
    assert torch.equal(ReverseKLGradient()(scores_of(case, None)), alone)
    torch.testing.assert_close(
        ReverseKLGradient().measured(scores_of(case, ready)).values["single_step"], alone, rtol=0, atol=1e-6
    )
    silent = dataclasses.replace(ready, advantage=torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(ReverseKLGradient()(scores_of(case, silent)), alone, rtol=0, atol=1e-6)
    without = ReverseKLGradient(single_step=False)
    both = without(scores_of(case, ready)) + alone
    torch.testing.assert_close(ReverseKLGradient()(scores_of(case, ready)), both, rtol=0, atol=1e-12)
    assert torch.equal(without(scores_of(case, None)), torch.zeros(7, dtype=torch.float64))


def test_a_half_is_raised_to_float32() -> None:
    case = drawn_case([3])
    ready = ReverseKLGradient().prepared(case["experience"], row_lengths=case["lengths"])
    scores = scores_of(case, ready.take(slice(None)))
    rounded = {name: getattr(scores, name).bfloat16() for name in ("student_logp", "target_logp")}
    half = dataclasses.replace(scores, **rounded)
    assert ReverseKLGradient()(half).dtype == torch.float32
    assert ReverseKLGradient(single_step=False)(half).dtype == torch.float32


# Importance weights and the clip.


@given(share=st.floats(0, 0.9), seed=st.integers(0, 50))
def test_no_weight_is_above_one_over_the_students_share(share: float, seed: int) -> None:
    weights = importance(drawn_case([8], share=share, seed=seed)["experience"])
    assert weights.max().item() <= 1 / (1 - share) + 1e-12


def test_without_a_teachers_share_every_weight_is_one() -> None:
    weights = importance(drawn_case([8], share=0.0)["experience"])
    torch.testing.assert_close(weights, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_weights_where_they_are_asked_for() -> None:
    case = drawn_case([6], share=0.5, drift=0.0)
    ready = ReverseKLGradient().prepared(case["experience"], row_lengths=case["lengths"])
    weights = importance(ready)
    measured = ReverseKLGradient().measured(scores_of(case, ready)).values
    torch.testing.assert_close(measured["ratio"], weights, rtol=1e-12, atol=0)
    plain = ReverseKLGradient(weigh_long_term=False).measured(scores_of(case, ready)).values
    torch.testing.assert_close(plain["ratio"], torch.ones(6, dtype=torch.float64), rtol=1e-12, atol=0)
    both = ReverseKLGradient(weigh_single_step=True).measured(scores_of(case, ready)).values
    torch.testing.assert_close(both["single_step"], weights * measured["single_step"], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [(1.1, 2.0, -2.2, 0), (1.5, 2.0, -2.4, 1), (0.5, 2.0, -1.0, 0), (1.5, -2.0, 3.0, 0), (0.5, -2.0, 1.6, 1)],
)
def test_the_clip_by_hand(ratio: float, advantage: float, loss: float, is_clipped: int) -> None:
    old, new = 0.4, 0.4 * ratio
    logits = torch.tensor([[new, 1 - new]], dtype=torch.float64).log().requires_grad_()
    then = torch.tensor([old], dtype=torch.float64).log()
    drawn = Experience(behaviour_logp=then, student_logp=then, advantage=torch.tensor([advantage], dtype=torch.float64))
    student_logp, tokens = logits.log_softmax(-1), torch.tensor([0])
    scores = TokenScores(student_logp=student_logp, target_logp=None, tokens=tokens, experience=drawn)
    measured = ReverseKLGradient(single_step=False).measured(scores)
    assert measured.loss.item() == pytest.approx(loss)
    assert measured.values["clipped"].item() == is_clipped
    measured.loss.sum().backward()
    assert logits.grad is not None
    # dℓ/dz_0 = −ρ·A·(1 − q(0)) where it is not clipped.
    assert logits.grad[0, 0].item() == pytest.approx(0 if is_clipped else -ratio * advantage * (1 - new))


def test_an_advantage_is_a_constant() -> None:
    case = drawn_case([4])
    ready = ReverseKLGradient().prepared(case["experience"], row_lengths=case["lengths"])
    assert ready.advantage is not None
    leaf = ready.advantage.clone().requires_grad_()
    logits = case["logits"].clone().requires_grad_()
    ReverseKLGradient()(scores_of(case, dataclasses.replace(ready, advantage=leaf), logits)).sum().backward()
    assert leaf.grad is None
    assert logits.grad is not None


# The whole: the gradient of KL(q‖p) over responses, in expectation.


def _sequence_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(q‖p) over all responses of length 3; logits by prefix in a tree: [1 + V + V², V]."""
    total = torch.zeros((), dtype=torch.float64)
    for response in itertools.product(range(V), repeat=3):
        nodes = [0, 1 + response[0], 1 + V + V * response[0] + response[1]]
        q = sum(student[n].log_softmax(-1)[y] for n, y in zip(nodes, response, strict=True))
        p = sum(teacher[n].log_softmax(-1)[y] for n, y in zip(nodes, response, strict=True))
        total = total + torch.as_tensor(q).exp() * (q - p)
    return total


@pytest.mark.parametrize("term", [ReverseKLGradient(), ReverseKLGradient(single_step=False)], ids=["split", "plain"])
def test_its_expected_gradient_is_that_of_the_kl_of_whole_responses(term: ReverseKLGradient) -> None:
    """With nothing normalised, whitened or clipped, at the weights that drew: Eq. 2, and with the single step Eq. 3."""
    plain = dataclasses.replace(term, length_normalised=False, whitened=False)
    student, teacher = normal(1 + V + V * V, V, seed=1).requires_grad_(), normal(1 + V + V * V, V, seed=2)
    (exact,) = torch.autograd.grad(_sequence_kl(student, teacher), student)
    total = torch.zeros((), dtype=torch.float64)
    for response in itertools.product(range(V), repeat=3):
        nodes = torch.tensor([0, 1 + response[0], 1 + V + V * response[0] + response[1]])
        q, p, tokens = student[nodes].log_softmax(-1), teacher[nodes].log_softmax(-1), torch.tensor(response)
        old, target = (each.detach().gather(1, tokens[:, None]).squeeze(1) for each in (q, p))
        drawn = Experience(behaviour_logp=old, student_logp=old, teacher_logp=target)
        ready = plain.prepared(drawn, row_lengths=torch.tensor([3]))
        scores = TokenScores(student_logp=q, target_logp=p, tokens=tokens, experience=ready)
        total = total + old.sum().exp() * plain(scores).sum()
    (found,) = torch.autograd.grad(total, student)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


# Through the fused walk.


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_chunks_and_tiles_get_their_own_experience(
    chunk: int, with_pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "_TILE_NUMBERS", 3 * V)
    case, term = drawn_case([7, 4]), ReverseKLGradient()
    ready = term.prepared(case["experience"], row_lengths=case["lengths"])
    weight_N = torch.rand(11, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    hidden = case["logits"].clone().requires_grad_()
    result = fused_loss(
        hidden,
        head=Head(weight=None, size=V),
        tokens_N=case["tokens"],
        views=[HiddenView(hidden=case["target"], head=Head(weight=None, size=V))],
        terms={"token": term},
        weights={"token": weight_N, "span": torch.zeros(2, dtype=torch.float64)},
        scales={"token": 0.7, "span": 1.0},
        chunk=chunk,
        pairs_P=torch.tensor([2, 7]) if with_pairs else None,
        pair_terms={"span": Correlation()} if with_pairs else None,
        experience=ready,
    )
    result.loss.backward()
    dense = case["logits"].clone().requires_grad_()
    measured = term.measured(scores_of(case, ready, dense))
    expected = 0.7 * (measured.loss * weight_N).sum()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hidden.grad, dense.grad, rtol=1e-10, atol=1e-12)
    for name, value_n in measured.values.items():
        torch.testing.assert_close(result.measures[f"token/{name}"], (value_n * weight_N).sum(), rtol=1e-12, atol=1e-12)


def test_a_fused_call_without_experience_measures_nothing() -> None:
    case = drawn_case([4])
    result = fused_loss(
        case["logits"],
        head=Head(weight=None, size=V),
        tokens_N=case["tokens"],
        views=[HiddenView(hidden=case["target"], head=Head(weight=None, size=V))],
        terms={"token": ReverseKLGradient()},
        weights={"token": torch.full((4,), 0.25, dtype=torch.float64)},
        scales={"token": 1.0},
        chunk=3,
    )
    alone = Match(ReverseKL())(scores_of(case, None)).mean()
    torch.testing.assert_close(result.loss, alone, rtol=0, atol=1e-6)
    assert result.measures.keys() == {f"token/{name}" for name in ReverseKLGradient().measures}
    assert all(float(value) == 0 for value in result.measures.values())


# What it refuses.


def test_a_term_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="there is nothing to weigh"):
        ReverseKLGradient(single_step=False, weigh_single_step=True)
    for fields in ({"clip": 0}, {"clip": 1}, {"gamma": 1.1}, {"reward_scale": 0}, {"reward_limit": 0}, {"beta": 1}):
        with pytest.raises((ValueError, TypeError)):
            ReverseKLGradient(**fields)
    with pytest.raises(ConfigError, match="no teacher was given"):
        ReverseKLGradient()(dataclasses.replace(scores_of(drawn_case([2]), None), target_logp=None))


def test_a_collection_that_was_not_read_or_prepared_is_no_experience() -> None:
    case = drawn_case([2])
    with pytest.raises(AssertionError, match="prepared before"):
        ReverseKLGradient()(scores_of(case, case["experience"]))
    unread = Experience(behaviour_logp=case["experience"].behaviour_logp)
    with pytest.raises(AssertionError, match="read before"):
        ReverseKLGradient().prepared(unread, row_lengths=case["lengths"])
