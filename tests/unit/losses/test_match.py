"""Token terms and the registries they are named in."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from limbeck import losses
from limbeck.errors import ConfigError, UnknownName
from limbeck.losses import (
    DIVERGENCES,
    JSD,
    TOKEN_TERMS,
    ForwardKL,
    Likelihood,
    Match,
    TokenScores,
    UniformWeight,
)


@dataclass(frozen=True)
class Certain:
    """A weight of a user's own: 1 where the student gives its best token most of the mass, else 0."""

    least: float = 0.5

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        return (scores.student_logp.exp().amax(dim=1) >= self.least).to(scores.student_logp.dtype)


def some_scores(*, teacher: bool = True) -> TokenScores:
    noise = torch.Generator().manual_seed(0)
    student, target = (torch.randn(4, 6, generator=noise).log_softmax(-1) for _ in range(2))
    return TokenScores(student_logp=student, target_logp=target if teacher else None, tokens=torch.tensor([0, 5, 2, 2]))


@dataclass(frozen=True)
class Shaped:
    """A divergence of a user's own whose result has another shape than [n]."""

    shape: str

    def __call__(self, *, target_logp: Tensor, student_logp: Tensor) -> Tensor:
        gap_nV = target_logp.exp() * (target_logp - student_logp)
        return {"[]": gap_nV.sum(-1).mean(), "[4, 1]": gap_nV.sum(-1, keepdim=True), "[4, 6]": gap_nV}[self.shape]


@pytest.mark.parametrize("shape", ["[]", "[4, 1]", "[4, 6]"])
def test_a_divergence_that_is_not_one_number_a_token_is_refused(shape: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"a divergence of the method gave shape {shape} for 4 tokens")):
        Match(divergence=Shaped(shape=shape))(some_scores())


@dataclass(frozen=True)
class _Halfway:
    """A target of a user's own that leans on the student."""

    needs_teacher = True

    def __call__(self, scores: TokenScores) -> Tensor:
        assert scores.target_logp is not None
        return torch.logaddexp(scores.target_logp, scores.student_logp) - math.log(2)


def test_no_gradient_flows_into_a_target_whatever_the_divergence_does() -> None:
    scores = some_scores()
    expected = -_Halfway()(scores).exp()
    scores.student_logp.requires_grad_()
    for divergence in (ForwardKL(), _Open()):
        loss = Match(divergence=divergence, target=_Halfway())(scores).sum()
        (gradient,) = torch.autograd.grad(loss, scores.student_logp)
        torch.testing.assert_close(gradient, expected)


@dataclass(frozen=True)
class _Open:
    """Forward KL that leaves its target attached."""

    def __call__(self, *, target_logp: Tensor, student_logp: Tensor) -> Tensor:
        return (target_logp.exp() * (target_logp - student_logp)).sum(-1)


def test_match_is_the_divergence_of_the_teacher() -> None:
    scores = some_scores()
    expected = JSD(beta=0.3)(target_logp=scores.target_logp, student_logp=scores.student_logp)
    assert torch.equal(Match(divergence=JSD(beta=0.3))(scores), expected)


def test_a_weight_multiplies_and_is_a_constant() -> None:
    scores = some_scores()
    scores.student_logp.requires_grad_()
    plain = Match(divergence=ForwardKL())(scores)
    weighted = Match(divergence=ForwardKL(), weight=Certain(least=0.4))(scores)
    factor = Certain(least=0.4)(scores).detach()
    assert 0 < factor.sum() < 4
    assert torch.equal(weighted, factor * plain)
    (gradient,) = torch.autograd.grad(weighted.sum(), scores.student_logp)
    assert torch.equal(gradient, -factor[:, None] * scores.target_logp.exp())


def test_the_likelihood_needs_no_teacher_and_the_match_does() -> None:
    scores = some_scores(teacher=False)
    picked = scores.student_logp[torch.arange(4), scores.tokens]
    assert torch.equal(Likelihood()(scores), -picked)
    assert not Likelihood().needs_teacher
    assert Match(divergence=ForwardKL()).needs_teacher
    with pytest.raises(ConfigError, match=r"models\.teacher"):
        Match(divergence=ForwardKL())(scores)


def test_half_precision_likelihood_is_raised() -> None:
    scores = some_scores()
    half = TokenScores(student_logp=scores.student_logp.bfloat16(), target_logp=None, tokens=scores.tokens)
    assert Likelihood()(half).dtype == torch.float32
    assert UniformWeight()(half).dtype == torch.float32


def test_parts_are_frozen_and_closed() -> None:
    with pytest.raises(AttributeError):
        JSD().beta = 0.1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="betta"):
        DIVERGENCES["jsd"](betta=0.1)


def test_registries_hold_the_agreed_names_and_keep_what_is_added() -> None:
    assert list(DIVERGENCES) == [
        "forward-kl",
        "reverse-kl",
        "symmetric-kl",
        "jsd",
        "tvd",
        "skew-forward-kl",
        "skew-reverse-kl",
    ]
    assert list(TOKEN_TERMS) == ["likelihood", "match", "dac-kl", "reverse-kl-gradient"]
    with pytest.raises(UnknownName, match="reverse-kl"):
        DIVERGENCES["reverse_kl"]
    losses.TOKEN_WEIGHTS.add("certain", Certain)
    try:
        assert losses.TOKEN_WEIGHTS["certain"] is Certain
    finally:
        del losses.TOKEN_WEIGHTS["certain"]


def test_every_public_name_loads_and_an_unknown_one_does_not() -> None:
    assert all(getattr(losses, name) is not None for name in dir(losses))
    with pytest.raises(AttributeError, match="nothing"):
        losses.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_leaves_torch_alone() -> None:
    check = "import sys, limbeck.losses; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
