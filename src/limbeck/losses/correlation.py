"""Span terms: what two neighbouring tokens of a span cost together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.spans.extractors import Extractor, Phrases

_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairScores:
    """Both models' log-probabilities of n neighbouring scored tokens; pair p is of rows `first[p]` and
    `first[p] + 1`."""

    student_logp: Float[Tensor, "n V"]
    target_logp: Float[Tensor, "n V"]
    first: Int[Tensor, " p"]


@runtime_checkable
class PairTerm(Protocol):
    """Scores -> one loss a pair of neighbouring tokens of a span, unreduced. The target is a constant."""

    @property
    def extractor(self) -> Extractor:
        """What finds the spans."""
        ...

    def __call__(self, scores: PairScores) -> Float[Tensor, " p"]:
        """One number a pair."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Correlation:
    """‖s_j ∘ s_{j+1} − t_j ∘ t_{j+1}‖₂ (MGSR, arXiv 2407.10068, Eq. 10): no unit; at most √2, mostly far less.

    s and t are whole, unclipped softmax distributions, ∘ the product class by class. The norm is not squared, with
    1e-12 under the root; float32 or better. Which tokens are neighbours in a span, and the weight of a pair, are
    settled outside (`Objective.weights`).

    >>> logp = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
    >>> other = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log()
    >>> scores = PairScores(student_logp=logp, target_logp=other, first=torch.tensor([0]))
    >>> round(Correlation()(scores).item(), 4)
    0.7071
    """

    extractor: Extractor = field(default_factory=Phrases)

    needs_teacher: ClassVar[bool] = True

    def __call__(self, scores: PairScores) -> Float[Tensor, " p"]:
        """One number a pair."""
        dtype = torch.promote_types(scores.student_logp.dtype, torch.float32)
        found: Tensor = _Distance.apply(  # type: ignore[no-untyped-call]
            scores.student_logp.to(dtype), scores.target_logp.detach().to(dtype), scores.first.tolist()
        )
        return found


class _Distance(torch.autograd.Function):
    """Runs of pairs are slices, which need no copies; the derivative by both tokens of a pair is the same [V]."""

    @staticmethod
    def forward(ctx: Any, student_nV: Tensor, target_nV: Tensor, first: list[int]) -> Tensor:
        """The distance of each pair's products; its slope by the products is kept for the way back."""
        distance_p = student_nV.new_empty(len(first))
        slope_pV = student_nV.new_empty(len(first), student_nV.shape[1])
        for place, start, stop in _runs(first):
            pairs = slice(place, place + stop - start)
            student = (student_nV[start:stop] + student_nV[start + 1 : stop + 1]).exp_()
            gap = (target_nV[start:stop] + target_nV[start + 1 : stop + 1]).exp_().neg_().add_(student)
            distance_p[pairs] = (torch.linalg.vector_norm(gap, dim=-1).square_() + _EPSILON).sqrt_()
            torch.mul(gap, student, out=slope_pV[pairs])
        ctx.save_for_backward(slope_pV, distance_p)
        ctx.first, ctx.shape = first, student_nV.shape
        return distance_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_p: Tensor) -> tuple[Tensor, None, None]:
        """The student's gradient: both tokens of a pair get its slope."""
        slope_pV, distance_p = ctx.saved_tensors
        slope_pV = slope_pV * (grad_p / distance_p).unsqueeze(-1)
        gradient_nV = slope_pV.new_zeros(ctx.shape)
        for place, start, stop in _runs(ctx.first):
            pairs = slice(place, place + stop - start)
            gradient_nV[start:stop] += slope_pV[pairs]
            gradient_nV[start + 1 : stop + 1] += slope_pV[pairs]
        return gradient_nV, None, None


def _runs(first: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(place of its first pair, its first row, one past its last pair's row) of each run of consecutive pairs.

    >>> list(_runs([0, 1, 5]))
    [(0, 0, 2), (2, 5, 6)]
    """
    for _, run in itertools.groupby(enumerate(first), key=lambda pair: pair[1] - pair[0]):
        entries = list(run)
        yield entries[0][0], entries[0][1], entries[-1][1] + 1
