"""Who says what comes next: the decoder's interface, and one causal model as a decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from limbeck.losses.fused import HiddenView
from limbeck.models.prefixes import Layers, given, taken
from limbeck.models.scoring import Scored, Scorer, causal, scored_tokens
from limbeck.models.teacher_cache import TeacherCache
from limbeck.models.turns import Joining, caches_join, joined_caches
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
        """Only these rows go on; a row that is named several times goes on as so many."""
        ...


@runtime_checkable
class Sustaining(Protocol):
    """A decoder that can prepare for many forwards with the same weights."""

    def sustained(self) -> AbstractContextManager[None]:
        """Around all forwards of a draw."""
        ...


@runtime_checkable
class Viewing(Protocol):
    """A decoder that reads whole rows too."""

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Its distributions at the scored tokens of whole rows."""
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

    def joins(self, cache: Any) -> bool:
        """Whether rows come in while others go on: every layer keeps plain keys and values, windows among them."""
        return caches_join(cache, config=causal(self._scorer.model).config)

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """One cache with the rows of all, of their last `width` columns."""
        return joined_caches(caches, width=width, config=causal(self._scorer.model).config)

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


class TeacherDecoder:
    """A teacher as a decoder: tokens are taken to the device it is on, and what it says is brought back.

    With a `cache`, whole rows are read through it: what is learned from later need not be read again.
    """

    def __init__(self, scorer: Scorer, *, cache: TeacherCache | None = None) -> None:
        self._scorer = scorer
        self._own = CausalDecoder(scorer)
        self._cache = cache

    @property
    def _home(self) -> torch.device:
        return self._scorer.device

    def start(self) -> Any:
        """An empty cache."""
        return self._own.start()

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Log-probabilities of what follows the last column, on the device of `tokens`."""
        home = self._home
        logp_bV = self._own.next_logp(
            tokens.to(home), attended=attended.to(home), positions=positions.to(home), cache=cache
        )
        return logp_bV.to(tokens.device)

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        self._own.keep(cache, rows.to(self._home))

    def joins(self, cache: Any) -> bool:
        """Whether rows come in while others go on."""
        return self._own.joins(cache)

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """One cache with the rows of all, of their last `width` columns."""
        return self._own.joined(caches, width=width)

    def sustained(self) -> AbstractContextManager[None]:
        """Weights are cast once for all forwards inside."""
        return self._own.sustained()

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Its distributions at the scored tokens of whole rows, kept on its own device."""
        if self._cache is not None:
            return self._cache.read(sequences)
        moved = sequences.to(self._home)
        return self._own.view(moved, scored_tokens(moved))


class MixedDecoder:
    """A teacher and a student that draw each token together, each with a cache of its own.

        p̃(v) = share · p(v) + (1 − share) · q(v)        p teacher, q student, over the vocabulary that both share

    MiniLLM's teacher-mixed sampling (arXiv 2306.08543, Eq. 4) has share = 0.2. The mixture is of probabilities, formed
    from their logarithms in float32 or better; an id that both exclude stays excluded. It is one more decoder for
    `extend`: how a token is drawn from p̃ is decided there. A student that is sharded over ranks takes its forwards as
    it does alone. Raises nothing of its own.
    """

    def __init__(self, student: Decoder, teacher: Decoder, *, share: float) -> None:
        assert 0 < share < 1, "at 0 the student draws alone, at 1 the teacher does"
        self._student = student
        self._teacher = teacher
        self._share = share

    def start(self) -> Any:
        """An empty cache of each."""
        return self._student.start(), self._teacher.start()

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """log p̃ of what follows the last column."""
        own, other = (
            decoder.next_logp(tokens, attended=attended, positions=positions, cache=part)
            for decoder, part in zip((self._student, self._teacher), cache, strict=True)
        )
        return torch.logaddexp(own + math.log1p(-self._share), other.to(own.dtype) + math.log(self._share))

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on, in both caches."""
        for decoder, part in zip((self._student, self._teacher), cache, strict=True):
            decoder.keep(part, rows)

    def joins(self, cache: Any) -> bool:
        """Whether rows come in while others go on, in both caches."""
        both = zip((self._student, self._teacher), cache, strict=True)
        return all(isinstance(decoder, Joining) and decoder.joins(part) for decoder, part in both)

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """One cache of each with the rows of all, of their last `width` columns."""
        student, teacher = self._student, self._teacher
        assert isinstance(student, Joining), "asked before"
        assert isinstance(teacher, Joining), "asked before"
        own, other = zip(*caches, strict=True)
        return student.joined(own, width=width), teacher.joined(other, width=width)

    @contextmanager
    def sustained(self) -> Iterator[None]:
        """Both prepare, as far as they can."""
        with ExitStack() as stack:
            for decoder in (self._student, self._teacher):
                if isinstance(decoder, Sustaining):
                    stack.enter_context(decoder.sustained())
            yield
