"""Values and derivatives of the divergences, worked out together: what `divergences.py` is computed by.

A closed form takes target_logp [n V] and student_logp [n V] and gives the value [n] and its slope [n V], the
derivative by each entry of `student_logp` taken as free (log_softmax, where the entries come from, adds its own part).
It must leave its inputs alone, and value and slope must be finite at ids that are −inf on both sides.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers in a tile: small enough for the second-level cache of a CPU, of which a closed form needs three or four.
_TILE = 2**17


@runtime_checkable
class ClosedForm(Protocol):
    """Log-probabilities -> value [n] and slope [n V]."""

    def __call__(self, *, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
        """The value of each row, and its derivative by every entry of `student_logp`."""
        ...


def evaluate(
    closed_form: ClosedForm, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]
) -> Float[Tensor, " n"]:
    """The closed form's value, float32 or better, with its slope as the gradient of `student_logp` and none of the
    target's."""
    dtype = torch.promote_types(torch.promote_types(target_logp.dtype, student_logp.dtype), torch.float32)
    value: Tensor = _WithSlope.apply(  # type: ignore[no-untyped-call]
        closed_form, student_logp.to(dtype), target_logp.detach().to(dtype)
    )
    return value


class _WithSlope(torch.autograd.Function):
    """Value and derivative are worked out together, in place, and the derivative is all that backward needs."""

    @staticmethod
    def forward(ctx: Any, closed_form: ClosedForm, student_logp: Tensor, target_logp: Tensor) -> Tensor:
        value, slope = by_tiles(closed_form, target_logp=target_logp, student_logp=student_logp)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, slope * grad.unsqueeze(-1), None


def by_tiles(closed_form: ClosedForm, *, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """A few rows at a time on a CPU: every pass but the first finds its numbers in the cache, and only the slope is as
    large as the input."""
    if student_logp.device.type != "cpu":
        return closed_form(target_logp=target_logp, student_logp=student_logp)
    rows, vocabulary = student_logp.shape
    value, slope = student_logp.new_empty(rows), torch.empty_like(student_logp)
    step = max(1, _TILE // vocabulary)
    for first in range(0, rows, step):
        tile = slice(first, first + step)
        value[tile], slope[tile] = closed_form(target_logp=target_logp[tile], student_logp=student_logp[tile])
    return value, slope


# The closed forms work in place because on a CPU a fresh tensor of [n V] costs more than the arithmetic on it, and use
# nan_to_num instead of a boolean mask for the same reason (a mask costs as much as the rest together).


def forward_kl(*, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """KL(t‖s); slope −t."""
    target = target_logp.exp()
    value = _absent_is_zero((target_logp - student_logp).mul_(target)).sum(-1)
    return value + _nan_of(target_logp) + _nan_of(student_logp), target.neg_()


def reverse_kl(*, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """KL(s‖t); slope s·(log s − log t + 1)."""
    student = student_logp.exp()
    summand = _absent_is_zero((student_logp - target_logp).mul_(student))
    value = summand.sum(-1)
    return value + _nan_of(target_logp) + _nan_of(student_logp), summand.add_(student)


def symmetric_kl(*, target_logp: Tensor, student_logp: Tensor, reverse_share: float) -> tuple[Tensor, Tensor]:
    """(1 − ρ)·KL(t‖s) + ρ·KL(s‖t), 0 < ρ < 1."""
    forward, forward_slope = forward_kl(target_logp=target_logp, student_logp=student_logp)
    reverse, reverse_slope = reverse_kl(target_logp=target_logp, student_logp=student_logp)
    value = (1 - reverse_share) * forward + reverse_share * reverse
    return value, forward_slope.mul_(1 - reverse_share).add_(reverse_slope, alpha=reverse_share)


def tvd(*, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """½·Σ|t − s|; slope ½·sign(s − t)·s."""
    student = student_logp.exp()
    excess = student - target_logp.exp()
    value = 0.5 * torch.linalg.vector_norm(excess, ord=1, dim=-1)
    return value, excess.sign_().mul_(student).mul_(0.5)


def jsd(*, target_logp: Tensor, student_logp: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """β·KL(t‖m) + (1 − β)·KL(s‖m); slope (1 − β)·s·(log s − log m)."""
    gap = _bounded(target_logp - student_logp)
    # log m − log s, from the gap and not from log(m): exact zeros for equal rows, no cancellation for near ones
    tilt = gap.expm1().mul_(beta).log1p_()
    probability = target_logp.exp()
    to_target = gap.sub_(tilt).mul_(probability).sum(-1)
    torch.exp(student_logp, out=probability)
    student_times_tilt = tilt.mul_(probability)
    value = beta * to_target - (1 - beta) * student_times_tilt.sum(-1)
    return value, student_times_tilt.mul_(beta - 1)


def skew_forward_kl(*, target_logp: Tensor, student_logp: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """KL(t‖m), m = α·t + (1 − α)·s; slope −(1 − α)·t·s/m."""
    gap = _bounded(target_logp - student_logp)
    lift = gap.expm1().mul_(alpha)  # m/s − 1
    target = target_logp.exp()
    slope = target.mul(alpha - 1).div_(lift + 1)
    value = gap.sub_(lift.log1p_()).mul_(target).sum(-1)
    return value + _nan_of(student_logp), slope


def skew_reverse_kl(*, target_logp: Tensor, student_logp: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """KL(s‖m), m = α·s + (1 − α)·t; slope s·(log s − log m + (1 − α)·t/m)."""
    gap = _bounded(student_logp - target_logp)
    lift = gap.expm1().mul_(alpha)  # m/t − 1
    student = student_logp.exp()
    slope = student.mul(1 - alpha).div_(lift + 1)
    summand = gap.sub_(lift.log1p_()).mul_(student)
    value = summand.sum(-1)
    return value + _nan_of(target_logp), slope.add_(summand)


def nothing(*, target_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """0 whatever the rows, as what lies between a distribution and itself; NaN where one has a NaN."""
    return _nan_of(target_logp) + _nan_of(student_logp), torch.zeros_like(student_logp)


def _absent_is_zero(summand: Tensor) -> Tensor:
    """0 · log 0 = 0, in place. A NaN of the inputs is put back by `_nan_of`."""
    return summand.nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)


def _bounded(gap: Tensor) -> Tensor:
    """A difference of log-probabilities that `exp` can take, in place; −inf minus −inf becomes 0.

    A mixture makes the rest exact: beyond the bound one of the two probabilities is nothing beside the other.
    """
    limit = math.floor(math.log(torch.finfo(gap.dtype).max))
    return gap.nan_to_num_(nan=0.0, posinf=limit, neginf=-limit).clamp_(-limit, limit)


def _nan_of(logp: Tensor) -> Tensor:
    """0 for a row of log-probabilities, NaN for a row with a NaN, so that what broke upstream is seen downstream."""
    return logp.amax(dim=-1).mul_(0)
