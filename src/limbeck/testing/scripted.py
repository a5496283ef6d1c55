"""Models that are plain functions of the prefix: what they draw and say can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limbeck.losses.fused import HiddenView
from limbeck.losses.heads import Head
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scored
from limbeck.seeds import Seeds
from limbeck.sequences.source import Rollouts
from limbeck.types import Evidence, Sequences

Script = Callable[[tuple[int, ...]], Sequence[float]]


class ScriptedModel:
    """A model whose next-token probabilities are `script(prefix)`: it draws as a decoder, and reads whole rows.

    `forwards` counts the steps that it decoded, `row_steps` the rows in them, `views` the batches of rows that it read.

    >>> model = ScriptedModel(lambda prefix: [0.25, 0.75] if prefix[-1] else [1.0, 0.0], vocab_size=2)
    >>> one = torch.tensor([[0, 1]])
    >>> model.next_logp(one, attended=one >= 0, positions=one, cache=model.start()).exp().tolist()
    [[0.25, 0.75]]
    """

    def __init__(self, script: Script, *, vocab_size: int) -> None:
        self._script = script
        self._vocab_size = vocab_size
        self.forwards = 0
        self.row_steps = 0
        self.views = 0

    def _logp(self, prefixes: Sequence[Sequence[int]]) -> Float[Tensor, "n V"]:
        probabilities = [list(self._script(tuple(prefix))) for prefix in prefixes]
        return torch.tensor(probabilities, dtype=torch.float64).reshape(len(prefixes), self._vocab_size).log()

    def start(self) -> Any:
        """An empty cache: the tokens of each row so far."""
        return []

    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Log-probabilities of what follows the last column."""
        self.forwards += 1
        self.row_steps += len(tokens)
        cache.extend([] for _ in range(len(tokens) - len(cache)))
        is_token = attended[:, -tokens.shape[1] :].tolist()
        for row, new, flags in zip(cache, tokens.tolist(), is_token, strict=True):
            row.extend(token for token, flag in zip(new, flags, strict=True) if flag)
        return self._logp(cache).to(tokens.device)

    def keep(self, cache: Any, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        cache[:] = [list(cache[row]) for row in rows.tolist()]

    def joins(self, cache: Any) -> bool:
        """Its caches are lists of rows: they can always be put together."""
        return True

    def joined(self, caches: Sequence[Any], *, width: int) -> Any:
        """The rows of all; there is no padding to let go."""
        return [row for cache in caches for row in cache]

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Its distributions at the scored tokens."""
        self.views += 1
        rows = sequences.tokens.tolist()
        places = zip(where.rows.tolist(), where.positions.tolist(), strict=True)
        logp_NV = self._logp([rows[row][:position] for row, position in places])
        return HiddenView(hidden=logp_NV.to(sequences.tokens.device), head=Head(weight=None, size=self._vocab_size))


def peaked(token: int, share: float, *, vocab_size: int) -> list[float]:
    """Probability `share` for one token, the rest spread evenly.

    >>> peaked(1, 0.5, vocab_size=3)
    [0.25, 0.5, 0.25]
    """
    rest = (1.0 - share) / (vocab_size - 1)
    return [share if id == token else rest for id in range(vocab_size)]


def random_script(seed: int, *, vocab_size: int, sharpness: float = 1.0) -> Script:
    """softmax(sharpness · z) with a standard normal z for each prefix; equal seeds give equal scripts."""

    def script(prefix: tuple[int, ...]) -> list[float]:
        logits = sharpness * Seeds(seed).child("script", *prefix).generator().standard_normal(vocab_size)
        weights = np.exp(logits - logits.max())
        return [float(probability) for probability in weights / weights.sum()]

    return script


def scripted_rollouts(
    model: ScriptedModel,
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int] = frozenset(),
    temperature: float = 1.0,
    max_length: int = 64,
    group_rows: int = 8,
    pad_id: int = 0,
    seed: int = 0,
) -> Rollouts:
    """What a source or a reviser draws with, on the CPU, with this model as decoder."""
    return Rollouts(
        decoder=model,
        sampling=Sampling(temperature=temperature, stop_ids=stop_ids),
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        group_rows=group_rows,
        pad_id=pad_id,
        seeds=Seeds(seed),
        device=torch.device("cpu"),
    )


def toy_evidence(**columns: Sequence[float] | Sequence[int] | Sequence[bool]) -> Evidence:
    """Evidence for a detector to judge: these columns, all of one length, and zeros in the others.

    All tokens belong to row 0 and are eligible unless `row` and `eligible` say otherwise. A name that is no field of
    evidence is one of `Evidence.columns`.

    >>> toy_evidence(kl_student_teacher=[0.5, 0.25]).eligible.tolist()
    [True, True]
    """
    count = len(next(iter(columns.values())))
    given: dict[str, Any] = {"eligible": [True] * count, "position": list(range(count)), **columns}
    whole = ("row", "position", "drawn_token", "teacher_token", "rank")
    real = [name for name in Evidence.__annotations__ if name not in (*whole, "eligible", "columns")]
    zeros = [0] * count
    tensors: dict[str, Any] = {name: torch.tensor(given.get(name, zeros), dtype=torch.long) for name in whole}
    tensors |= {name: torch.tensor(given.get(name, zeros), dtype=torch.float32) for name in real}
    needed = {name: torch.tensor(values) for name, values in given.items() if name not in Evidence.__annotations__}
    return Evidence(eligible=torch.tensor(given["eligible"], dtype=torch.bool), columns=needed, **tensors)
