"""docs/results/speed.md from the JSON files of the programs here: one line for each target. Measures nothing.

    python benchmarks/speed.py --collect      # writes the page from docs/results/speed/*.json
    python benchmarks/speed.py                # prints it

A target without a measurement says so. The files are written by full runs of the programs; a file of a `--quick` run
is refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results" / "speed"
PAGE = FOLDER.parent / "speed.md"

_HEAD = """# Speed and memory

One line for each target, made from the files in `docs/results/speed/` by `python benchmarks/speed.py --collect`. Each
number is a ratio of two sides that were measured in one run with the same models, rows, tokens, limits, threads and
allocator, or a share within one run; the head of each program in `benchmarks/` says what is equal and what is counted.
`ALLOCATOR` stands for the setting of the Makefile.

| what | against | target | measured | | command | where |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Measure:
    """A finding and its bound; without a bound it is told beside the others and judges nothing."""

    key: str
    text: str
    bound: float | None = None
    at_least: bool = False
    form: str = "{:.2f}"

    def is_met(self, value: float) -> bool:
        if self.bound is None:
            return True
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def target(self) -> str:
        if self.bound is None:
            return ""
        return f"{self.text} {'≥' if self.at_least else '≤'} {self.form.format(self.bound)}"


@dataclass(frozen=True)
class Target:
    what: str
    against: str
    program: str
    measures: tuple[Measure, ...]
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.program}_{self.variant}" if self.variant else self.program


def _loss(term: str) -> tuple[Measure, ...]:
    return tuple(
        each
        for size, label in (("small", "V 49,152"), ("large", "V 128,256"))
        for each in (
            Measure(f"{term}.{size}-vocabulary.memory", f"extra memory, {label}", 0.125, form="{:.3f}"),
            Measure(f"{term}.{size}-vocabulary.beyond-head", f"without the head's gradient, {label}", form="{:.3f}"),
            Measure(f"{term}.{size}-vocabulary.time", f"time, {label}", 1.0),
        )
    )


_PERCENT = "{:.1%}"
TARGETS = (
    Target(
        "off-policy JSD step, SmolLM2-135M → 15 layers",
        "TRL `GKDTrainer` λ 0",
        "vs_trl",
        (
            Measure("fixed.gkd.speed", "tokens/s", 3.0, at_least=True),
            Measure("fixed.gkd.peak", "whole-process peak", 0.55),
        ),
    ),
    Target(
        "on-policy JSD step, 64 rows, 64 new tokens",
        "TRL `GKDTrainer` λ 1",
        "vs_trl",
        (Measure("drawn.gkd.speed", "tokens/s", 3.5, at_least=True),),
    ),
    Target(
        "the same",
        "TRL stable `DistillationTrainer`",
        "vs_trl",
        (
            Measure("drawn.stable.speed", "tokens/s", 2.3, at_least=True),
            Measure("drawn.stable.extra", "peak above weights, gradients, moments and idle process", 0.5),
        ),
    ),
    Target(
        "an evaluation: 64 ragged prompts, 5 seeds, 16 rows at a time, 128 new tokens, 15 layers",
        "a plain loop over `transformers.generate`",
        "rollouts",
        (
            Measure("15 layers.stops.loop", "tokens/s", 1.5, at_least=True),
            Measure("15 layers.stops.stopped", "rows that stopped", form=_PERCENT),
        ),
        variant="draws",
    ),
    Target("forward KL term", "dense", "loss_memory", _loss("forward-kl")),
    Target("DAC-KL term", "dense", "loss_memory", _loss("dac-kl")),
    Target("MGSR step", "GKD step with `supervised: 1`", "step_profile", (Measure("mgsr.of-base", "time", 1.3),)),
    Target(
        "KD epoch 2 with `hidden` cache",
        "without",
        "cache",
        (
            Measure("hidden.teacher-body", "teacher body's share", 0.02, form=_PERCENT),
            Measure("hidden.speed", "speed", 1.35, at_least=True),
            Measure("hidden.gap", "difference of a loss", 1e-6, form="{:.0e}"),
        ),
    ),
    Target(
        "`topk` cache",
        "exact",
        "cache",
        (
            Measure("topk.bytes", "bytes a token", 150, form="{:.0f}"),
            Measure("topk.kl-error", "KL error", form="{:+.2%}"),
            Measure("topk.gradient-error", "gradient's difference", form="{:.2%}"),
            Measure("topk.gradient-missing", "of the gradient missing", form="{:+.2%}"),
        ),
    ),
    Target(
        "DistiLLM (replay, adaptive)",
        "always on-policy",
        "distillm",
        (
            Measure("speed", "wall time", 1.5, at_least=True),
            Measure("speed.without_looks", "without looks at the validation loss"),
            Measure("worse.upper", "KL(s‖t) on own samples worse by, upper end of 95 %", 0.02, form="{:+.1%}"),
            Measure("share", "student-drawn rows", 0.25, at_least=True, form=_PERCENT),
        ),
    ),
    Target(
        "memory of a loss step, N 512 → 8,192",
        "–",
        "loss_memory",
        (
            Measure("slope.states", "slope in hidden states", 4.0),
            Measure("slope.of-vocabulary", "slope in rows of the vocabulary", form="{:.4f}"),
        ),
    ),
    Target(
        "model FLOPs of the off-policy step ÷ seconds ÷ sgemm peak",
        "–",
        "utilisation",
        (Measure("share", "share", 0.5, at_least=True),),
    ),
)
BESIDE = (
    Target(
        "an evaluation with one seed, the same otherwise",
        "a plain loop over `transformers.generate`",
        "rollouts",
        (
            Measure("15 layers.stops.loop", "tokens/s"),
            Measure("15 layers.stops.generate", "groups of like prompts"),
            Measure("15 layers.stops.stopped", "rows that stopped", form=_PERCENT),
        ),
    ),
    Target(
        "off-policy JSD step, products in bf16",
        "TRL `GKDTrainer` λ 0",
        "vs_trl",
        (Measure("fixed.gkd.speed", "tokens/s"), Measure("fixed.gkd.peak", "whole-process peak")),
        variant="bf16",
    ),
    Target(
        "on-policy JSD step, products in bf16",
        "TRL `GKDTrainer` λ 1",
        "vs_trl",
        (Measure("drawn.gkd.speed", "tokens/s"), Measure("drawn.gkd.peak", "whole-process peak")),
        variant="bf16",
    ),
    Target(
        "the same",
        "TRL stable `DistillationTrainer`",
        "vs_trl",
        (Measure("drawn.stable.speed", "tokens/s"), Measure("drawn.stable.peak", "whole-process peak")),
        variant="bf16",
    ),
    Target(
        "off-policy and on-policy JSD step",
        "a plain loop (`vs_reference`)",
        "vs_reference",
        (
            Measure("fixed.plain.speed", "off-policy tokens/s"),
            Measure("fixed.plain.peak", "peak"),
            Measure("drawn.plain.speed", "on-policy tokens/s"),
        ),
    ),
    Target(
        "a token more for 8 rows, 30 and 15 layers",
        "a cache that grows",
        "decoding",
        (
            Measure("30 layers.static.speed", "30 layers: static cache"),
            Measure("30 layers.compiled.speed", "compiled"),
            Measure("15 layers.static.speed", "15 layers: static cache"),
            Measure("15 layers.compiled.speed", "compiled"),
        ),
    ),
    Target(
        "cost of a step, fitted exponent",
        "–",
        "scaling",
        (
            Measure("exponent.length", "tokens of a row"),
            Measure("exponent.rows", "rows"),
            Measure("exponent.vocabulary", "vocabulary"),
            Measure("exponent.layers", "layers"),
        ),
    ),
)
"""What is measured beside the targets."""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What the programs wrote, by program. Refuses a quick run."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["quick"]:
            raise SystemExit(f"{path} is of a --quick run, whose ratios mean nothing; remove it")
        found[body["program"]] = body
    return found


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    places: list[str] = []
    lines = [_line(target, found.get(target.name), places, judged=True) for target in TARGETS]
    lines += [_line(target, found.get(target.name), places, judged=False) for target in BESIDE]
    where = "\n".join(
        f"- {letter}: {place}" for letter, place in zip("abcdefghijklmnopqrstuvwxyz", places, strict=False)
    )
    return _HEAD + "\n".join(lines) + "\n" + (f"\n{where}\n" if where else "")


def _line(target: Target, body: Mapping[str, Any] | None, places: list[str], *, judged: bool) -> str:
    wanted = "; ".join(each.target for each in target.measures if each.target) or "–"
    if body is None or any(each.key not in body["findings"] for each in target.measures):
        command = f"`python benchmarks/{target.program}.py`"
        cells = (target.what, target.against, wanted, "not measured yet", "", command, "")
        return "| " + " | ".join(cells) + " |"
    values = [(each, float(body["findings"][each.key])) for each in target.measures]
    said = "; ".join(f"{each.text} {each.form.format(value)}" for each, value in values)
    verdict = ("met" if all(each.is_met(value) for each, value in values) else "**missed**") if judged else ""
    place = _place(body)
    if place not in places:
        places.append(place)
    letter = "abcdefghijklmnopqrstuvwxyz"[places.index(place)]
    return (
        "| " + " | ".join((target.what, target.against, wanted, said, verdict, f"`{body['command']}`", letter)) + " |"
    )


def _place(body: Mapping[str, Any]) -> str:
    machine = body["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in body["versions"].items())
    return (
        f"{body['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, allocator"
        f" {machine['allocator']}, load {machine['load']} at the end; {versions}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collect", action="store_true", help="write docs/results/speed.md")
    parser.add_argument("--quick", action="store_true", help="nothing to make shorter")
    given = parser.parse_args()
    text = page(read(FOLDER))
    if given.collect:
        PAGE.write_text(text, encoding="utf-8")
        print(f"written: {PAGE}")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
