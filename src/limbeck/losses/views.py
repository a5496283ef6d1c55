"""How a teacher is kept: its distributions at the scored tokens, made a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.losses.heads import Head


@runtime_checkable
class TeacherView(Protocol):
    """A teacher's distributions at the scored tokens, `[N V]`, made a chunk at a time."""

    def log_probabilities(self, chunk: slice) -> Float[Tensor, "n V"]:
        """The log-probabilities of these scored tokens, without gradient."""
        ...


@runtime_checkable
class CompletedView(Protocol):
    """A teacher that does not know every class: where the rest of its mass goes, the student says."""

    def completed(self, chunk: slice, *, student_logp: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
        """The log-probabilities of these scored tokens beside the student's, without gradient."""
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

    def taken(self, index_N: Int[Tensor, " N"]) -> HiddenView:
        """These scored tokens, in this order."""
        return replace(self, hidden=self.hidden[index_N.to(self.hidden.device)])


def chunks(num_tokens: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` tokens that cover `num_tokens`.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    assert size > 0
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


def target_of(views: Sequence[TeacherView], chunk: slice, *, device: torch.device) -> Float[Tensor, "n V"] | None:
    """The teacher's log-probabilities of a chunk, brought to this device from its own; None without a teacher."""
    return views[0].log_probabilities(chunk).to(device) if views else None
