"""What a scorer asks of whoever holds its model's weights: most are simply there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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


class Resident:
    """A model whose weights are where it computes."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @property
    def device(self) -> torch.device:
        """Where they are."""
        found: torch.device = next(self._model.parameters()).device
        return found

    def forward(self) -> AbstractContextManager[None]:
        """Nothing is to be done."""
        return nullcontext()

    def ready(self, part: nn.Module) -> None:
        """They are there."""

    def leave(self) -> None:
        """They stay."""
