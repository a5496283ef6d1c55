"""What MiniLLM (arXiv 2306.08543) must hold to, each as one check without arguments."""

from __future__ import annotations

import dataclasses

import torch

from limbeck.losses.divergences import ReverseKL
from limbeck.losses.fused import HiddenView, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import TokenScores
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.types import Experience, pack_rows
from reference import minillm

_V = 5


def _logits(count: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, _V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _drawn(share: float = 0.4) -> tuple[TokenScores, Experience]:
    """Seven tokens that teacher and student drew together, from a student that has moved since."""
    target, old = (_logits(7, seed=seed).log_softmax(-1) for seed in (1, 2))
    tokens = torch.tensor([0, 4, 2, 1, 3, 0, 2])
    behaviour = (share * target.exp() + (1 - share) * old.exp()).log()
    columns = [logp.gather(1, tokens[:, None]).squeeze(1) for logp in (behaviour, old, target)]
    experience = Experience(behaviour_logp=columns[0], student_logp=columns[1], teacher_logp=columns[2])
    moved = (old + 0.3 * _logits(7, seed=3)).log_softmax(-1)
    return TokenScores(student_logp=moved, target_logp=target, tokens=tokens), experience


def the_single_step_is_the_whole_reverse_kl() -> None:
    scores, experience = _drawn()
    ready = dataclasses.replace(experience, advantage=torch.zeros(7, dtype=torch.float64))
    found = ReverseKLGradient()(dataclasses.replace(scores, experience=ready))
    assert scores.target_logp is not None
    expected = ReverseKL()(target_logp=scores.target_logp, student_logp=scores.student_logp)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def a_return_is_what_follows_its_token_in_its_own_row() -> None:
    _, experience = _drawn()
    found = ReverseKLGradient().returns(experience, row_lengths=torch.tensor([4, 3]))
    assert experience.teacher_logp is not None
    assert experience.student_logp is not None
    rewards = (experience.teacher_logp - experience.student_logp).tolist()
    expected = [value for row in (rewards[:4], rewards[4:]) for value in minillm.returns_of_what_follows(row)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def an_advantage_gives_no_gradient() -> None:
    scores, experience = _drawn()
    leaf = torch.ones(7, dtype=torch.float64, requires_grad=True)
    logp = scores.student_logp.clone().requires_grad_()
    given = dataclasses.replace(scores, student_logp=logp, experience=dataclasses.replace(experience, advantage=leaf))
    ReverseKLGradient()(given).sum().backward()
    assert leaf.grad is None


def each_token_learns_from_its_own_experience() -> None:
    scores, experience = _drawn()
    term = ReverseKLGradient()
    ready = term.prepared(experience, row_lengths=torch.tensor([4, 3]))
    assert scores.target_logp is not None
    result = fused_loss(
        scores.student_logp,
        head=Head(weight=None, size=_V),
        tokens_N=scores.tokens,
        views=[HiddenView(hidden=scores.target_logp, head=Head(weight=None, size=_V))],
        terms={"token": term},
        weights={"token": torch.arange(7, dtype=torch.float64)},
        scales={"token": 1.0},
        chunk=2,
        experience=ready,
    )
    whole = term(dataclasses.replace(scores, experience=ready)) @ torch.arange(7, dtype=torch.float64)
    torch.testing.assert_close(result.loss, whole, rtol=0, atol=1e-9)


def experience_goes_with_its_row() -> None:
    flags = [[False, True, True], [False, True]]
    rows = pack_rows([[5, 6, 7], [8, 9]], flags, origin=["mixed"] * 2, keys=[(0, 0), (0, 1)], pad_id=0)
    rows = dataclasses.replace(rows, experience=Experience(behaviour_logp=torch.tensor([1.0, 2.0, 3.0])))
    turned = rows.rows([1, 0]).experience
    assert turned is not None
    assert turned.behaviour_logp.tolist() == [3.0, 1.0, 2.0]


def the_loss_is_clipped_from_above_alone() -> None:
    scores, experience = _drawn()
    term = ReverseKLGradient(single_step=False)
    ready = term.prepared(experience, row_lengths=torch.tensor([4, 3]))
    measured = term.measured(dataclasses.replace(scores, experience=ready)).values
    assert ready.advantage is not None
    unclipped = -measured["ratio"] * ready.advantage
    assert bool((measured["long_term"] >= unclipped - 1e-12).all())
    assert bool((measured["long_term"] > unclipped + 1e-6).any())


CHECKS = (
    the_single_step_is_the_whole_reverse_kl,
    a_return_is_what_follows_its_token_in_its_own_row,
    an_advantage_gives_no_gradient,
    each_token_learns_from_its_own_experience,
    experience_goes_with_its_row,
    the_loss_is_clipped_from_above_alone,
)
