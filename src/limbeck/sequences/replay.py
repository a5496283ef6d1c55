"""The student's earlier responses, learned from again: a buffer, and the choice of fresh, replayed or fixed rows."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.seeds import Seeds
from limbeck.sequences.building import Ground, SourceToBuild
from limbeck.sequences.fixed import Fixed
from limbeck.sequences.mixed import Mixture
from limbeck.sequences.schedules import Adaptive, Schedule
from limbeck.sequences.source import Item, Rollouts, Source
from limbeck.sequences.written import Student
from limbeck.types import RowKey, Sequences, pack_rows

REPLAYED = "replayed"
Turn = Literal["fresh", "replayed", "fixed"]
TURNS: tuple[Turn, ...] = ("fresh", "replayed", "fixed")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Replay:
    """The student's responses, fresh or from a buffer, by a schedule φ; else the corpus's (DistiLLM, arXiv 2402.03898).

        u(step) < s, or u(step) < φ while the buffer is not full   →  fresh: drawn, revised, remembered
        u(step) < φ                                                →  replayed: `batch_rows` rows of the buffer
        otherwise                                                  →  fixed: the corpus's responses

        s(t) = φ·(1 − t/T)  `fresh` decreasing,  φ/2  constant,  φ·t/T  increasing          t from 1 to T steps

    The coin u belongs to the step: all rows, on all ranks, take the same turn. The buffer holds the last `capacity`
    rows over all ranks, as they were learned from: corrected rows stay corrected, and are not looked at again (origin
    "replayed"). A replayed step draws `batch_rows` different rows and takes none from the loader; its supervised term
    reads the references of the replayed rows. DistiLLM's code calls `fresh` the replay ratio.

    With `replay_on_mixed`, u(step) < φ draws fresh rows, remembers them, and learns from rows of the buffer, these
    among them: what DistiLLM's code does where its comparison says on-policy.

    >>> from limbeck.sequences.building import Ground
    >>> from limbeck.sequences.schedules import Constant
    >>> replay = Replay(schedule=Constant(1.0), capacity=4).build(Ground(steps=10, batch_rows=2, pad_id=0))
    >>> [replay.turn(step, seeds=Seeds(0)) for step in (1, 2)], replay.prompts(1, batch_rows=2, seeds=Seeds(0))
    (['fresh', 'fresh'], 2)
    """

    source: Source = Field(default_factory=Student)
    schedule: Schedule = Field(default_factory=Adaptive)
    capacity: int = Field(default=1000, ge=1)
    fresh: Literal["decreasing", "constant", "increasing"] = "decreasing"
    replay_on_mixed: bool = False

    @model_validator(mode="after")
    def _check_parts(self) -> Replay:
        if isinstance(self.source, Fixed | Mixture | SourceToBuild):
            kind = type(self.source).__name__
            raise ValueError(f"source is {kind}; only responses that the student draws are replayed, take 'student'")
        if self.replay_on_mixed and self.fresh != "decreasing":
            raise ValueError(f"fresh is '{self.fresh}', which replay_on_mixed never reads; delete one of them")
        return self

    def fresh_threshold(self, step: int, *, steps: int, threshold: float) -> float:
        """s(t): below it the rows are drawn anew even where the buffer is full.

        >>> Replay(fresh="increasing").fresh_threshold(1, steps=4, threshold=0.8)
        0.2
        """
        if self.replay_on_mixed:
            return threshold
        if self.fresh == "constant":
            return threshold / 2
        return threshold * (step / steps if self.fresh == "increasing" else 1 - step / steps)

    def build(self, ground: Ground) -> Replaying:
        """The source of a run, its buffer empty."""
        return Replaying(self, ground)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the buffer, on the CPU."""

    key: RowKey
    tokens: Int[Tensor, " n"]
    is_response: Bool[Tensor, " n"]
    step: int


class Replaying:
    """`Replay` in a run: what it remembers is the buffer, the rises of the validation loss, and the turns so far.

    Every rank holds the whole buffer (1,000 rows of 512 tokens are 5 MB) and takes every `ranks`-th row of a sample, so
    that any number of processes learns from the same rows.
    """

    def __init__(self, replay: Replay, ground: Ground) -> None:
        self.component = replay
        self._ground = ground
        self._buffer: deque[_Row] = deque(maxlen=replay.capacity)
        self._rises = 0
        self._since: float | None = None
        self._turns: dict[str, int] = dict.fromkeys(TURNS, 0)

    def thresholds(self, step: int) -> tuple[float, float]:
        """φ and s of a step."""
        steps = self._ground.steps
        schedule = self.component.schedule
        threshold = schedule.threshold(step, steps=steps, rises=self._rises)
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(
                f"the schedule {type(schedule).__name__} gave {threshold!r} at step {step}; allowed: a probability, "
                "0 to 1"
            )
        return threshold, self.component.fresh_threshold(step, steps=steps, threshold=threshold)

    def notes(self) -> list[str]:
        """That nothing will be replayed, where so few rows are drawn that the buffer does not fill."""
        steps, capacity = self._ground.steps, self.component.capacity
        drawn = self._ground.batch_rows * sum(self.thresholds(step)[0] for step in range(1, steps + 1))
        if drawn >= capacity or self.component.replay_on_mixed:
            return []
        return [
            f"the replay buffer holds {capacity:,} rows, and the schedule begins with about {drawn:,.0f} drawn rows in "
            f"{steps:,} steps: until it is full nothing is replayed; a smaller capacity replays earlier"
        ]

    def turn(self, step: int, *, seeds: Seeds) -> Turn:
        """Which rows the step learns from; it does not change before `keep`."""
        threshold, fresh = self.thresholds(step)
        coin = seeds.child("coin", step).uniform()
        if coin >= threshold:
            return "fixed"
        is_full = len(self._buffer) == self.component.capacity
        return "fresh" if coin < fresh or not is_full else "replayed"

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """None at a replayed step; as many as its source takes at a fresh one."""
        turn = self.turn(step, seeds=seeds)
        if turn == "fresh":
            return self.component.source.prompts(step, batch_rows=batch_rows, seeds=seeds)
        return batch_rows if turn == "fixed" else 0

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The rows of this step's turn."""
        turn = self.turn(step, seeds=rollouts.seeds)
        if turn == "replayed":
            return self._sampled(list(self._buffer), step=step, seeds=rollouts.seeds)
        if turn == "fixed":
            return rollouts.reference(items)
        return self.component.source.draw(items, rollouts=rollouts, step=step)

    def exchanged(self, drawn: Sequences, *, step: int, seeds: Seeds) -> Sequences:
        """With `replay_on_mixed`, rows of the buffer in the place of fresh ones; otherwise the rows as they are."""
        if not self.component.replay_on_mixed or self.turn(step, seeds=seeds) != "fresh":
            return drawn
        rows = [*self._buffer, *self._of_all_ranks(drawn, step=step)][-self.component.capacity :]
        return self._sampled(rows, step=step, seeds=seeds)

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Fresh rows go into the buffer, in the order of the step's batch; the oldest ones leave it."""
        turn = self.turn(step, seeds=seeds)
        self._turns[turn] += 1
        if turn == "fresh":
            self._buffer.extend(self._of_all_ranks(drawn, step=step))

    def held(self) -> Iterable[tuple[Int[Tensor, " _"], Bool[Tensor, " _"]]]:
        """The rows of the buffer."""
        return [(row.tokens, row.is_response) for row in self._buffer]

    def observes(self, step: int) -> bool:
        """When the schedule looks at the validation loss."""
        return self.component.schedule.observes(step, steps=self._ground.steps)

    def observe(self, validation_loss: float) -> None:
        """The first loss is what later ones are compared with; a rise moves the threshold."""
        if self._since is None:
            self._since = validation_loss
        elif self.component.schedule.rose(validation_loss, since=self._since):
            self._rises, self._since = self._rises + 1, validation_loss

    def told(self, step: int, *, seeds: Seeds) -> Mapping[str, Any]:
        """Its turn, φ and s, the rows in the buffer, and the share of each turn among the steps so far, this one in;
        where rows of the buffer are learned from, their `age`: the mean number of steps since each was drawn."""
        threshold, fresh = self.thresholds(step)
        turn = self.turn(step, seeds=seeds)
        counts = {name: count + (name == turn) for name, count in self._turns.items()}
        shares = {name: count / sum(counts.values()) for name, count in counts.items()}
        said = {"turn": turn, "threshold": threshold, "fresh_threshold": fresh, "rows": len(self._buffer), **shares}
        drawn = [row.step for row in self._buffer]
        if turn == "fresh" and self.component.replay_on_mixed:
            drawn = [*drawn, *[step] * self._ground.batch_rows][-self.component.capacity :]
        elif turn != "replayed":
            return said
        ages = [step - drawn[place] for place in self._chosen(len(drawn), step=step, seeds=seeds)]
        return {**said, "age": sum(ages) / len(ages)}

    def state(self) -> Mapping[str, Any]:
        """The buffer row after row as tensors, and the numbers."""
        rows = list(self._buffer)
        nothing = torch.zeros(0, dtype=torch.int32)
        return {
            "rises": self._rises,
            "since": self._since,
            "turns": dict(self._turns),
            "tokens": torch.cat([nothing, *(row.tokens.int() for row in rows)]),
            "is_response": torch.cat([nothing.bool(), *(row.is_response for row in rows)]),
            "lengths": torch.tensor([len(row.tokens) for row in rows], dtype=torch.int32),
            "keys": torch.tensor([row.key for row in rows], dtype=torch.long).reshape(len(rows), -1 if rows else 0),
            "drawn_at": torch.tensor([row.step for row in rows], dtype=torch.long),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self._rises, self._since = int(state["rises"]), state["since"]
        self._turns = {name: int(state["turns"][name]) for name in TURNS}
        lengths = state["lengths"].tolist()
        parts = zip(
            state["keys"].tolist(),
            state["tokens"].long().split(lengths),
            state["is_response"].split(lengths),
            state["drawn_at"].tolist(),
            strict=True,
        )
        # Copies: a part of a split keeps the memory of the whole.
        copied = (_Row(tuple(key), tokens.clone(), flags.clone(), step) for key, tokens, flags, step in parts)
        rows = list(copied) if lengths else []
        self._buffer = deque(rows, maxlen=self.component.capacity)

    def _of_all_ranks(self, drawn: Sequences, *, step: int) -> list[_Row]:
        """The step's rows of all ranks in the order of the batch, of which each rank has every `ranks`-th."""
        lengths = drawn.lengths.tolist()
        own = [
            _Row(key, drawn.tokens[row, :length].cpu().clone(), drawn.is_response[row, :length].cpu().clone(), step)
            for row, (key, length) in enumerate(zip(drawn.keys, lengths, strict=True))
        ]
        rows = self._ground.gather(own)
        each = len(rows) // self._ground.ranks
        return [rows[rank * each + place] for place in range(each) for rank in range(self._ground.ranks)]

    def _sampled(self, rows: Sequence[_Row], *, step: int, seeds: Seeds) -> Sequences:
        """This rank's share of `batch_rows` different rows, in the order that they were remembered in."""
        chosen = self._chosen(len(rows), step=step, seeds=seeds)
        own = [rows[place] for place in chosen[self._ground.rank :: self._ground.ranks]]
        return pack_rows(
            [row.tokens.tolist() for row in own],
            [row.is_response.tolist() for row in own],
            origin=[REPLAYED] * len(own),
            keys=[row.key for row in own],
            pad_id=self._ground.pad_id,
        )

    def _chosen(self, rows: int, *, step: int, seeds: Seeds) -> list[int]:
        """The places of `batch_rows` different ones among so many rows, in ascending order."""
        generator = seeds.child("replay", step).generator()
        return sorted(generator.choice(rows, size=self._ground.batch_rows, replace=False).tolist())
