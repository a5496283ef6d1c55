"""What must hold of DAC-KL's gates, sums and objectives, and of partial targets; see `invariants.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from limbeck.losses.clip_networks import Bounds, FixedBounds
from limbeck.losses.dac import DACKL, ClippedKL
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Match, TokenScores
from limbeck.losses.targets import NucleusTarget, TopKTarget
from reference import equations, mgsr

V, LOWER, UPPER = 11, -1.5, 0.6


class _Said(nn.Module):
    """Bounds that are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.tensor([LOWER], dtype=torch.float64))
        self.upper = nn.Parameter(torch.tensor([UPPER], dtype=torch.float64))

    def forward(self, features: torch.Tensor) -> Bounds:
        return Bounds(lower=self.lower.expand(len(features)), upper=self.upper.expand(len(features)))


def _scores() -> TokenScores:
    generator = torch.Generator().manual_seed(0)
    target, student = (torch.randn(4, V, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    # The last id is not shared.
    target[:, -1] = student[:, -1] = -torch.inf
    return TokenScores(
        student_logp=student.log_softmax(-1).requires_grad_(),
        target_logp=target.log_softmax(-1),
        tokens=torch.zeros(4, dtype=torch.long),
    )


def _rows(scores: TokenScores) -> list[tuple[list[float], list[float]]]:
    assert scores.target_logp is not None
    pairs = zip(scores.target_logp.exp().tolist(), scores.student_logp.exp().tolist(), strict=True)
    return [(p[:-1], q[:-1]) for p, q in pairs]


def _term(**fields: Any) -> ClippedKL:
    part = DACKL(clip=FixedBounds(), **fields)
    term = part.build(vocabulary_size=V, generator=torch.Generator()).double()
    term.network = _Said()
    return term


def _close(found: list[float], expected: list[float]) -> bool:
    return all(abs(a - b) < 1e-9 * max(1.0, abs(b)) for a, b in zip(found, expected, strict=True))


def every_reading_of_the_clip_is_that_of_the_equations() -> None:
    """Eq. 7-8 by mass and by rank, hard and soft, with and without the target class, in the four normalisations."""
    scores = _scores()
    for coordinate in ("mass", "rank"):
        for gates in ("soft", "hard"):
            for parts in ("both", "dense"):
                for normalise in ("none", "both", "rest", "teacher"):
                    term = _term(coordinate=coordinate, gates=gates, parts=parts, normalise=normalise, top=4)
                    expected = [
                        mgsr.dac_kl(
                            p, q, lower=LOWER, upper=UPPER, top=4, coordinate=coordinate, is_hard=gates == "hard",
                            parts=parts, normalise=normalise,
                        )
                        for p, q in _rows(scores)
                    ]  # fmt: skip
                    assert _close(term(scores).tolist(), expected)


def straight_through_gates_are_hard_by_value_and_soft_by_derivative() -> None:
    """m = hard + soft − stop(soft)."""
    scores = _scores()
    through, hard = (_term(gates=gates, top=4) for gates in ("straight-through", "hard"))
    value = through(scores)
    assert torch.equal(value, hard(scores))
    bounds = list(through.parameters())
    for gradient in torch.autograd.grad(value.sum(), bounds, allow_unused=True, materialize_grads=True):
        assert gradient.abs().max() > 1e-6


def a_detached_clip_is_not_moved_by_the_students_loss() -> None:
    """Its gradient is the same whatever the student says."""
    found = []
    for seed in (1, 2):
        scores = _scores()
        noise = torch.randn(4, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        student = (scores.student_logp.detach() + noise).log_softmax(-1)
        term = _detached()
        given = TokenScores(student_logp=student, target_logp=scores.target_logp, tokens=scores.tokens)
        found.append(torch.cat(torch.autograd.grad(term(given).sum(), list(term.parameters()))))
    assert found[0].abs().min() > 1e-6
    assert torch.allclose(found[0], found[1], atol=1e-12)


def _detached() -> ClippedKL:
    part = DACKL(top=4, clip_objective="detached", size_weight=0.5, coverage_weight=3.0, least_mass=0.99)
    term = part.build(vocabulary_size=V, generator=torch.Generator().manual_seed(0)).double()
    term.network = _Said()
    return term


def a_clips_own_objective_is_size_and_missing_mass() -> None:
    """size_weight·Σm/V + coverage_weight·max(0, least_mass − Σm·p)², beside the loss."""
    scores = _scores()
    found = _detached().measured(scores)
    alone = _term(top=4).measured(scores)
    for n in range(4):
        missing = max(0.0, 0.99 - alone.values["kept_mass"][n].item())
        own = 0.5 * alone.values["kept_classes"][n].item() / V + 3.0 * missing**2
        assert missing > 0
        assert abs(found.loss[n].item() - alone.loss[n].item() - own) < 1e-9


def partial_targets_sum_to_one() -> None:
    """Top-k and nucleus, renormalised over what they keep; the student's softmax stays whole."""
    scores = _scores()
    for target, reference in (
        (TopKTarget(k=3), lambda p: mgsr.top_k(p, 3)),
        (NucleusTarget(p=0.8), lambda p: mgsr.nucleus(p, 0.8)),
    ):
        expected = [equations.kl(reference(p), q) for p, q in _rows(scores)]
        assert _close(Match(ForwardKL(), target=target)(scores).tolist(), expected)


def a_temperature_multiplies_by_its_square() -> None:
    """T²·KL of both at T."""
    scores = _scores()
    expected = [9.0 * equations.kl(mgsr.tempered(p, 3.0), mgsr.tempered(q, 3.0)) for p, q in _rows(scores)]
    assert _close(Match(ForwardKL(), temperature_square_scaled=3.0)(scores).tolist(), expected)


CHECKS = (
    every_reading_of_the_clip_is_that_of_the_equations,
    straight_through_gates_are_hard_by_value_and_soft_by_derivative,
    a_detached_clip_is_not_moved_by_the_students_loss,
    a_clips_own_objective_is_size_and_missing_mass,
    partial_targets_sum_to_one,
    a_temperature_multiplies_by_its_square,
)
