"""A training step on tokens and models of any size, without files: what scaling.py times. No benchmark.

The step is the off-policy one: the teacher's view, the student's forward, the walk over the vocabulary, backward and
AdamW. Tokens are random; half of each row is response.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from limbeck.losses.divergences import JSD
from limbeck.losses.heads import auto_chunk
from limbeck.losses.match import Match
from limbeck.losses.objective import Batch, Objective
from limbeck.models.pair import Vocabulary
from limbeck.models.scoring import Scorer
from limbeck.training.distiller import Distiller
from limbeck.training.validation import teacher_views
from limbeck.types import Sequences, pack_rows


@dataclass(frozen=True, kw_only=True)
class Size:
    """Rows of a length, half of it response; layers of the student (the teacher has twice as many), width, classes."""

    rows: int = 8
    length: int = 128
    layers: int = 4
    width: int = 256
    vocabulary: int = 16_384

    def model(self, layers: int, *, seed: int) -> Any:
        torch.manual_seed(seed)
        heads = max(1, self.width // 64)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
        return AutoModelForCausalLM.from_config(config)

    def sequences(self) -> Sequences:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, self.vocabulary, (self.rows, self.length), generator=generator).tolist()
        flags = [[place >= self.length // 2 for place in range(self.length)]] * self.rows
        return pack_rows(
            tokens, flags, origin=["reference"] * self.rows, keys=[(i,) for i in range(self.rows)], pad_id=0
        )


class Step:
    """A step of a student and a teacher on a batch, to be taken again and again."""

    def __init__(self, student: Any, teacher: Any, sequences: Sequences, *, vocabulary: int) -> None:
        shared = Vocabulary(size=vocabulary, shared=None, dropped_student=())
        self.teacher = Scorer.of(teacher.eval().requires_grad_(False), vocabulary=shared)
        self.student = Scorer.of(student.train(), vocabulary=shared)
        objective = Objective(terms={"token": Match(JSD(beta=0.5))}, scales={"token": 1.0}, reduction="token")
        self.distiller = Distiller(self.student, objective, chunk=auto_chunk(vocabulary, "cpu"))
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
        self.batch = Batch(sequences=sequences, terms=frozenset({"token"}))

    def __call__(self) -> float:
        """Seconds that it took."""
        began = time.perf_counter()
        weights, _ = self.distiller.objective.weights([self.batch], total=lambda numbers: numbers)
        self.optimizer.zero_grad(set_to_none=True)
        views = teacher_views(self.distiller, self.batch, self.teacher)
        self.distiller(self.batch.sequences, views, weights[0])["loss"].backward()
        self.optimizer.step()
        return time.perf_counter() - began


def step_of(size: Size) -> Step:
    """A step of random models."""
    student, teacher = size.model(size.layers, seed=0), size.model(2 * size.layers, seed=1)
    return Step(student, teacher, size.sequences(), vocabulary=size.vocabulary)
