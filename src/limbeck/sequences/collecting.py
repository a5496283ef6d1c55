"""Rollouts of student and teacher together, gathered into a collection that several steps learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.fused import token_scores
from limbeck.losses.heads import auto_chunk
from limbeck.models.decoders import Decoder, MixedDecoder, Viewing
from limbeck.models.scoring import scored_tokens, split_rows
from limbeck.seeds import Seeds
from limbeck.sequences.source import Item, Rollouts
from limbeck.types import Experience, Sequences, pack_rows


class _Held:
    """What a source remembers between steps: the collection, and the step that it was gathered at."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.collection: Sequences | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CollectedRollouts:
    """Responses drawn token by token from teacher and student together, learned from again and again.

        y_t ~ p̃_t = a · p_t + (1 − a) · q_t        a = `teacher_share`, p teacher, q student
        step k of a collection takes the rows π_e[k·B mod rows …], e = k·B div rows, B = `train.batch_rows`

    MiniLLM's teacher-mixed sampling (arXiv 2306.08543, Eq. 4, with a = 0.2) and its code's `rows` = 256 rollouts with
    `epochs` = 4 passes over them. `rows` counts over all ranks. π_e is the seeded order of inner epoch e,
    `seeds.child("collection", first step, e)`; it is of the whole collection, so that ranks do not enter it. Tokens are
    drawn as `sampling` says, with the noise that `student` uses: a share of 0 draws the student's own tokens, bit for
    bit, and the origin of the rows is then "student" instead of "mixed".

    Each row comes with its experience: `behaviour_logp` of what a token was drawn from, and what both models gave it at
    that moment, read from whole rows as training reads them. No advantage: that is the token term's business. Raises
    `ConfigError` without a teacher. It does not go into a `mixture`: a collection counts the run's steps.
    """

    needs_teacher: ClassVar[bool] = True

    teacher_share: float = Field(default=0.2, ge=0.0, lt=1.0)
    rows: int = Field(default=256, ge=1)
    epochs: int = Field(default=4, ge=1)

    @cached_property
    def _held(self) -> _Held:
        return _Held()

    @property
    def repeats(self) -> int:
        """How many steps learn from each row."""
        return self.epochs

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """The rows of a whole collection at its first step, and none at the others."""
        return self.rows if self._first(step, batch_rows=batch_rows) == step else 0

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """This rank's rows of a new collection with their experience; none inside a collection."""
        if not items:
            return pack_rows([], [], origin=[], keys=[], pad_id=rollouts.pad_id)
        if rollouts.teacher is None:
            raise ConfigError("rollouts are drawn with a teacher, but none was given: name one in models.teacher")
        decoder, origin = rollouts.decoder, "student"
        if self.teacher_share > 0:
            decoder, origin = MixedDecoder(decoder, rollouts.teacher, share=self.teacher_share), "mixed"
        drawn = rollouts.drawn(items, decoder=decoder, origin=origin)
        return _read(drawn, student=rollouts.decoder, teacher=rollouts.teacher, rollouts=rollouts)

    def collection(self) -> Sequences | None:
        """The collection that was kept last."""
        return self._held.collection

    def held(self) -> Iterable[tuple[Int[Tensor, " _"], Bool[Tensor, " _"]]]:
        """The rows of the collection."""
        rows = self._held.collection
        lengths = [] if rows is None else rows.lengths.tolist()
        return [(rows.tokens[b, :n], rows.is_response[b, :n]) for b, n in enumerate(lengths) if rows is not None]

    def portion(self, step: int, *, batch_rows: int, seeds: Seeds) -> list[int]:
        """Which rows of its collection a step learns from."""
        first = self._first(step, batch_rows=batch_rows)
        epoch, place = divmod((step - first) * batch_rows, self.rows)
        order = seeds.child("collection", first, epoch).generator().permutation(self.rows)
        return [int(row) for row in order[place : place + batch_rows]]

    def _first(self, step: int, *, batch_rows: int) -> int:
        """The step at which this step's collection was gathered: this one, if the last collection is used up."""
        first = self._held.first
        is_over = first is None or (step - first) * batch_rows >= self.rows * self.epochs
        return step if first is None or is_over else first

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Remember the collection that this step was a part of."""
        if drawn is not self._held.collection:
            self._held.first, self._held.collection = step, drawn

    def observe(self, validation_loss: float) -> None:
        """Nothing adapts."""

    def state(self) -> Mapping[str, Any]:
        """The step that the collection was gathered at, and its rows with their experience."""
        held = self._held.collection
        if held is None:
            return {"first": None}
        return {
            "first": self._held.first,
            "origin": list(held.origin),
            "keys": [list(key) for key in held.keys],
            "limits": None if held.limits is None else list(held.limits),
            "tokens": held.tokens,
            "attended": held.attended,
            "is_response": held.is_response,
            "experience": None if held.experience is None else held.experience.columns(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self._held.first, self._held.collection = state["first"], None
        if state["first"] is None:
            return
        self._held.collection = Sequences(
            tokens=state["tokens"],
            attended=state["attended"],
            is_response=state["is_response"],
            origin=tuple(state["origin"]),
            keys=tuple(tuple(key) for key in state["keys"]),
            experience=None if state["experience"] is None else Experience(**state["experience"]),
            limits=None if state["limits"] is None else tuple(state["limits"]),
        )


def _read(drawn: Sequences, *, student: Decoder, teacher: Decoder, rollouts: Rollouts) -> Sequences:
    """The rows with what both models say about each drawn token, `[N V]` never formed."""
    assert isinstance(student, Viewing), "the decoder of a run reads whole rows too"
    assert isinstance(teacher, Viewing), "the decoder of a run reads whole rows too"
    assert drawn.experience is not None, "rollouts know what their tokens were drawn with"
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for group in split_rows(drawn, rollouts.group_rows):
        part = drawn.rows(group).to(rollouts.device)
        where = scored_tokens(part)
        view, target = student.view(part, where), teacher.view(part, where)
        chunk = auto_chunk(view.head.size, rollouts.device.type)
        pieces = []
        for scores in token_scores(view.hidden, head=view.head, tokens_N=where.tokens, views=[target], chunk=chunk):
            assert scores.target_logp is not None, "the teacher was asked"
            index = scores.tokens.long().unsqueeze(1)
            both = (scores.student_logp.gather(1, index), scores.target_logp.gather(1, index))
            pieces.append(torch.cat([column.cpu() for column in both], dim=1))
        both_N2 = torch.cat([torch.empty((0, 2)), *pieces])
        sizes = part.scored.sum(dim=1).tolist()
        for row, own in zip(group, torch.split(both_N2, sizes), strict=True):
            found[row] = (own[:, 0], own[:, 1])
    columns = [torch.cat([found[row][number] for row in range(len(drawn))]) for number in (0, 1)]
    student_logp, teacher_logp = columns
    experience = replace(drawn.experience, student_logp=student_logp, teacher_logp=teacher_logp)
    return replace(drawn, experience=experience)
