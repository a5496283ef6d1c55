"""The interface of a source, and what a source is given to draw with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch

from limbeck.data.loader import batch, prompts
from limbeck.models.decoders import Decoder
from limbeck.models.extending import extend
from limbeck.models.prefixes import DrawState
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import split_rows
from limbeck.records import EncodedRow
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import Experience, RowKey, Sequences, pack_rows

Item = tuple[RowKey, EncodedRow]


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """What a source draws with: the decoder, how tokens are drawn, and the seeds of the run.

    `decoder` is the student, `teacher` the teacher of a run with one. `max_new_tokens` is the most that a response may
    be long, `max_length` the most that a row may be; `group_rows` rows are decoded together, longest prompts first.
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
        tokens: list[list[int]] = [[] for _ in items]
        flags: list[list[bool]] = [[] for _ in items]
        logp: list[list[float]] = [[] for _ in items]
        for group in split_rows(rows, self.group_rows):
            part = rows.rows(group).to(self.device)
            extension = extend(
                decoder,
                part,
                start=part.lengths,
                limit=limit_B[group].to(self.device),
                rows=torch.ones(len(group), dtype=torch.bool),
                sampling=self.sampling,
                noise=RowNoise([self.seeds.child(purpose, *key) for key in part.keys]),
                state=self.state,
            )
            extended, behaviour_logp = extension.sequences.to("cpu"), extension.behaviour_logp.cpu()
            for place, row in enumerate(group):
                length = int(extended.lengths[place])
                tokens[row] = extended.tokens[place, :length].tolist()
                flags[row] = extended.is_response[place, :length].tolist()
                logp[row] = behaviour_logp[place, extended.scored[place]].tolist()
        whole = pack_rows(
            tokens,
            flags,
            origin=[origin] * len(items),
            keys=rows.keys,
            pad_id=self.pad_id,
            limits=limit_B.tolist(),
        )
        behaviour_logp_N = torch.tensor([value for row in logp for value in row], dtype=torch.float32)
        return replace(whole, experience=Experience(behaviour_logp=behaviour_logp_N))


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
