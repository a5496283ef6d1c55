"""Responses that the teacher writes once, before the first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.seeds import Seeds
from limbeck.sequences.building import Ground, Written
from limbeck.sequences.source import Item, Rollouts
from limbeck.types import Sequences, pack_rows


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TeacherWritten:
    """`y ~ p(·|x)`: the teacher answers each training prompt once, and every epoch reads that answer
    (sequence-level distillation, arXiv 1606.07947).

    Answers are kept in `cache` (null: `teacher-written/` below $LIMBECK_CACHE or ~/.cache/limbeck) and shared by all
    runs that ask the same teacher in the same way; no other run's seed enters them. An answer that was cut at
    `sampling.max_new_tokens`, `data.max_length` or the end of the teacher's context has no end-of-turn token. Kim and
    Rush take the best of a beam of 5; here an answer is drawn, T = 1 and nothing cut off, as in the comparisons of
    MiniLLM and DistiLLM. A teacher with another tokenizer reads its own template, and the student reads its text.
    """

    temperature: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    cache: str | None = Field(default=None, min_length=1)

    def build(self, ground: Ground) -> Answers:
        """The source of a run; answers that are not there yet are written first."""
        return Answers(ground.written(self))


@dataclasses.dataclass(frozen=True)
class Answers:
    """`TeacherWritten` in a run: the rows that the student learns from, by the student's prompt tokens."""

    rows: Written

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """All rows of the step are new."""
        return batch_rows

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The prompts with the teacher's answers."""
        rows = [self.rows[item.prompt] for _, item in items]
        return pack_rows(
            [row.tokens for row in rows],
            [row.is_response for row in rows],
            origin=["teacher"] * len(items),
            keys=[key for key, _ in items],
            pad_id=rollouts.pad_id,
        )

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Nothing is remembered: the answers are on the disk."""

    def observe(self, validation_loss: float) -> None:
        """Nothing adapts."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
