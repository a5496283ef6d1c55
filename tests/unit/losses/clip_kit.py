"""Scores of random tokens, and DAC-KL terms whose network says what it was told."""

from __future__ import annotations

import torch
from torch import nn

from limbeck.losses.clip_networks import Bounds
from limbeck.losses.dac import DACKL, ClippedKL
from limbeck.losses.match import TokenScores


def scores_of(n: int, V: int, *, seed: int = 0, sharp: float = 2.0, dtype: torch.dtype = torch.float64) -> TokenScores:
    generator = torch.Generator().manual_seed(seed)
    target, student = (torch.randn(n, V, generator=generator, dtype=dtype) * scale for scale in (sharp, 1.5))
    tokens = torch.zeros(n, dtype=torch.long)
    student_logp = student.log_softmax(-1).requires_grad_()
    return TokenScores(student_logp=student_logp, target_logp=target.log_softmax(-1), tokens=tokens)


def built(part: DACKL, V: int) -> ClippedKL:
    return part.build(vocabulary_size=V, generator=torch.Generator().manual_seed(1)).double()


class _Given(nn.Module):
    """A network that says what it was told."""

    def __init__(self, lower: torch.Tensor, upper: torch.Tensor) -> None:
        super().__init__()
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)

    def forward(self, features: torch.Tensor) -> Bounds:
        return Bounds(lower=self.lower.expand(len(features)), upper=self.upper.expand(len(features)))


def with_bounds(part: DACKL, V: int, *, lower: float, upper: float) -> ClippedKL:
    term = built(part, V)
    term.network = _Given(*(torch.tensor([x], dtype=torch.float64) for x in (lower, upper)))
    return term
