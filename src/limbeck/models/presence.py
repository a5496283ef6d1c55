"""What a scorer asks of whoever holds its model's weights, where they are not simply there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Presence(Protocol):
    """How a model whose weights are not simply there is made ready, by whoever holds them."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def forward(self) -> AbstractContextManager[None]:
        """Around each forward."""
        ...

    def ready(self, part: nn.Module) -> None:
        """Before the weights of a part are read."""
        ...

    def leave(self) -> None:
        """Nobody will ask for a while."""
        ...
