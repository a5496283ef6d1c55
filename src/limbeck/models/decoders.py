"""Who says what comes next: the decoder's interface, and one causal model as a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from limbeck.losses.fused import HiddenView
from limbeck.models.prefixes import Layers, given, taken
from limbeck.models.scoring import Scored, Scorer, causal
from limbeck.types import Sequences


@runtime_checkable
class Decoder(Protocol):
    """What `extend` asks for the next token's distribution. The cache is the decoder's own business."""

    def start(self) -> Any:
        """An empty cache."""
        ...

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Log-probabilities of what follows the last column; the cache grows by these columns."""
        ...

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        ...


@runtime_checkable
class Sustaining(Protocol):
    """A decoder that can prepare for many forwards with the same weights."""

    def sustained(self) -> AbstractContextManager[None]:
        """Around all forwards of a draw."""
        ...


class CausalDecoder:
    """One causal model, on one rank."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def start(self) -> Any:
        """An empty cache."""
        return DynamicCache(config=causal(self._scorer.model).config)

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Log-probabilities of what follows the last column."""
        return self._scorer.next_logp(tokens, attended=attended, positions=positions, cache=cache)

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        cache.batch_select_indices(rows)

    def sustained(self) -> AbstractContextManager[None]:
        """Weights are cast once for all forwards inside."""
        return self._scorer.sustained()

    def take(self, cache: Any, row: int, *, length: int) -> Layers | None:
        """A row's keys and values; None where a layer is not plain full attention."""
        return taken(cache, row, length=length)

    def give(self, rows: Sequence[Layers]) -> Any:
        """A cache of these rows."""
        return given(rows, config=causal(self._scorer.model).config)

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """This model's distributions at the scored tokens of whole rows."""
        return self._scorer.view(sequences, where)
