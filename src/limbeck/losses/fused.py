"""The walk over chunks: hidden states to weighted losses and their gradients, without ever forming `[N V]`.

One `autograd.Function`. Its forward takes each chunk through the head, the terms and `autograd.grad`, keeps only the
gradients of the hidden states, of the head and of the terms' own parameters, and lets go of everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limbeck.losses.correlation import PairTerm
from limbeck.losses.heads import Head
from limbeck.losses.match import TokenScores, TokenTerm
from limbeck.losses.views import HiddenView, TeacherView, chunks, target_of
from limbeck.losses.walking import TEACHER_LOGP, Gradients, Walk, take_walk
from limbeck.types import Experience

__all__ = ["TEACHER_LOGP", "FusedResult", "HiddenView", "TeacherView", "fused_loss", "token_scores"]


@dataclass(frozen=True, kw_only=True)
class FusedResult:
    """`loss` carries the gradient; the rest is detached.

    `totals`: each term's Σ weight·ℓ. `measures`: what terms measure beside, Σ weight·value by "TERM/NAME", and
    "teacher_logp" where it was asked for.
    `gradient_norms`: of `∂loss/∂hidden`, per term, if asked for.
    """

    loss: Float[Tensor, ""]
    totals: dict[str, Float[Tensor, ""]]
    measures: dict[str, Float[Tensor, ""]]
    gradient_norms: dict[str, Float[Tensor, ""]]


def fused_loss(
    hidden_ND: Float[Tensor, "N D"],
    *,
    head: Head,
    tokens_N: Int[Tensor, " N"],
    views: Sequence[TeacherView],
    terms: Mapping[str, TokenTerm],
    weights: Mapping[str, Float[Tensor, " _"]],
    scales: Mapping[str, float],
    chunk: int,
    pairs_P: Int[Tensor, " P"] | None = None,
    pair_terms: Mapping[str, PairTerm] | None = None,
    experience: Experience | None = None,
    separate_gradients: bool = False,
) -> FusedResult:
    """The weighted sum of the terms over the scored tokens, `[N V]` never formed.

        loss = Σ_term scale_term · Σ_n weight_term[n] · ℓ_term[n]

    Nothing divides: the normaliser is in `weights`, one entry for each term that applies here: `[N]` for one of
    `terms`, `[P]` for one of `pair_terms`, whose pair p is of the tokens `pairs_P[p]` (ascending) and the one after
    it. `experience`, where rows were drawn with one, has an entry for each token. With `separate_gradients`,
    `gradient_norms` holds the L2 norm of each scaled term's own gradient with respect to `hidden_ND`; it costs one more
    head gradient for each term after the first.

    The gradient reaches `hidden_ND`, the head's weight and bias unless they are frozen, and the parameters of terms
    that are modules (zeros for a term that does not apply here). It does not reach the views.

    Weights named "teacher_logp", `[N]`, ask for the measure Σ weight·log t(token) beside the terms, in nats: what the
    teacher thinks of the tokens themselves. It is taken of the distributions that the terms read, adds nothing to the
    loss, and is 0 where no term here reads the teacher.
    """
    walk = Walk(
        head=head,
        views=views,
        tokens_N=tokens_N,
        terms={name: term for name, term in terms.items() if name in weights},
        pair_terms={name: term for name, term in (pair_terms or {}).items() if name in weights},
        pairs=[] if pairs_P is None else pairs_P.tolist(),
        weights=weights,
        scales=scales,
        chunk=chunk,
        separate=separate_gradients,
        experience=experience,
        teacher_weights_N=weights.get(TEACHER_LOGP),
    )
    own = [p for term in terms.values() if isinstance(term, nn.Module) for p in term.parameters() if p.requires_grad]
    loss: Tensor = _FusedLoss.apply(hidden_ND, head.weight, head.bias, walk, *own)  # type: ignore[no-untyped-call]
    return FusedResult(
        loss=loss,
        totals=dict(zip(walk.names, walk.totals, strict=True)),
        measures=walk.measures,
        gradient_norms=dict(zip(walk.names, walk.norms, strict=True)) if separate_gradients else {},
    )


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Float[Tensor, "N D"],
        weight: Float[Tensor, "width D"] | None,
        bias: Float[Tensor, " width"] | None,
        walk: Walk,
        *own: Tensor,
    ) -> Float[Tensor, ""]:
        """The loss of the whole walk; the gradients are taken chunk by chunk on the way."""
        wanted = [bool(flag) for flag in ctx.needs_input_grad]
        gradients = Gradients.allocate(hidden_ND, weight, bias, own, wanted)
        loss = take_walk(hidden_ND, walk, gradients)
        ctx.gradients = gradients
        ctx.dtypes = [None if t is None else t.dtype for t in (hidden_ND, weight, bias, *own)]
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients that the forward took, times what comes from above."""
        factor = grad_outputs[0]
        given = ctx.gradients.as_list()
        ctx.gradients = None
        if factor.device.type != "cpu" or float(factor) != 1.0:
            given = [None if gradient is None else gradient.mul_(factor) for gradient in given]
        out = [None if g is None else g.to(d) for g, d in zip(given, ctx.dtypes, strict=True)]
        return (out[0], out[1], out[2], None, *out[3:])


@torch.no_grad()
def token_scores(
    hidden_ND: Float[Tensor, "N D"],
    *,
    head: Head,
    tokens_N: Int[Tensor, " N"],
    views: Sequence[TeacherView],
    chunk: int,
) -> Iterator[TokenScores]:
    """The scores of all tokens, a chunk at a time, without gradient: what evaluation and detection read.

    A generator, so that only one `[c V]` block is alive; consume each chunk before asking for the next.
    """
    fixed = head.detached().in_dtype(hidden_ND.dtype)
    for part in chunks(hidden_ND.shape[0], chunk):
        with torch.no_grad():
            student_logp = fixed(hidden_ND[part])
        target_logp = target_of(views, part, device=hidden_ND.device)
        yield TokenScores(student_logp=student_logp, target_logp=target_logp, tokens=tokens_N[part])
