"""Responses of the student, the one of several that the teacher finds likeliest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.heads import auto_chunk
from limbeck.losses.views import chunks
from limbeck.models.decoders import Decoder, Viewing
from limbeck.models.scoring import per_row, scored_tokens, split_rows
from limbeck.seeds import Seeds
from limbeck.sequences.source import Item, Rollouts
from limbeck.types import Sequences, joined


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BestOf:
    """y = argmax { 1/|y^k| · Σ_i log p(y^k_i|y^k_<i, x) : y^k ~ q_θ(·|x), k = 1 … `count` }, p the teacher.

    Rejection in place of correction: no token is changed, and a whole response is thrown away. The mean over tokens, so
    that a short response is not likelier for being short; of equals the first; end-of-turn tokens count. The first of
    the draws has the noise that `student` draws with. It draws `count` times as much and reads as much with the
    teacher. A comparison that nobody published for distillation; best-of-n as such is folklore. Raises `ConfigError`
    without a teacher.
    """

    count: int = Field(default=2, ge=2)
    horizon: int | None = Field(default=None, ge=1)

    needs_teacher: ClassVar[bool] = True

    def prompts(self, step: int, *, batch_rows: int, seeds: Seeds) -> int:
        """All rows of the step are new."""
        return batch_rows

    def draw(self, items: Sequence[Item], *, rollouts: Rollouts, step: int) -> Sequences:
        """The rows with the likelier of the student's responses."""
        if rollouts.teacher is None:
            raise ConfigError("the likeliest response is chosen by a teacher; name one in models.teacher")
        purposes = ["draw", *(f"draw {number}" for number in range(2, self.count + 1))]
        drawn = [rollouts.student(items, horizon=self.horizon, purpose=purpose) for purpose in purposes]
        whole = joined(drawn, pad_id=rollouts.pad_id)
        logp = teacher_logp(whole, teacher=rollouts.teacher, rollouts=rollouts).view(self.count, len(items))
        best = logp.argmax(dim=0).tolist()
        return whole.rows([number * len(items) + row for row, number in enumerate(best)])

    def keep(self, drawn: Sequences, *, step: int, seeds: Seeds) -> None:
        """Nothing is remembered."""

    def observe(self, validation_loss: float) -> None:
        """Nothing adapts."""

    def state(self) -> Mapping[str, Any]:
        """Nothing to save."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


@torch.no_grad()
def teacher_logp(drawn: Sequences, *, teacher: Decoder, rollouts: Rollouts) -> Float[Tensor, " B"]:
    """The mean of the teacher's log p over each row's response tokens, in nats; −inf for a row without one."""
    assert isinstance(teacher, Viewing), "the decoder of a run reads whole rows too"
    found = torch.full((len(drawn),), -torch.inf, dtype=torch.float64)
    for group in split_rows(drawn, rollouts.group_rows):
        part = drawn.rows(group).to(rollouts.device)
        where = scored_tokens(part)
        view = teacher.view(part, where)
        pieces = [torch.empty(0, device=rollouts.device)]
        for chunk in chunks(len(where), auto_chunk(view.head.size, rollouts.device.type)):
            logp_nV = view.log_probabilities(chunk).to(rollouts.device)
            pieces.append(logp_nV.gather(1, where.tokens[chunk].long().unsqueeze(1)).squeeze(1).float())
        total_B, count_B = per_row(torch.cat(pieces), where, rows=len(part))
        for place, row in enumerate(group):
            if float(count_B[place]):
                found[row] = float(total_B[place]) / float(count_B[place])
    return found
