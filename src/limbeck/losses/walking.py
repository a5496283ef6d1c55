"""Chunk by chunk through the head, tile by tile through the terms: losses and gradients of one fused call.

A pair of tokens may lie across the end of a tile, or of a chunk. Its tile then reads one row more than it owns, the
halo; the gradient of that row waits in `carried` until the tile that owns it comes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.correlation import PairScores, PairTerm
from limbeck.losses.heads import Head, tiles
from limbeck.losses.match import MeasuringTerm, TokenScores, TokenTerm, one_each
from limbeck.losses.views import CompletedView, TeacherView, chunks, target_of
from limbeck.types import Experience

# The head wants many tokens at once, or reading its weight is most of the work. The terms want few: of what they make,
# several times [n V], only this many numbers then exist at a time, in blocks that the allocator keeps.
_TILE_NUMBERS = 2**20

TEACHER_LOGP = "teacher_logp"
"""The measure that is no term's: Σ weight·log t(token)."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What a fused call was given, and what it finds: `totals` and `norms` by `names`, `measures` by name."""

    head: Head
    views: Sequence[TeacherView]
    tokens_N: Int[Tensor, " N"]
    terms: Mapping[str, TokenTerm]
    pair_terms: Mapping[str, PairTerm]
    pairs: Sequence[int]
    weights: Mapping[str, Float[Tensor, " _"]]
    scales: Mapping[str, float]
    chunk: int
    separate: bool
    experience: Experience | None = None
    teacher_weights_N: Float[Tensor, " N"] | None = None
    totals: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    measures: dict[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The terms that apply, token terms first."""
        return [*self.terms, *self.pair_terms]

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that applies reads the teacher."""
        return bool(self.pair_terms) or any(term.needs_teacher for term in self.terms.values())

    @property
    def completes(self) -> bool:
        """Whether the teacher's distributions are made beside the student's."""
        return bool(self.views) and isinstance(self.views[0], CompletedView)

    def crosses(self, end: int) -> bool:
        """Whether a pair is of the tokens `end − 1` and `end`."""
        place = bisect_left(self.pairs, end - 1)
        return bool(self.pair_terms) and place < len(self.pairs) and self.pairs[place] == end - 1


@dataclass(frozen=True)
class Gradients:
    """Accumulators in float32 or better, None where no gradient is wanted; `own`: of the terms' `parameters`."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    own: list[Tensor]
    parameters: Sequence[Tensor]

    @classmethod
    def allocate(
        cls, hidden: Tensor, weight: Tensor | None, bias: Tensor | None, own: Sequence[Tensor], wanted: list[bool]
    ) -> Gradients:
        """Zeros for everything of which a gradient is wanted."""

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
        """Whether anything is to be differentiated."""
        return self.hidden is not None or self.weight is not None or self.bias is not None or bool(self.own)

    def as_list(self) -> list[Tensor | None]:
        """In the order of the inputs."""
        return [self.hidden, self.weight, self.bias, *self.own]


@dataclass(frozen=True)
class _Sums:
    """By term: Σ weight·ℓ so far, and the squares of its own gradient by the hidden states; by group of terms, what
    the last halo waits with."""

    totals: dict[str, Tensor]
    squares: dict[str, Tensor]
    carried: dict[int, Tensor]


def take_walk(hidden_ND: Float[Tensor, "N D"], walk: Walk, gradients: Gradients) -> Float[Tensor, ""]:
    """The loss; totals, norms and measures go into `walk`, gradients into theirs."""
    zero = hidden_ND.new_zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
    sums = _Sums({name: zero.clone() for name in walk.names}, {name: zero.clone() for name in walk.names}, {})
    measuring = {name: term for name, term in walk.terms.items() if isinstance(term, MeasuringTerm)}
    walk.measures.update({f"{name}/{key}": zero.clone() for name, term in measuring.items() for key in term.measures})
    if walk.teacher_weights_N is not None:
        walk.measures[TEACHER_LOGP] = zero.clone()
    head = walk.head.detached().in_dtype(hidden_ND.dtype)
    for chunk in chunks(hidden_ND.shape[0], walk.chunk):
        _take_chunk(hidden_ND, chunk, walk=walk, head=head, gradients=gradients, sums=sums)
    walk.totals.extend(sums.totals.values())
    walk.norms.extend(square.sqrt() for square in sums.squares.values())
    return sum((walk.scales[name] * total for name, total in sums.totals.items()), zero)


def _take_chunk(hidden_ND: Tensor, chunk: slice, *, walk: Walk, head: Head, gradients: Gradients, sums: _Sums) -> None:
    own = chunk.stop - chunk.start
    wide = slice(chunk.start, chunk.stop + walk.crosses(chunk.stop))
    is_asked = walk.needs_teacher and (not walk.completes or walk.teacher_weights_N is not None)
    target_cV = target_of(walk.views, wide, device=hidden_ND.device) if is_asked else None
    if target_cV is not None and walk.teacher_weights_N is not None:
        walk.measures[TEACHER_LOGP] += _weighted_logp(
            target_cV[:own], tokens_c=walk.tokens_N[chunk], weights_c=walk.teacher_weights_N[chunk]
        )
    target_cV = None if walk.completes else target_cV
    with torch.no_grad():
        raw_cV = head.raw(hidden_ND[wide])
    # The terms whose gradients are taken together, and the blocks that hold them: the first in place of the logits.
    groups = [[name] for name in walk.names] if walk.separate else [walk.names]
    groups = groups if gradients.any and walk.names else []
    slopes = [raw_cV if group is groups[0] else torch.empty_like(raw_cV) for group in groups]
    for tile in tiles(raw_cV[:own], numbers=_TILE_NUMBERS):
        place = slice(chunk.start + tile.start, chunk.start + tile.stop)
        rows = slice(tile.start, tile.stop + walk.crosses(place.stop))
        with torch.set_grad_enabled(gradients.any):
            leaf_nV = raw_cV[rows].detach().requires_grad_(gradients.any)
            parts = _parts(leaf_nV, None if target_cV is None else target_cV[rows], place, walk=walk, head=head)
            wholes = [torch.stack([walk.scales[name] * parts[name] for name in group]).sum() for group in groups]
        for name, part in parts.items():
            sums.totals[name] += part.detach()
        found = [_slope(whole, leaf_nV, gradients, again=whole is not wholes[-1]) for whole in wholes]
        for number, (slope_cV, slope_nV) in enumerate(zip(slopes, found, strict=True)):
            if number in sums.carried:
                slope_nV[0] += sums.carried.pop(number)
            if rows.stop > tile.stop:
                sums.carried[number] = slope_nV[-1].clone()
            slope_cV[tile] = slope_nV[: tile.stop - tile.start]
    for group, slope_cV in zip(groups, slopes, strict=True):
        square = _reach_hidden(slope_cV[:own], chunk, head=head, gradients=gradients)
        if walk.separate:
            sums.squares[group[0]] += square
    if slopes:
        # What the terms give the head is needed of all together only.
        whole_cV = slopes[0][:own]
        for slope_cV in slopes[1:]:
            whole_cV += slope_cV[:own]
        _reach_head(whole_cV, hidden_ND[chunk], head=head, gradients=gradients)


def _parts(
    raw_nV: Tensor, target_nV: Tensor | None, place: slice, *, walk: Walk, head: Head
) -> dict[str, Float[Tensor, ""]]:
    """Each term's Σ weight·ℓ over the tokens of `place` and the pairs that begin there; `raw_nV` may have one more."""
    student_nV = head.log_probabilities(raw_nV)
    if walk.completes and walk.needs_teacher:
        whole = slice(place.start, place.start + len(raw_nV))
        target_nV = walk.views[0].completed(whole, student_logp=student_nV)  # type: ignore[attr-defined]
    own = place.stop - place.start
    # Cutting the halo off would cost a pass over the gradient: token terms see it, with the weight 0.
    tokens_n = walk.tokens_N[place.start : place.start + len(raw_nV)]
    drawn = None if walk.experience is None else walk.experience.take(slice(place.start, place.start + len(raw_nV)))
    scores = TokenScores(student_logp=student_nV, target_logp=target_nV, tokens=tokens_n, experience=drawn)
    parts = {}
    for name, term in walk.terms.items():
        weight_n = walk.weights[name][place.start : place.start + len(raw_nV)]
        if len(raw_nV) > own:
            weight_n = torch.cat([weight_n[:own], weight_n.new_zeros(1)])
        if isinstance(term, MeasuringTerm):
            measured = term.measured(scores)
            for key, value_n in measured.values.items():
                walk.measures[f"{name}/{key}"] += (value_n * weight_n).sum()
            loss_n = measured.loss
        else:
            loss_n = term(scores)
        parts[name] = (_learnable(loss_n, tokens_n, student_nV=student_nV, what=f"the {name} term") * weight_n).sum()
    inside = slice(bisect_left(walk.pairs, place.start), bisect_left(walk.pairs, place.stop))
    for name, pair_term in walk.pair_terms.items():
        assert target_nV is not None, "a span term compares with a teacher"
        first = torch.tensor([pair - place.start for pair in walk.pairs[inside]], dtype=torch.long)
        pair_scores = PairScores(student_logp=student_nV, target_logp=target_nV, first=first)
        found_p, what = pair_term(pair_scores), f"the {name} term"
        loss_p = _learnable(found_p, first, student_nV=student_nV, what=what, each="pair")
        parts[name] = (loss_p * walk.weights[name][inside]).sum()
    return parts


def _learnable(found: Tensor, of: Tensor, *, student_nV: Tensor, what: str, each: str = "token") -> Tensor:
    """The losses of a term, which may be somebody's own: one for each token or pair `of` what it read. Raises
    `ConfigError` for one that would train something else, or nothing."""
    has_gradient = one_each(found, of, what=what, each=each).requires_grad
    if student_nV.requires_grad and len(of) and not has_gradient:
        raise ConfigError(
            f"{what} of the method has no gradient: what it gives does not depend on the student's "
            "log-probabilities, or was detached from them"
        )
    return found


def _weighted_logp(
    logp_cV: Float[Tensor, "c V"], *, tokens_c: Int[Tensor, " c"], weights_c: Float[Tensor, " c"]
) -> Float[Tensor, ""]:
    """Σ weight·log t(token); a token of weight 0 adds nothing, even where its log-probability is −inf."""
    logp_c = logp_cV.detach().gather(1, tokens_c.long()[:, None]).squeeze(1)
    return torch.where(weights_c > 0, logp_c * weights_c, 0.0).sum()


def _slope(whole: Tensor, leaf_nV: Tensor, gradients: Gradients, *, again: bool) -> Tensor:
    """The gradient by the leaf; that of the terms' own parameters is added to theirs."""
    if not whole.requires_grad:
        return torch.zeros_like(leaf_nV)
    found = torch.autograd.grad(whole, [leaf_nV, *gradients.parameters], allow_unused=True, retain_graph=again)
    for total, gradient in zip(gradients.own, found[1:], strict=True):
        if gradient is not None:
            total += gradient
    return torch.zeros_like(leaf_nV) if found[0] is None else found[0]


def _reach_hidden(raw_gradient_cV: Tensor, chunk: slice, *, head: Head, gradients: Gradients) -> Float[Tensor, ""]:
    """Adds a chunk's gradient of the hidden states; returns its square."""
    weight = head.weight
    hidden_gradient_cD = raw_gradient_cV if weight is None else raw_gradient_cV @ weight[: head.size]
    if gradients.hidden is not None:
        gradients.hidden[chunk, : head.size if weight is None else None] += hidden_gradient_cD
    return hidden_gradient_cD.to(torch.promote_types(hidden_gradient_cD.dtype, torch.float32)).square().sum()


def _reach_head(raw_gradient_cV: Tensor, hidden_cD: Tensor, *, head: Head, gradients: Gradients) -> None:
    """Adds a chunk's gradients of the head's weight and bias."""
    if gradients.weight is not None:
        rows = gradients.weight[: head.size]
        if raw_gradient_cV.dtype == rows.dtype:
            rows.addmm_(raw_gradient_cV.T, hidden_cD)
        else:
            rows += raw_gradient_cV.T @ hidden_cD
    if gradients.bias is not None:
        gradients.bias[: head.size] += raw_gradient_cV.sum(dim=0)
