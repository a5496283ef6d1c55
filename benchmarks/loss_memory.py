"""Forward KL and DAC-KL against their dense paths: extra memory and time; and the memory of a step as tokens grow.

    python benchmarks/loss_memory.py            # 2,048 tokens x 49,152 classes and 1,024 x 128,256, width 576
    python benchmarks/loss_memory.py --quick    # small, to see that it runs; its ratios mean nothing

`dense` is the same head and the same term on all tokens at once, differentiated by autograd. Extra memory is what a
process needs beyond its inputs (peak resident size less the size before), the head's gradient included, each side in a
process of its own. That gradient is as large on both sides (`head`: V · D numbers) and is printed, since it bounds what
a walk in chunks can save. Time is taken in one process, the sides in turns, each side's best; losses must agree.
`products` is the same for the head's four products of matrices alone, in the walk's chunks and of all tokens at once:
smaller products reach less of the machine, which bounds the time that a walk in chunks can save.

`slope` is the least-squares slope of the fused side's extra memory over 512, 1,024, ... 8,192 tokens, in bytes a token.
One number for each class and token would be 4 V bytes; a hidden state is 4 D bytes. The target is at most four hidden
states, which leaves no room for a term in N·V.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from clipping import step as fused_step
from clipping import term_of
from machine import describe, forget_peak, peak_bytes, resident_bytes
from record import parser, publish
from scoring import Case
from torch import Tensor
from torch.nn import functional

from limbeck.losses.heads import auto_chunk
from limbeck.losses.match import TokenScores, TokenTerm

TERMS = {"forward-kl": "forward-kl", "dac-kl": "topk"}
FULL = ({"tokens": 2048, "vocabulary": 49_152, "width": 576}, {"tokens": 1024, "vocabulary": 128_256, "width": 576})
SMALL = ({"tokens": 512, "vocabulary": 4_096, "width": 64},)
STATES = 4


def dense_step(case: Case, term: TokenTerm) -> Tensor:
    scores = TokenScores(
        target_logp=case.teacher.log_probabilities(slice(None)), student_logp=case.head(case.hidden), tokens=case.tokens
    )
    loss = (term(scores) * case.weights).sum()
    del scores
    loss.backward()
    case.hidden.grad = case.weight.grad = None
    return loss.detach()


STEPS = {"fused": fused_step, "dense": dense_step}


def extra_bytes(side: str, name: str, sizes: dict[str, int]) -> int:
    """Peak memory beyond the inputs, of one step in this process."""
    case, term = Case.make(**sizes), term_of(TERMS[name], sizes["vocabulary"])
    # What libraries allocate at their first use is not the step's.
    STEPS[side](Case.make(tokens=4, vocabulary=64, width=8), term_of(TERMS[name], 64))
    forget_peak()
    before = resident_bytes()
    STEPS[side](case, term)
    return peak_bytes() - before


def memory(side: str, name: str, sizes: dict[str, int]) -> int:
    wanted = json.dumps({"side": side, "name": name, "sizes": sizes})
    command = [sys.executable, __file__, "--child", wanted]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def seconds(name: str, sizes: dict[str, int], *, repeats: int) -> dict[str, float]:
    """Each side's best time, in turns; checks that the sides agree."""
    case, term = Case.make(**sizes), term_of(TERMS[name], sizes["vocabulary"])
    best = dict.fromkeys(STEPS, math.inf)
    for _ in range(repeats):
        losses = {}
        for side, step in STEPS.items():
            began = time.perf_counter()
            losses[side] = float(step(case, term))
            best[side] = min(best[side], time.perf_counter() - began)
        if not math.isclose(losses["fused"], losses["dense"], rel_tol=1e-3):
            raise SystemExit(f"{name}: fused {losses['fused']} and dense {losses['dense']} disagree")
    return best


def products(sizes: dict[str, int], *, repeats: int) -> dict[str, float]:
    """The best time of both heads' logits, and of the gradients of hidden states and head, so many tokens at a time."""
    case, vocabulary = Case.make(**sizes), sizes["vocabulary"]
    hidden, weight = case.hidden.detach(), case.weight.detach()
    steps = {"chunks": auto_chunk(vocabulary, "cpu"), "whole": sizes["tokens"]}
    best, into = dict.fromkeys(steps, math.inf), torch.zeros_like(weight)
    for _ in range(repeats):
        for side, rows in steps.items():
            began = time.perf_counter()
            for first in range(0, sizes["tokens"], rows):
                part = slice(first, first + rows)
                functional.linear(case.teacher_hidden[part], case.teacher_weight)
                logits = functional.linear(hidden[part], weight)
                logits @ weight
                into.addmm_(logits.T, hidden[part])
            best[side] = min(best[side], time.perf_counter() - began)
    return best


def slope(sizes: dict[str, int], *, first: int, last: int) -> tuple[float, list[dict[str, int]]]:
    """Bytes a token of the fused side's extra memory, and the points that it was fitted through."""
    points = []
    tokens = first
    while tokens <= last:
        points.append({"tokens": tokens, "bytes": memory("fused", "forward-kl", {**sizes, "tokens": tokens})})
        tokens *= 2
    line = np.polyfit([point["tokens"] for point in points], [point["bytes"] for point in points], deg=1)
    return float(line[0]), points


def measured(given: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, Any]]]:
    findings: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for sizes in SMALL if given.quick else FULL:
        head = sizes["vocabulary"] * sizes["width"] * 4
        label = f"{sizes['tokens']}x{sizes['vocabulary']}"
        alone = products(sizes, repeats=1 if given.quick else given.repeats)
        rows.append({**sizes, "products": alone})
        print(
            f"the head's four products alone, {label}: in chunks {alone['chunks']:.2f} s, all tokens at once"
            f" {alone['whole']:.2f} s = {alone['chunks'] / alone['whole']:.2f}"
        )
        for name in TERMS:
            needed = {side: memory(side, name, sizes) for side in STEPS}
            taken = seconds(name, sizes, repeats=1 if given.quick else given.repeats)
            key = f"{name}.{'small' if sizes['vocabulary'] < 100_000 else 'large'}-vocabulary"
            key = f"{name}.{label}" if given.quick else key
            findings[f"{key}.memory"] = needed["fused"] / needed["dense"]
            findings[f"{key}.beyond-head"] = (needed["fused"] - head) / (needed["dense"] - head)
            findings[f"{key}.time"] = taken["fused"] / taken["dense"]
            rows.append({"term": name, **sizes, "head": head, "bytes": needed, "seconds": taken})
            print(
                f"{name:<11} {label:<12} extra memory {needed['fused'] / 2**20:7.0f} / {needed['dense'] / 2**20:7.0f}"
                f" MiB = {findings[f'{key}.memory']:5.3f} (head's gradient {head / 2**20:.0f}; beyond it"
                f" {findings[f'{key}.beyond-head']:5.3f})   time {taken['fused']:6.2f} / {taken['dense']:6.2f} s"
                f" = {findings[f'{key}.time']:5.2f}"
            )
    sizes, last = (SMALL[0], 1024) if given.quick else (FULL[0], 8192)
    found, points = slope(sizes, first=512, last=last)
    findings["slope.states"] = found / (4 * sizes["width"])
    findings["slope.of-vocabulary"] = found / (4 * sizes["vocabulary"])
    rows.append({"slope": found, "points": points})
    print(
        f"slope {found:,.0f} bytes a token = {findings['slope.states']:.2f} hidden states"
        f" = {findings['slope.of-vocabulary']:.4f} of a row of the vocabulary"
        + ("" if given.quick else f"   target {STATES} states {_verdict(findings['slope.states'] <= STATES)}")
    )
    return findings, rows


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def main() -> None:
    options = parser(__doc__, quick="small sizes")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    if given.child:
        wanted = json.loads(given.child)
        print(extra_bytes(wanted["side"], wanted["name"], wanted["sizes"]))
        return
    print(describe())
    findings, rows = measured(given)
    publish("loss_memory", given, sizes={"repeats": given.repeats}, findings=findings, rows=rows)


if __name__ == "__main__":
    main()
