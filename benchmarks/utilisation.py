"""Model FLOPs of the off-policy step, divided by its seconds and by what this CPU reaches in a product of matrices.

    python benchmarks/utilisation.py --data dolly/train.jsonl    # SmolLM2-135M-Instruct and 15 of its layers
    python benchmarks/utilisation.py --quick                     # random models; its share means nothing

Model FLOPs are what the mathematics asks for, and nothing that an implementation adds (padding, positions without a
loss at the head, recomputation):

    body   2 · P per token and model, P the weights of its linear layers; 3 times that for the student (backward)
           + attention 2 · L² · width a layer and row of L tokens (half of all pairs; scores and values), 3 times for
           the student
    head   2 · V · D per scored token and model; 3 times that for the student

The peak is the best of several float32 products of two square matrices with the same threads. The step is JSD on
responses of the corpus, 16 rows, prompts of at most 128 tokens, rows of at most 256; seconds are the mean over the
steps of a run after the first, the optimizer included. Where the rest goes is printed by part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import describe
from pair import made_rows, saved_pair
from record import parser, publish
from step_profile import Clock, watched

from limbeck.config import Recipe
from limbeck.preflight.outlines import Outline
from limbeck.training.session import Session, open_session
from limbeck.training.step import move_weights, take_items, take_step
from limbeck.training.world import World
from limbeck.types import Sequences

TARGET = 0.5


def sgemm_peak(side: int, *, repeats: int) -> float:
    """Operations a second of the best product."""
    left, right, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def model_flops(sequences: Sequences, *, student: Outline, teacher: Outline) -> float:
    """What one step asks for, by the formulas above."""
    lengths = sequences.lengths.tolist()
    scored = sequences.num_scored
    total = 0.0
    for model, times in ((student, 3), (teacher, 1)):
        body = 2.0 * model.linear_parameters * sum(lengths)
        attention = sum(2.0 * length**2 * model.hidden * model.layers for length in lengths)
        head = 2.0 * model.width * model.hidden * scored
        total += times * (body + attention + head)
    return total


@contextmanager
def opened(given: argparse.Namespace) -> Iterator[tuple[Session, dict[str, Outline]]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        teacher, student = saved_pair(folder, quick=given.quick)
        corpus = made_rows(folder / "rows.jsonl", count=32) if given.quick else given.data
        values = {
            "method": {"base": "gkd", "sequences": {"kind": "fixed"}},
            "models": {"teacher": teacher, "student": student, "device": "cpu"},
            "data": {"corpus": corpus, "max_prompt": 128, "max_length": 256, "long_prompt": "cut"},
            "train": {"steps": 1000, "batch_rows": 4 if given.quick else 16, "learning_rate": 1e-5},
            "validate": {"every": None},
            "run": str(folder / "run"),
        }
        session = open_session(Recipe.load(values, []), world=World.start(device="cpu"), rows=None, recorded={})
        yield session, {"student": Outline.of(student), "teacher": Outline.of(teacher)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", default="starter", help="a corpus or a file of rows")
    options.add_argument("--steps", type=int, default=6)
    given = options.parse_args()
    print(describe())
    steps, clock = 1 if given.quick else given.steps, Clock()
    peaks = [sgemm_peak(256 if given.quick else 2048, repeats=3 if given.quick else 8)]
    flops = tokens = seconds = 0.0
    with opened(given) as (session, outlines):
        for place in range(steps + 1):
            # Steps 9, 10, ... : the gradients of the terms are not taken apart there.
            number = 9 + place
            items, _ = take_items(session, number, number * session.recipe.train.batch_rows)
            part = Clock() if place == 0 else clock
            with watched(part), part.part("backward, optimizer"):
                result = move_weights(session, take_step(session, number, items=items))
            if place:
                flops += model_flops(result.drawn, **outlines)
                tokens += result.drawn.num_scored
        seconds = sum(clock.seconds.values())
    peaks.append(sgemm_peak(256 if given.quick else 2048, repeats=3 if given.quick else 8))
    share = flops / seconds / max(peaks)
    print(
        f"{flops / steps / 1e9:,.1f} GFLOP a step, {seconds / steps:.2f} s: {flops / seconds / 1e9:,.1f} GFLOP/s of"
        f" {max(peaks) / 1e9:,.1f} = {share:.2f}   {tokens / seconds:,.1f} scored tokens/s"
        + ("" if given.quick else f"   target {TARGET} {'met' if share >= TARGET else 'MISSED'}")
    )
    for name, value in sorted(clock.seconds.items(), key=lambda pair: -pair[1]):
        print(f"    {name:<20} {value / steps:6.2f} s  {value / seconds:4.0%}")
    parts = [{"part": name, "seconds": value / steps} for name, value in clock.seconds.items()]
    about: dict[str, Any] = {"steps": steps, "sgemm": max(peaks), "flops": flops / steps}
    publish("utilisation", given, sizes=about, findings={"share": share}, rows=parts)


if __name__ == "__main__":
    main()
