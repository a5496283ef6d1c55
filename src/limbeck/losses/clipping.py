"""The sums of DAC-KL over a token's classes, and the four ways to make a loss of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.losses.closed_forms import by_tiles, forward_kl
from limbeck.losses.gating import Window

Normalise = Literal["teacher", "none", "both", "rest"]


@dataclass(frozen=True, kw_only=True)
class Rest:
    """All classes beside the K that have gates of their own: how many, Σ p, and KL(p‖q) over *all* classes. Σ q, where
    a normalisation asks for it."""

    count: int
    mass: Float[Tensor, " n"]
    whole_gap: Float[Tensor, " n"]
    student_mass: Float[Tensor, " n"] | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What gates keep of a token: `mass` Σ m·p, `count` Σ m, `others` the largest gate beside the likeliest class's."""

    mass: Float[Tensor, " n"]
    count: Float[Tensor, " n"]
    others: Float[Tensor, " n"]


def kept_by(
    window: Window, *, p_nk: Float[Tensor, "n k"], is_target_nk: Bool[Tensor, "n k"], rest: Rest | None
) -> Kept:
    """Mass, number and largest other gate of what a window keeps."""
    m_nk = window.classes.value
    mass_n, count_n = (m_nk * p_nk).sum(-1), m_nk.sum(-1)
    others_n = m_nk.masked_fill(is_target_nk, 0.0).amax(-1)
    if window.rest is not None and rest is not None:
        m_r_n = window.rest.value.squeeze(-1)
        mass_n, count_n = mass_n + m_r_n * rest.mass, count_n + m_r_n * rest.count
        others_n = torch.maximum(others_n, m_r_n)
    return Kept(mass=mass_n, count=count_n, others=others_n)


def clipped_loss(
    window: Window,
    *,
    p_nk: Float[Tensor, "n k"],
    target_nk: Float[Tensor, "n k"],
    student_nk: Float[Tensor, "n k"],
    rest: Rest | None,
    normalise: Normalise,
) -> Float[Tensor, " n"]:
    """The loss of what a window keeps (MGSR, arXiv 2407.10068, Eq. 8). p: teacher, q: student, P = Σ m·p, Q = Σ m·q.

        none     R0 = Σ m·p·log(p/q)
        both     R1 = R0/P − log(P/Q)                               KL of the two renormalised
        rest     R2 = R0 + (1 − P)·log((1 − P) / (1 − Q))           what is not kept, as one class
        teacher  R3 = (R0 + Σ m·p·log m)/P − log P                  KL of the teacher renormalised

    Of soft gates R1 has no m·log m: it is the same on both sides. Of hard gates Σ m·p·log m is 0 by value, and taken as
    0 for the derivative too: at m = 0 that of m·log m has no end. The classes of `rest` enter by their sums, with one
    gate. A token of which nothing is kept costs 0.
    """
    m_nk, log_m_nk = window.classes.value, window.classes.log
    # Both −inf where an id is not shared; p is 0 there.
    gap_nk = torch.where(p_nk > 0, target_nk - student_nk, 0.0)
    kept_nk = m_nk * p_nk
    mass_n, loss_n = kept_nk.sum(-1), (kept_nk * gap_nk).sum(-1)
    m_r_n: Tensor | None = None
    if window.rest is not None and rest is not None:
        m_r_n = window.rest.value.squeeze(-1)
        mass_n = mass_n + m_r_n * rest.mass
        loss_n = loss_n + m_r_n * (rest.whole_gap - (p_nk * gap_nk).sum(-1))
    if normalise == "none":
        return loss_n
    if normalise == "rest":
        left_n, student_left_n = _shares(1 - m_nk, p_nk, student_nk, None if m_r_n is None else 1 - m_r_n, rest)
        # An underflow is not an infinity.
        odds_n = left_n.clamp(min=_tiny(left_n)).log() - student_left_n.clamp(min=_tiny(left_n)).log()
        return loss_n + left_n * odds_n
    is_empty_n = mass_n == 0
    mass_n = torch.where(is_empty_n, 1.0, mass_n)
    if normalise == "both":
        _, student_mass_n = _shares(m_nk, p_nk, student_nk, m_r_n, rest)
        odds_n = mass_n.log() - student_mass_n.clamp(min=_tiny(mass_n)).log()
        return torch.where(is_empty_n, 0.0, loss_n / mass_n - odds_n)
    inner_n = (kept_nk * log_m_nk).sum(-1)
    if m_r_n is not None and window.rest is not None and rest is not None:
        inner_n = inner_n + m_r_n * rest.mass * window.rest.log.squeeze(-1)
    return torch.where(is_empty_n, 0.0, (loss_n + inner_n) / mass_n - mass_n.log())


def _shares(
    m_nk: Tensor, p_nk: Tensor, student_nk: Tensor, m_r_n: Tensor | None, rest: Rest | None
) -> tuple[Tensor, Tensor]:
    """Σ m·p and Σ m·q over all classes."""
    p_n, q_n = (m_nk * p_nk).sum(-1), (m_nk * student_nk.exp()).sum(-1)
    if m_r_n is None or rest is None:
        return p_n, q_n
    assert rest.student_mass is not None, "this normalisation reads what the student has outside of the K classes"
    return p_n + m_r_n * rest.mass, q_n + m_r_n * rest.student_mass


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def all_and_top(
    *, target_nV: Float[Tensor, "n V"], student_nV: Float[Tensor, "n V"], top_nK: Int[Tensor, "n K"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n K"]]:
    """KL(t ‖ s) over all classes, and the student's log-probabilities of some: one gradient of [n V] for both."""
    all_n, student_nK = _AllAndTop.apply(student_nV, target_nV, top_nK)  # type: ignore[no-untyped-call]
    return all_n, student_nK


class _AllAndTop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student_nV: Tensor, target_nV: Tensor, top_nK: Tensor) -> tuple[Tensor, Tensor]:
        value_n, slope_nV = by_tiles(forward_kl, target_logp=target_nV, student_logp=student_nV)
        ctx.save_for_backward(slope_nV, top_nK)
        return value_n, student_nV.gather(1, top_nK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, all_n: Tensor, chosen_nK: Tensor) -> tuple[Tensor, None, None]:
        slope_nV, top_nK = ctx.saved_tensors
        return (slope_nV * all_n.unsqueeze(-1)).scatter_add_(1, top_nK, chosen_nK), None, None
