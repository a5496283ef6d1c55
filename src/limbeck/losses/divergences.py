"""How far the student's next-token distribution is from its target: one number a token, in nats.

t is the target (the teacher unless a record says otherwise), s the student. Every divergence is called with
log-probabilities over the same V tokens, is not reduced, and knows no mask: what it gets is scored tokens only.

Half-precision inputs are raised to float32; float64 stays. Ids that are −inf in *both* rows (the dropped part of a
vocabulary) contribute 0 to value and gradient. Where only one side is −inf the value is the formula's: forward KL is
+inf where the student has excluded an id the target has mass on, reverse KL where the target has, and nothing here
hides that; JSD, TVD and the skew KLs stay finite. A NaN on either side gives NaN.

The target is a constant: no gradient reaches `target_logp`. The gradient with respect to `student_logp` is a closed
form (a tensor of [n V] is kept for backward, not the five to ten that autograd would keep) and cannot be
differentiated again.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.losses import closed_forms
from limbeck.losses.closed_forms import ClosedForm, evaluate

Share = Annotated[float, Field(ge=0, le=1)]

_STRICT = ConfigDict(extra="forbid")


@runtime_checkable
class Divergence(Protocol):
    """Target and student log-probabilities -> one number a token, in nats, unreduced."""

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        ...


@dataclass(frozen=True, config=_STRICT)
class ForwardKL:
    """KL(t‖s) = Σ_v t_v · (log t_v − log s_v), nats per token.

    The divergence of plain distillation: MGSR, arXiv 2407.10068, Eq. 1. True KL, with the target's entropy; code that
    uses the cross-entropy −Σ t·log s differs by a constant and has the same gradient.

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(ForwardKL()(target_logp=t, student_logp=s).item(), 4)
    0.5108
    """

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        return evaluate(closed_forms.forward_kl, target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class ReverseKL:
    """KL(s‖t) = Σ_v s_v · (log s_v − log t_v), nats per token (MiniLLM, arXiv 2306.08543, Eq. 1, one step of it).

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(ReverseKL()(target_logp=t, student_logp=s).item(), 4)
    0.3681
    """

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        return evaluate(closed_forms.reverse_kl, target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class SymmetricKL:
    """(1 − ρ)·KL(t‖s) + ρ·KL(s‖t) with ρ = `reverse_share`, nats per token (MGSR, arXiv 2407.10068, Table 3c).

    Half and half by default; DistiLLM's code has ρ = 0.9.

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(SymmetricKL()(target_logp=t, student_logp=s).item(), 4)
    0.4394
    """

    reverse_share: Share = 0.5

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        between = partial(closed_forms.symmetric_kl, reverse_share=self.reverse_share)
        closed_form = _unless_at_an_end(self.reverse_share, between)
        return evaluate(closed_form, target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class JSD:
    """β·KL(t‖m) + (1 − β)·KL(s‖m) with m = β·t + (1 − β)·s, nats per token (GKD, arXiv 2306.13649, Eq. 1).

    β = 0 and β = 1, where the formula is 0, are defined as their limits' directions KL(t‖s) and KL(s‖t). In between
    it is not rescaled: at β = 0.1 it is about a tenth of forward KL. At most −β·log β − (1 − β)·log(1 − β).
    DistiLLM's `js_distance(lam)` is `JSD(beta=1 - lam)`.

    >>> import torch
    >>> t, s = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
    >>> round(JSD(beta=0.5)(target_logp=t, student_logp=s).item(), 4)
    0.6931
    """

    beta: Share = 0.5

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        closed_form = _unless_at_an_end(self.beta, partial(closed_forms.jsd, beta=self.beta))
        return evaluate(closed_form, target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class TVD:
    """½·Σ_v |t_v − s_v|, between 0 and 1 (f-distill, arXiv 2307.15190, total variation, one step of it).

    Not differentiable where t_v = s_v; the gradient there is 0.

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(TVD()(target_logp=t, student_logp=s).item(), 4)
    0.4
    """

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        return evaluate(closed_forms.tvd, target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class SkewForwardKL:
    """KL(t‖α·t + (1 − α)·s), nats per token, at most −log α (DistiLLM, arXiv 2402.03898, skew KL).

    α = 0 is forward KL. α = 1 compares the target with itself: 0 for every student.

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(SkewForwardKL(alpha=1e-9)(target_logp=t, student_logp=s).item(), 4)
    0.5108
    """

    alpha: Share = 0.1

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        skewed = partial(closed_forms.skew_forward_kl, alpha=self.alpha)
        ends: dict[float, ClosedForm] = {0.0: closed_forms.forward_kl, 1.0: closed_forms.nothing}
        return evaluate(ends.get(self.alpha, skewed), target_logp=target_logp, student_logp=student_logp)


@dataclass(frozen=True, config=_STRICT)
class SkewReverseKL:
    """KL(s‖α·s + (1 − α)·t), nats per token, at most −log α (DistiLLM, arXiv 2402.03898, skew reverse KL).

    α = 0 is reverse KL. α = 1 compares the student with itself: 0 for every student.

    >>> import torch
    >>> t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(SkewReverseKL(alpha=1e-9)(target_logp=t, student_logp=s).item(), 4)
    0.3681
    """

    alpha: Share = 0.1

    def __call__(self, *, target_logp: Float[Tensor, "n V"], student_logp: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Nats per token, unreduced."""
        skewed = partial(closed_forms.skew_reverse_kl, alpha=self.alpha)
        ends: dict[float, ClosedForm] = {0.0: closed_forms.reverse_kl, 1.0: closed_forms.nothing}
        return evaluate(ends.get(self.alpha, skewed), target_logp=target_logp, student_logp=student_logp)


def _unless_at_an_end(share: float, between: ClosedForm) -> ClosedForm:
    """The plain KLs where the share is 0 or 1: there the other one has no part, not even one of 0 · inf."""
    return {0.0: closed_forms.forward_kl, 1.0: closed_forms.reverse_kl}.get(share, between)
