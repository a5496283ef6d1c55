"""Fused scoring against the dense path: extra memory and time of one forward and backward, head gradient included.

    python benchmarks/scoring.py            # 2,048 tokens x 49,152 classes, hidden width 576
    python benchmarks/scoring.py --quick    # small, to see that it runs; its ratios mean nothing

The dense path is the same head and the same divergence on all tokens at once, differentiated by autograd. Beside it,
without a target, stands `formula`: the dense path with the divergence written out in torch functions, as other
libraries have it. Memory is what a process needs beyond its inputs (peak resident size less the size before), each
side in a process of its own; the dense side does not keep its logits longer than autograd does. Time is taken in one
process, the sides in turns, each side's best. Fails unless loss and gradients agree.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from machine import describe, forget_peak, peak_bytes, resident_bytes
from torch import Tensor
from torch.nn import functional

from limbeck.losses import DIVERGENCES
from limbeck.losses.divergences import Divergence
from limbeck.losses.fused import HiddenView, fused_loss
from limbeck.losses.heads import Head, auto_chunk
from limbeck.losses.match import Match, TokenScores

MEMORY_TARGET = 1 / 4
TIME_TARGET = 1.1
NAMES = ("forward-kl", "jsd")


@dataclass(frozen=True)
class Case:
    """Hidden states and heads of student and teacher; the student's want a gradient."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    tokens: Tensor
    weights: Tensor

    @classmethod
    def make(cls, *, tokens: int, vocabulary: int, width: int) -> Case:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator).mul_(scale)

        spread = 1.5 / math.sqrt(width)
        weight = normal(vocabulary, width, scale=spread)
        return cls(
            hidden=normal(tokens, width).requires_grad_(),
            weight=weight.requires_grad_(),
            teacher_hidden=normal(tokens, width),
            teacher_weight=normal(vocabulary, width, scale=spread),
            tokens=torch.randint(0, vocabulary, (tokens,), generator=generator),
            weights=torch.full((tokens,), 1.0 / tokens),
        )

    @property
    def head(self) -> Head:
        return Head(weight=self.weight, size=len(self.weight))

    @property
    def teacher(self) -> HiddenView:
        return HiddenView(
            hidden=self.teacher_hidden, head=Head(weight=self.teacher_weight, size=len(self.teacher_weight))
        )


def fused(case: Case, divergence: Divergence) -> Tensor:
    return fused_loss(
        case.hidden,
        head=case.head,
        tokens_N=case.tokens,
        views=[case.teacher],
        terms={"token": Match(divergence)},
        weights={"token": case.weights},
        scales={"token": 1.0},
        chunk=auto_chunk(len(case.weight), "cpu"),
    ).loss


def dense(case: Case, divergence: Divergence) -> Tensor:
    scores = TokenScores(
        target_logp=case.teacher.log_probabilities(slice(None)), student_logp=case.head(case.hidden), tokens=case.tokens
    )
    return (Match(divergence)(scores) * case.weights).sum()


def formula(case: Case, divergence: Divergence) -> Tensor:
    target = case.teacher.log_probabilities(slice(None))
    student = case.head(case.hidden)
    beta = getattr(divergence, "beta", 0.0)
    if not beta:
        return (functional.kl_div(student, target, reduction="none", log_target=True).sum(-1) * case.weights).sum()
    mixture = torch.logsumexp(torch.stack([student + math.log1p(-beta), target + math.log(beta)]), dim=0)
    gaps = beta * functional.kl_div(mixture, target, reduction="none", log_target=True)
    gaps = gaps + (1 - beta) * functional.kl_div(mixture, student, reduction="none", log_target=True)
    return (gaps.sum(-1) * case.weights).sum()


SIDES: dict[str, Callable[[Case, Divergence], Tensor]] = {"fused": fused, "dense": dense, "formula": formula}


def step(side: str, case: Case, divergence: Divergence) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients (of hidden states and head), which are taken off the case."""
    loss = SIDES[side](case, divergence)
    loss.backward()
    hidden_gradient, weight_gradient = case.hidden.grad, case.weight.grad
    assert hidden_gradient is not None
    assert weight_gradient is not None
    case.hidden.grad = case.weight.grad = None
    return loss.detach(), hidden_gradient, weight_gradient


def extra_bytes(side: str, name: str, sizes: dict[str, int]) -> int:
    """Peak memory beyond the inputs, of one step in this process."""
    case, divergence = Case.make(**sizes), DIVERGENCES[name]()
    # What libraries allocate at their first use is not the step's.
    step(side, Case.make(tokens=4, vocabulary=64, width=8), divergence)
    forget_peak()
    before = resident_bytes()
    step(side, case, divergence)
    return peak_bytes() - before


def memory(side: str, name: str, sizes: dict[str, int]) -> int:
    command = [sys.executable, __file__, "--child", json.dumps({"side": side, "name": name, "sizes": sizes})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def seconds(case: Case, name: str, *, repeats: int) -> dict[str, float]:
    """Each side's best time, in turns; checks that the sides agree."""
    divergence = DIVERGENCES[name]()
    best = dict.fromkeys(SIDES, math.inf)
    for _ in range(repeats):
        found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for side in SIDES:
            began = time.perf_counter()
            found[side] = step(side, case, divergence)
            best[side] = min(best[side], time.perf_counter() - began)
            for ours, theirs in zip(found[side], found["fused"], strict=True):
                if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
                    raise SystemExit(f"{side} and fused disagree on {name}")
    return best


def report(what: str, found: dict[str, float], *, unit: str, target: float | None) -> None:
    ratio = found["fused"] / found["dense"]
    verdict = "" if target is None else f"   target {target:.2f} {'met' if ratio <= target else 'MISSED'}"
    sides = "   ".join(f"{side} {value:7.2f} {unit}" for side, value in found.items())
    print(
        f"{what:<20} {sides}   fused / dense {ratio:5.2f}{verdict}"
        f"   fused / formula {found['fused'] / found['formula']:5.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        wanted = json.loads(arguments.child)
        print(extra_bytes(wanted["side"], wanted["name"], wanted["sizes"]))
        return
    sizes = {"tokens": 2048, "vocabulary": 49_152, "width": 576}
    if arguments.quick:
        sizes = {"tokens": 1024, "vocabulary": 16_384, "width": 128}
    print(describe())
    print(f"{sizes['tokens']} tokens, {sizes['vocabulary']} classes, width {sizes['width']}, float32")
    for name in NAMES:
        needed = {side: memory(side, name, sizes) / 2**20 for side in SIDES}
        report(f"{name} memory", needed, unit="MiB", target=None if arguments.quick else MEMORY_TARGET)
    case = Case.make(**sizes)
    for name in NAMES:
        taken = seconds(case, name, repeats=2 if arguments.quick else arguments.repeats)
        report(f"{name} time", taken, unit="s", target=None if arguments.quick else TIME_TARGET)


if __name__ == "__main__":
    main()
