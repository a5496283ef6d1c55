"""What is equal in the limit is equal in code, to 1e-6: losses that end in each other, value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from clip_kit import scores_of
from torch import Tensor

from limbeck.losses import DACKL, DIVERGENCES, Divergence, FixedBounds, ForwardKL, Match, NucleusTarget, TopKTarget
from limbeck.losses.fused import HiddenView, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import TokenScores, TokenTerm

FORWARD, REVERSE = DIVERGENCES["forward-kl"](), DIVERGENCES["reverse-kl"]()
NEAR = 1e-9
LIMITS: dict[str, tuple[Divergence, Divergence, float]] = {
    "skew KL, alpha to 0": (DIVERGENCES["skew-forward-kl"](alpha=NEAR), FORWARD, 1.0),
    "skew reverse KL, alpha to 0": (DIVERGENCES["skew-reverse-kl"](alpha=NEAR), REVERSE, 1.0),
    "JSD / beta, beta to 0": (DIVERGENCES["jsd"](beta=NEAR), FORWARD, NEAR),
    "JSD / (1 - beta), beta to 1": (DIVERGENCES["jsd"](beta=1 - NEAR), REVERSE, NEAR),
    "symmetric KL, share to 0": (DIVERGENCES["symmetric-kl"](reverse_share=NEAR), FORWARD, 1.0),
    "symmetric KL, share to 1": (DIVERGENCES["symmetric-kl"](reverse_share=1 - NEAR), REVERSE, 1.0),
}
ENDS: dict[str, tuple[Divergence, Divergence]] = {
    "skew KL, alpha 0": (DIVERGENCES["skew-forward-kl"](alpha=0), FORWARD),
    "skew reverse KL, alpha 0": (DIVERGENCES["skew-reverse-kl"](alpha=0), REVERSE),
    "JSD, beta 0": (DIVERGENCES["jsd"](beta=0), FORWARD),
    "JSD, beta 1": (DIVERGENCES["jsd"](beta=1), REVERSE),
    "symmetric KL, share 0": (DIVERGENCES["symmetric-kl"](reverse_share=0), FORWARD),
    "symmetric KL, share 1": (DIVERGENCES["symmetric-kl"](reverse_share=1), REVERSE),
}


def value_and_slope(loss: Callable[[TokenScores], Tensor], scores: TokenScores) -> Iterator[Tensor]:
    """The loss, and its gradient by the student's logits."""
    logits = scores.student_logp.detach().requires_grad_()
    student_logp = logits.log_softmax(-1)
    value = loss(TokenScores(student_logp=student_logp, target_logp=scores.target_logp, tokens=scores.tokens))
    yield value.detach()
    yield torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("V", [2, 40, 500])
def test_near_the_end_a_family_is_its_limit(name: str, V: int) -> None:
    near, limit, scale = LIMITS[name]
    scores = scores_of(4, V)
    found = value_and_slope(lambda s: near(target_logp=s.target_logp, student_logp=s.student_logp) / scale, scores)
    expected = value_and_slope(lambda s: limit(target_logp=s.target_logp, student_logp=s.student_logp), scores)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ENDS)
def test_at_the_end_a_family_is_its_limit_bit_for_bit(name: str) -> None:
    end, limit = ENDS[name]
    for dtype in (torch.float32, torch.float64):
        scores = scores_of(4, 40, dtype=dtype)
        found = value_and_slope(lambda s: end(target_logp=s.target_logp, student_logp=s.student_logp), scores)
        expected = value_and_slope(lambda s: limit(target_logp=s.target_logp, student_logp=s.student_logp), scores)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["skew-forward-kl", "skew-reverse-kl"])
def test_a_skew_of_1_is_0_and_the_way_to_it_is_continuous(name: str) -> None:
    scores = scores_of(3, 20)
    for alpha, most in ((1 - 1e-6, 1e-5), (1.0, 0.0)):
        skew = DIVERGENCES[name](alpha=alpha)
        for found in value_and_slope(
            lambda s, skew=skew: skew(target_logp=s.target_logp, student_logp=s.student_logp), scores
        ):
            assert found.abs().max() <= most


@pytest.mark.parametrize("name", ["jsd", "skew-forward-kl", "skew-reverse-kl", "symmetric-kl"])
@pytest.mark.parametrize("share", [-1e-9, 1 + 1e-9])
def test_beyond_the_ends_there_is_nothing(name: str, share: float) -> None:
    field = {"jsd": "beta", "symmetric-kl": "reverse_share"}.get(name, "alpha")
    with pytest.raises(ValueError, match=field):
        DIVERGENCES[name](**{field: share})


KD_AGAIN: dict[str, TokenTerm] = {
    **{
        f"dac-kl {coordinate} {features} {gates} {normalise}": DACKL(
            clip=FixedBounds(), coordinate=coordinate, features=features, gates=gates, normalise=normalise
        ).build(vocabulary_size=700, generator=torch.Generator())
        for coordinate, features, gates, normalise in (
            ("mass", "topk", "soft", "teacher"),
            ("mass", "full", "soft", "both"),
            ("rank", "topk", "soft", "rest"),
            ("rank", "full", "hard", "none"),
            ("value", "topk", "straight-through", "teacher"),
        )
    },
    "top-k of all classes": Match(ForwardKL(), target=TopKTarget(k=700)),
    "nucleus of all the mass": Match(ForwardKL(), target=NucleusTarget(p=1.0)),
    "temperature 1": Match(ForwardKL(), temperature_square_scaled=1.0),
}


@pytest.mark.parametrize("name", KD_AGAIN)
def test_open_gates_and_whole_targets_are_distillation_through_the_head_in_chunks(name: str) -> None:
    """In float32, over hidden states, by value and by the gradients of states and head."""
    noise = torch.Generator().manual_seed(0)
    teacher = HiddenView(
        hidden=torch.randn(23, 8, generator=noise), head=Head(weight=torch.randn(700, 8, generator=noise), size=700)
    )
    hidden, weight = torch.randn(23, 8, generator=noise), torch.randn(700, 8, generator=noise) * 0.5
    tokens = torch.randint(700, (23,), generator=noise)

    def taken(term: TokenTerm, chunk: int) -> tuple[Tensor, ...]:
        leaves = [each.clone().requires_grad_() for each in (hidden, weight)]
        result = fused_loss(
            leaves[0], head=Head(weight=leaves[1], size=700), tokens_N=tokens, views=[teacher], terms={"token": term},
            weights={"token": torch.full((23,), 1 / 23)}, scales={"token": 1.0}, chunk=chunk,
        )  # fmt: skip
        return result.loss.detach(), *torch.autograd.grad(result.loss, leaves)

    for chunk in (5, 64):
        for ours, theirs in zip(taken(KD_AGAIN[name], chunk), taken(Match(ForwardKL()), 23), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
