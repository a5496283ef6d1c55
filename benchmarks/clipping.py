"""DAC-KL against forward KL, both fused: extra memory and time of one forward and backward.

    python benchmarks/clipping.py            # 2,048 tokens x 49,152 classes, hidden width 576
    python benchmarks/clipping.py --quick    # small, to see that it runs; its ratios mean nothing

`topk` is the default, with the clip network `mlp`; `conv` and `rnn` are the same with the other learned networks, which
read the classes in the order of the teacher's probability. `full` is the paper's input with a full sort, `literal` its
thresholds on probabilities, with the gradients of their clip networks. Memory is what a process needs beyond its inputs
and the networks, each side in a process of its own. Time is taken in one process, the sides in turns, each side's best.
With gates that are open DAC-KL is forward KL: checked first.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time

import torch
from machine import describe, forget_peak, peak_bytes, resident_bytes
from scoring import Case
from torch import Tensor

from limbeck.losses.clip_networks import FixedBounds
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.fused import fused_loss
from limbeck.losses.heads import auto_chunk
from limbeck.losses.match import Match, TokenTerm
from limbeck.losses.ranked_networks import Convolutional, Recurrent

MEMORY_TARGET, TIME_TARGET = 1.2, 1.5
PARTS = {
    "topk": DACKL(),
    "conv": DACKL(clip=Convolutional()),
    "rnn": DACKL(clip=Recurrent()),
    "full": DACKL(features="full"),
    "literal": DACKL(features="full", coordinate="value", normalise="none"),
}
SIDES = ("forward-kl", *PARTS)


def term_of(side: str, vocabulary: int) -> TokenTerm:
    if side == "forward-kl":
        return Match(ForwardKL())
    return PARTS[side].build(vocabulary_size=vocabulary, generator=torch.Generator().manual_seed(0))


def step(case: Case, term: TokenTerm) -> Tensor:
    loss = fused_loss(
        case.hidden,
        head=case.head,
        tokens_N=case.tokens,
        views=[case.teacher],
        terms={"token": term},
        weights={"token": case.weights},
        scales={"token": 1.0},
        chunk=auto_chunk(len(case.weight), "cpu"),
    ).loss
    loss.backward()
    case.hidden.grad = case.weight.grad = None
    return loss.detach()


def extra_bytes(side: str, sizes: dict[str, int]) -> int:
    """Peak memory beyond the inputs, of one step in this process."""
    case, term = Case.make(**sizes), term_of(side, sizes["vocabulary"])
    # What libraries allocate at their first use is not the step's.
    step(Case.make(tokens=4, vocabulary=64, width=8), term_of(side, 64))
    forget_peak()
    before = resident_bytes()
    step(case, term)
    return peak_bytes() - before


def memory(side: str, sizes: dict[str, int]) -> int:
    command = [sys.executable, __file__, "--child", json.dumps({"side": side, "sizes": sizes})]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def seconds(case: Case, *, repeats: int) -> dict[str, float]:
    """Each side's best time, in turns."""
    terms = {side: term_of(side, len(case.weight)) for side in SIDES}
    best = dict.fromkeys(SIDES, math.inf)
    for _ in range(repeats):
        for side, term in terms.items():
            began = time.perf_counter()
            step(case, term)
            best[side] = min(best[side], time.perf_counter() - began)
    return best


def report(what: str, found: dict[str, float], *, unit: str, target: float | None) -> None:
    base = found["forward-kl"]
    verdict = ""
    if target is not None:
        verdict = f"   target {target:.2f} {'met' if found['topk'] / base <= target else 'MISSED'}"
    sides = "   ".join(f"{side} {value:7.2f} {unit} ({value / base:.2f})" for side, value in found.items())
    print(f"{what:<7} {sides}   topk / forward-kl {found['topk'] / base:5.2f}{verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        wanted = json.loads(arguments.child)
        print(extra_bytes(wanted["side"], wanted["sizes"]))
        return
    sizes = {"tokens": 2048, "vocabulary": 49_152, "width": 576}
    if arguments.quick:
        sizes = {"tokens": 256, "vocabulary": 8_192, "width": 128}
    print(describe())
    print(f"{sizes['tokens']} tokens, {sizes['vocabulary']} classes, width {sizes['width']}, float32")
    case = Case.make(**sizes)
    opened = DACKL(clip=FixedBounds()).build(vocabulary_size=sizes["vocabulary"], generator=torch.Generator())
    gap = abs(float(step(case, opened) - step(case, term_of("forward-kl", sizes["vocabulary"]))))
    if gap > 1e-4:
        raise SystemExit(f"with open gates DAC-KL differs from forward KL by {gap}")
    needed = {side: memory(side, sizes) / 2**20 for side in SIDES}
    report("memory", needed, unit="MiB", target=None if arguments.quick else MEMORY_TARGET)
    taken = seconds(case, repeats=1 if arguments.quick else arguments.repeats)
    report("time", taken, unit="s", target=None if arguments.quick else TIME_TARGET)
    networks = "   ".join(f"{side} / mlp {taken[side] / taken['topk']:5.2f}" for side in ("conv", "rnn"))
    print(f"clip networks, time of the whole step: {networks}")


if __name__ == "__main__":
    main()
