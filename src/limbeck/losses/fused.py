"""The walk over chunks: hidden states to weighted losses and their gradients, without ever forming `[N V]`.

One `autograd.Function`. Its forward takes each chunk through the head, the terms and `autograd.grad`, keeps only the
gradients of the hidden states, of the head and of the terms' own parameters, and lets go of everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    term's own gradient with respect to `hidden_ND`; it costs one more head gradient a term.

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
        loss = _take_walk(hidden_ND, walk, own, gradients)
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
    """Accumulators in float32 or better; None where no gradient is wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    own: list[Tensor]

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
        )

    @property
    def any(self) -> bool:
        return self.hidden is not None or self.weight is not None or self.bias is not None or bool(self.own)

    def as_list(self) -> list[Tensor | None]:
        return [self.hidden, self.weight, self.bias, *self.own]


def _take_walk(hidden_ND: Tensor, walk: _Walk, own: Sequence[Tensor], gradients: _Gradients) -> Tensor:
    accurate = torch.promote_types(hidden_ND.dtype, torch.float32)
    sums = _Sums.zeros(walk.terms, like=hidden_ND.new_zeros((), dtype=accurate))
    head = walk.head.detached().in_dtype(hidden_ND.dtype)
    needs_teacher = any(term.needs_teacher for term in walk.terms.values())
    for chunk in chunks(hidden_ND.shape[0], walk.chunk):
        hidden_cD = hidden_ND[chunk]
        with torch.no_grad():
            block_cV = head.raw(hidden_cD)
        target_cV = target_of(walk.views, chunk) if needs_teacher else None
        for tile in tiles(block_cV, numbers=_TILE_NUMBERS):
            place = slice(chunk.start + tile.start, chunk.start + tile.stop)
            target_nV = None if target_cV is None else target_cV[tile]
            _take_tile(block_cV[tile], target_nV, place, walk, head, own, gradients, sums)
        del target_cV
        if gradients.any:
            _accumulate(block_cV, hidden_cD, chunk, head, gradients)
    walk.totals.extend(sums.totals.values())
    walk.norms.extend(square.sqrt() for square in sums.squares.values())
    zero = hidden_ND.new_zeros((), dtype=accurate)
    return sum((walk.scales[name] * total for name, total in sums.totals.items()), zero)


@dataclass(frozen=True)
class _Sums:
    """By term: its loss so far, and the squares of its own gradient by the hidden states."""

    totals: dict[str, Tensor]
    squares: dict[str, Tensor]

    @classmethod
    def zeros(cls, terms: Iterable[str], *, like: Tensor) -> _Sums:
        names = list(terms)
        return cls({name: torch.zeros_like(like) for name in names}, {name: torch.zeros_like(like) for name in names})


def _take_tile(
    raw_nV: Tensor,
    target_nV: Tensor | None,
    place: slice,
    walk: _Walk,
    head: Head,
    own: Sequence[Tensor],
    gradients: _Gradients,
    sums: _Sums,
) -> None:
    """Adds the losses of these tokens, and overwrites `raw_nV` by the gradient with respect to it."""
    with torch.set_grad_enabled(gradients.any):
        leaf_nV = raw_nV.detach().requires_grad_(gradients.any)
        scores = TokenScores(
            student_logp=head.log_probabilities(leaf_nV), target_logp=target_nV, tokens=walk.tokens_N[place]
        )
        parts = {name: (term(scores) * walk.weights[name][place]).sum() for name, term in walk.terms.items()}
        scaled = {name: walk.scales[name] * part for name, part in parts.items()}
        whole = torch.stack(list(scaled.values())).sum() if scaled else raw_nV.new_zeros(())
    for name, part in parts.items():
        sums.totals[name] += part.detach()
    if not gradients.any:
        return
    if walk.separate:
        for name, part in scaled.items():
            sums.squares[name] += _hidden_square(part, leaf_nV, head)
    wanted = [leaf_nV, *own]
    found = torch.autograd.grad(whole, wanted, allow_unused=True) if whole.requires_grad else [None] * len(wanted)
    for total, gradient in zip(gradients.own, found[1:], strict=True):
        if gradient is not None:
            total += gradient
    if found[0] is None:
        raw_nV.zero_()
    else:
        raw_nV.copy_(found[0])


def _hidden_square(part: Tensor, raw_cV: Tensor, head: Head) -> Tensor:
    (raw_gradient,) = torch.autograd.grad(part, [raw_cV], retain_graph=True, allow_unused=True)
    if raw_gradient is None:
        return part.new_zeros(())
    return _through_head(raw_gradient, head).square().sum().to(part.dtype)


def _through_head(raw_gradient_cV: Tensor, head: Head) -> Tensor:
    if head.weight is None:
        return raw_gradient_cV
    return raw_gradient_cV @ head.weight[: head.size]


def _accumulate(raw_gradient_cV: Tensor, hidden_cD: Tensor, chunk: slice, head: Head, gradients: _Gradients) -> None:
    if gradients.hidden is not None:
        gradients.hidden[chunk, : head.size if head.weight is None else None] = _through_head(raw_gradient_cV, head)
    if gradients.weight is not None:
        rows = gradients.weight[: head.size]
        if raw_gradient_cV.dtype == rows.dtype:
            rows.addmm_(raw_gradient_cV.T, hidden_cD)
        else:
            rows += raw_gradient_cV.T @ hidden_cD
    if gradients.bias is not None:
        gradients.bias[: head.size] += raw_gradient_cV.sum(dim=0)


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
