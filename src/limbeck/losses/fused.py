"""The walk over chunks: hidden states to weighted losses and their gradients, without ever forming `[N V]`.

One `autograd.Function`. Its forward takes each chunk through the head, the terms and `autograd.grad`, keeps only the
gradients of the hidden states, of the head and of the terms' own parameters, and lets go of everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limbeck.losses.heads import Head, tiles
from limbeck.losses.match import TokenScores, TokenTerm

# The head wants many tokens at once, or reading its weight is most of the work. The terms want few: of what they make,
# several times [n V], only this many numbers then exist at a time, in blocks that the allocator keeps.
_TILE_NUMBERS = 2**20


@runtime_checkable
class TeacherView(Protocol):
    """A teacher's distributions at the scored tokens, `[N V]`, made a chunk at a time."""

    def log_probabilities(self, chunk: slice) -> Float[Tensor, "n V"]:
        """The log-probabilities of these scored tokens, without gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class HiddenView:
    """A teacher kept as final hidden states `[N D]` and its head: exact, D numbers a token instead of V."""

    hidden: Float[Tensor, "N D"]
    head: Head

    def log_probabilities(self, chunk: slice) -> Float[Tensor, "n V"]:
        """The log-probabilities of these scored tokens, without gradient."""
        with torch.no_grad():
            return self.head(self.hidden[chunk])


def chunks(num_tokens: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` tokens that cover `num_tokens`.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    assert size > 0
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


def target_of(views: Sequence[TeacherView], chunk: slice) -> Float[Tensor, "n V"] | None:
    """The teacher's log-probabilities of a chunk; None without a teacher."""
    return views[0].log_probabilities(chunk) if views else None


@dataclass(frozen=True, kw_only=True)
class FusedResult:
    """`loss` carries the gradient; `totals` and `gradient_norms` (of `∂loss/∂hidden`, per term) are detached."""

    loss: Float[Tensor, ""]
    totals: dict[str, Float[Tensor, ""]]
    gradient_norms: dict[str, Float[Tensor, ""]]


@dataclass(frozen=True, kw_only=True)
class _Walk:
    head: Head
    views: Sequence[TeacherView]
    tokens_N: Int[Tensor, " N"]
    terms: Mapping[str, TokenTerm]
    weights: Mapping[str, Float[Tensor, " N"]]
    scales: Mapping[str, float]
    chunk: int
    separate: bool
    totals: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)


def fused_loss(
    hidden_ND: Float[Tensor, "N D"],
    *,
    head: Head,
    tokens_N: Int[Tensor, " N"],
    views: Sequence[TeacherView],
    terms: Mapping[str, TokenTerm],
    weights: Mapping[str, Float[Tensor, " N"]],
    scales: Mapping[str, float],
    chunk: int,
    separate_gradients: bool = False,
) -> FusedResult:
    """The weighted sum of the terms over the scored tokens, `[N V]` never formed.

        loss = Σ_term scale_term · Σ_n weight_term[n] · ℓ_term[n]

    Nothing divides: the normaliser is in `weights`, one entry for each term that applies here. `totals` holds each
    term's Σ weight·ℓ without its scale. With `separate_gradients`, `gradient_norms` holds the L2 norm of each scaled
    term's own gradient with respect to `hidden_ND`; it costs one more head gradient for each term after the first.

    The gradient reaches `hidden_ND`, the head's weight and bias unless they are frozen, and the parameters of terms
    that are modules. It does not reach the views.
    """
    active = {name: terms[name] for name in weights}
    walk = _Walk(
        head=head,
        views=views,
        tokens_N=tokens_N,
        terms=active,
        weights=weights,
        scales=scales,
        chunk=chunk,
        separate=separate_gradients,
    )
    own = [p for term in active.values() if isinstance(term, nn.Module) for p in term.parameters() if p.requires_grad]
    loss: Tensor = _FusedLoss.apply(hidden_ND, head.weight, head.bias, walk, *own)  # type: ignore[no-untyped-call]
    return FusedResult(
        loss=loss,
        totals=dict(zip(active, walk.totals, strict=True)),
        gradient_norms=dict(zip(active, walk.norms, strict=True)) if separate_gradients else {},
    )


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Float[Tensor, "N D"],
        weight: Float[Tensor, "width D"] | None,
        bias: Float[Tensor, " width"] | None,
        walk: _Walk,
        *own: Tensor,
    ) -> Float[Tensor, ""]:
        wanted = [bool(flag) for flag in ctx.needs_input_grad]
        gradients = _Gradients.allocate(hidden_ND, weight, bias, own, wanted)
        loss = _take_walk(hidden_ND, walk, gradients)
        ctx.gradients = gradients
        ctx.dtypes = [None if t is None else t.dtype for t in (hidden_ND, weight, bias, *own)]
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        factor = grad_outputs[0]
        given = ctx.gradients.as_list()
        ctx.gradients = None
        if factor.device.type != "cpu" or float(factor) != 1.0:
            given = [None if gradient is None else gradient.mul_(factor) for gradient in given]
        out = [None if g is None else g.to(d) for g, d in zip(given, ctx.dtypes, strict=True)]
        return (out[0], out[1], out[2], None, *out[3:])


@dataclass(frozen=True)
class _Gradients:
    """Accumulators in float32 or better, None where no gradient is wanted; `own`: of the terms' `parameters`."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    own: list[Tensor]
    parameters: Sequence[Tensor]

    @classmethod
    def allocate(
        cls, hidden: Tensor, weight: Tensor | None, bias: Tensor | None, own: Sequence[Tensor], wanted: list[bool]
    ) -> _Gradients:
        def zeros(tensor: Tensor | None, want: bool) -> Tensor | None:
            if tensor is None or not want:
                return None
            return torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))

        return cls(
            hidden=zeros(hidden, wanted[0]),
            weight=zeros(weight, wanted[1]),
            bias=zeros(bias, wanted[2]),
            own=[torch.zeros_like(p) for p in own] if any(wanted) else [],
            parameters=own,
        )

    @property
    def any(self) -> bool:
        return self.hidden is not None or self.weight is not None or self.bias is not None or bool(self.own)

    def as_list(self) -> list[Tensor | None]:
        return [self.hidden, self.weight, self.bias, *self.own]


def _take_walk(hidden_ND: Tensor, walk: _Walk, gradients: _Gradients) -> Tensor:
    zero = hidden_ND.new_zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
    sums = _Sums({name: zero.clone() for name in walk.terms}, {name: zero.clone() for name in walk.terms})
    head = walk.head.detached().in_dtype(hidden_ND.dtype)
    for chunk in chunks(hidden_ND.shape[0], walk.chunk):
        _take_chunk(hidden_ND[chunk], chunk, walk=walk, head=head, gradients=gradients, sums=sums)
    walk.totals.extend(sums.totals.values())
    walk.norms.extend(square.sqrt() for square in sums.squares.values())
    return sum((walk.scales[name] * total for name, total in sums.totals.items()), zero)


@dataclass(frozen=True)
class _Sums:
    """By term: Σ weight·ℓ so far, and the squares of its own gradient by the hidden states."""

    totals: dict[str, Tensor]
    squares: dict[str, Tensor]


def _take_chunk(
    hidden_cD: Tensor, chunk: slice, *, walk: _Walk, head: Head, gradients: _Gradients, sums: _Sums
) -> None:
    needs_teacher = any(term.needs_teacher for term in walk.terms.values())
    target_cV = target_of(walk.views, chunk) if needs_teacher else None
    with torch.no_grad():
        raw_cV = head.raw(hidden_cD)
    # The terms whose gradients are taken together, and the blocks that hold them: the first in place of the logits.
    groups = [[name] for name in walk.terms] if walk.separate else [list(walk.terms)]
    groups = groups if gradients.any and walk.terms else []
    slopes = [raw_cV if group is groups[0] else torch.empty_like(raw_cV) for group in groups]
    for tile in tiles(raw_cV, numbers=_TILE_NUMBERS):
        place = slice(chunk.start + tile.start, chunk.start + tile.stop)
        with torch.set_grad_enabled(gradients.any):
            leaf_nV = raw_cV[tile].detach().requires_grad_(gradients.any)
            parts = _parts(leaf_nV, None if target_cV is None else target_cV[tile], place, walk=walk, head=head)
            wholes = [torch.stack([walk.scales[name] * parts[name] for name in group]).sum() for group in groups]
        for name, part in parts.items():
            sums.totals[name] += part.detach()
        found = [_slope(whole, leaf_nV, gradients, again=whole is not wholes[-1]) for whole in wholes]
        for slope_cV, slope_nV in zip(slopes, found, strict=True):
            slope_cV[tile] = slope_nV
    for group, slope_cV in zip(groups, slopes, strict=True):
        square = _accumulate(slope_cV, hidden_cD, chunk, head=head, gradients=gradients)
        if walk.separate:
            sums.squares[group[0]] += square


def _parts(
    raw_nV: Tensor, target_nV: Tensor | None, place: slice, *, walk: _Walk, head: Head
) -> dict[str, Float[Tensor, ""]]:
    """Each term's Σ weight·ℓ over these tokens."""
    scores = TokenScores(
        student_logp=head.log_probabilities(raw_nV), target_logp=target_nV, tokens=walk.tokens_N[place]
    )
    return {name: (term(scores) * walk.weights[name][place]).sum() for name, term in walk.terms.items()}


def _slope(whole: Tensor, leaf_nV: Tensor, gradients: _Gradients, *, again: bool) -> Tensor:
    """The gradient by the leaf; that of the terms' own parameters is added to theirs."""
    if not whole.requires_grad:
        return torch.zeros_like(leaf_nV)
    found = torch.autograd.grad(whole, [leaf_nV, *gradients.parameters], allow_unused=True, retain_graph=again)
    for total, gradient in zip(gradients.own, found[1:], strict=True):
        if gradient is not None:
            total += gradient
    return torch.zeros_like(leaf_nV) if found[0] is None else found[0]


def _accumulate(
    raw_gradient_cV: Tensor, hidden_cD: Tensor, chunk: slice, *, head: Head, gradients: _Gradients
) -> Float[Tensor, ""]:
    """Adds a chunk's gradients; returns the square of the hidden states' own."""
    weight = head.weight
    hidden_gradient_cD = raw_gradient_cV if weight is None else raw_gradient_cV @ weight[: head.size]
    if gradients.hidden is not None:
        gradients.hidden[chunk, : head.size if weight is None else None] += hidden_gradient_cD
    if gradients.weight is not None:
        rows = gradients.weight[: head.size]
        if raw_gradient_cV.dtype == rows.dtype:
            rows.addmm_(raw_gradient_cV.T, hidden_cD)
        else:
            rows += raw_gradient_cV.T @ hidden_cD
    if gradients.bias is not None:
        gradients.bias[: head.size] += raw_gradient_cV.sum(dim=0)
    return hidden_gradient_cD.to(torch.promote_types(hidden_gradient_cD.dtype, torch.float32)).square().sum()


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
    fixed = replace(head.detached()).in_dtype(hidden_ND.dtype)
    for part in chunks(hidden_ND.shape[0], chunk):
        with torch.no_grad():
            student_logp = fixed(hidden_ND[part])
        yield TokenScores(student_logp=student_logp, target_logp=target_of(views, part), tokens=tokens_N[part])
