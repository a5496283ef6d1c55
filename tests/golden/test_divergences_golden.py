"""Divergences and the likelihood against plain Python, in float64, on random and on awkward rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from limbeck.losses import DIVERGENCES, Divergence, Likelihood, TokenScores
from reference import equations

Reference = Callable[[list[float], list[float]], float]

CASES: dict[str, tuple[Divergence, Reference]] = {
    "forward-kl": (DIVERGENCES["forward-kl"](), equations.forward_kl),
    "reverse-kl": (DIVERGENCES["reverse-kl"](), equations.reverse_kl),
    "tvd": (DIVERGENCES["tvd"](), equations.total_variation),
    **{
        f"symmetric-kl {share}": (
            DIVERGENCES["symmetric-kl"](reverse_share=share),
            lambda p, q, share=share: equations.symmetric_kl(p, q, share),
        )
        for share in (0.0, 0.5, 0.9, 1.0)
    },
    **{
        f"jsd {beta}": (DIVERGENCES["jsd"](beta=beta), lambda p, q, beta=beta: equations.jsd(p, q, beta))
        for beta in (0.0, 1e-6, 0.1, 0.5, 0.9, 1.0)
    },
    **{
        f"{name} {alpha}": (
            DIVERGENCES[name](alpha=alpha),
            lambda p, q, alpha=alpha, reference=reference: reference(p, q, alpha),
        )
        for name, reference in (
            ("skew-forward-kl", equations.skew_forward_kl),
            ("skew-reverse-kl", equations.skew_reverse_kl),
        )
        for alpha in (0.0, 1e-6, 0.1, 0.5, 0.99)
    },
}
case = pytest.mark.parametrize(("divergence", "reference"), CASES.values(), ids=CASES.keys())


def logp(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def check(divergence: Divergence, reference: Reference, *, target_logp: Tensor, student_logp: Tensor) -> None:
    value = divergence(target_logp=target_logp, student_logp=student_logp).tolist()
    expected = [reference(p, q) for p, q in zip(target_logp.exp().tolist(), student_logp.exp().tolist(), strict=True)]
    assert value == pytest.approx(expected, rel=1e-10, abs=1e-10)


@case
@pytest.mark.parametrize(("rows", "vocabulary", "sharpness"), [(5, 2, 1.0), (4, 37, 1.0), (3, 211, 4.0), (3, 50, 20.0)])
def test_random_rows(
    divergence: Divergence, reference: Reference, rows: int, vocabulary: int, sharpness: float
) -> None:
    noise = torch.Generator().manual_seed(vocabulary)
    target, student = (
        (sharpness * torch.randn(rows, vocabulary, generator=noise, dtype=torch.float64)).log_softmax(-1)
        for _ in range(2)
    )
    check(divergence, reference, target_logp=target, student_logp=student)


@case
@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.25] * 4, [0.25] * 4),
        ([0.25] * 4, [0.97, 0.01, 0.01, 0.01]),
        ([1 - 1e-30, 1e-30], [0.5, 0.5]),
        ([0.5, 0.5], [1 - 1e-30, 1e-30]),
        ([1.0, 1e-30, 1e-30], [1e-30, 1e-30, 1.0]),
        ([1.0, 1e-300], [1e-300, 1.0]),
        ([0.3, 0.7, 0.0], [0.6, 0.4, 0.0]),
        ([0.0, 1.0, 0.0], [0.0, 1.0, 0.0]),
        ([1.0, 0.0], [0.4, 0.6]),
        ([0.4, 0.6], [1.0, 0.0]),
        ([1.0, 0.0], [0.0, 1.0]),
        ([0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]),
    ],
)
def test_awkward_rows(divergence: Divergence, reference: Reference, p: list[float], q: list[float]) -> None:
    check(divergence, reference, target_logp=logp([p]), student_logp=logp([q]))


@case
def test_in_float32_small_divergences_keep_their_size(divergence: Divergence, reference: Reference) -> None:
    noise = torch.Generator().manual_seed(3)
    target = torch.randn(4, 1000, generator=noise).log_softmax(-1)
    student = (target + 0.05 * torch.randn(4, 1000, generator=noise)).log_softmax(-1)
    exact = target.double().exp().tolist(), student.double().exp().tolist()
    expected = [reference(p, q) for p, q in zip(*exact, strict=True)]
    value = divergence(target_logp=target, student_logp=student).tolist()
    # The rounding of the float32 log-probabilities leaves each sum of probabilities some 1e-6 off 1.
    assert value == pytest.approx(expected, rel=1e-4, abs=2e-6)


def test_the_likelihood_of_each_token() -> None:
    q = [[0.7, 0.2, 0.1], [1e-30, 1.0, 0.0], [0.0, 0.5, 0.5]]
    tokens = [1, 0, 0]
    value = Likelihood()(TokenScores(student_logp=logp(q), target_logp=None, tokens=torch.tensor(tokens)))
    expected = [equations.likelihood(row, token) for row, token in zip(q, tokens, strict=True)]
    assert value.tolist() == pytest.approx(expected, rel=1e-12)
    assert value[2].item() == math.inf
