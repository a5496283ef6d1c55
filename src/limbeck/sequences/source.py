"""The interface of a source, and what a source is given to draw with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch

from limbeck.data.loader import batch, prompts
from limbeck.models.decoders import Decoder
from limbeck.models.extending import extend_in_turn
from limbeck.models.prefixes import DrawState
from limbeck.models.sampling import Sampling
from limbeck.records import EncodedRow
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import Experience, RowKey, Sequences

Item = tuple[RowKey, EncodedRow]


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """What a source draws with: the decoder, how tokens are drawn, and the seeds of the run.

    `decoder` is the student, `teacher` the teacher of a run with one. `max_new_tokens` is the most that a response may
    be long, `max_length` the most that a row may be; at most `group_rows` rows are decoded at a time, and waiting rows
    take the place of finished ones.
    `state`, where given, keeps what rows that are drawn on from need.
    """

    decoder: Decoder
    sampling: Sampling
    max_new_tokens: int
    max_length: int
    group_rows: int
    pad_id: int
    seeds: Seeds
    device: torch.device
    state: DrawState | None = None
    teacher: Decoder | None = None

    def reference(self, items: Sequence[Item]) -> Sequences:
        """The rows with the responses that the corpus has."""
        return batch(items, pad_id=self.pad_id)

    def student(self, items: Sequence[Item], *, horizon: int | None = None, purpose: str = "draw") -> Sequences:
        """The rows with responses drawn from the decoder, of at most `horizon` tokens where one is given.

        Noise belongs to the row: `seeds.child(purpose, *key)`. Rows come back in the order they were given.
        """
        drawn = self.drawn(items, decoder=self.decoder, origin="student", horizon=horizon, purpose=purpose)
        return replace(drawn, experience=None)

    def drawn(
        self,
        items: Sequence[Item],
        *,
        decoder: Decoder,
        origin: str,
        horizon: int | None = None,
        purpose: str = "draw",
    ) -> Sequences:
        """The rows with responses from any decoder, and what each token was drawn with as their experience."""
        rows = prompts(items, pad_id=self.pad_id)
        most = self.max_new_tokens if horizon is None else min(horizon, self.max_new_tokens)
        limit_B = (rows.lengths + most).clamp(max=self.max_length)
        part = rows.to(self.device)
        extension = extend_in_turn(
            decoder,
            part,
            seats=self.group_rows,
            start=part.lengths,
            limit=limit_B.to(self.device),
            rows=torch.ones(len(rows), dtype=torch.bool),
            sampling=self.sampling,
            noise=RowNoise([self.seeds.child(purpose, *key) for key in rows.keys]),
            state=self.state,
        )
        extended, behaviour_logp = extension.sequences.to("cpu"), extension.behaviour_logp.cpu()
        return replace(
            extended,
            tokens=extended.tokens.masked_fill(~extended.attended, self.pad_id),
            origin=(origin,) * len(items),
            limits=tuple(limit_B.tolist()),
            experience=Experience(behaviour_logp=behaviour_logp[extended.scored].float()),
        )


@runtime_checkable
class Source(Protocol):
    """Where the rows of a step come from. `state` and `restore` are what a checkpoint holds of it.

    One whose rows serve several steps is `Collecting` too.
    """

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """How many new rows this step takes from the loader."""
        ...

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The sequences of this step on this rank."""
        ...

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """After revision: remember the rows of this step, if this source does."""
        ...

    def observe(self, validation_loss: float) -> None:
        """After a validation: adapt, if this source does. One that is `building.Observing` says when it is called."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint must hold, as plain JSON values, and CPU tensors in mappings of any depth.

        The first rank writes it and all read it: it must be the same on every rank.
        """
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        ...


@runtime_checkable
class Collecting(Protocol):
    """A source that gathers a collection of rows, to be learned from in several steps.

    At the first step of a collection `prompts` asks for all its rows, and `draw` gives this rank's part of them; at the
    others there is nothing to draw. `keep` gets the whole collection, the rows of all ranks, at every step.
    """

    @property
    def repeats(self) -> int:
        """How many steps learn from each row."""
        ...

    def collection(self) -> Sequences | None:
        """The collection that was kept last."""
        ...

    def portion(self, step: int, *, batch_rows: int, seeds: Seeds) -> list[int]:
        """Which rows of its collection a step learns from."""
        ...
