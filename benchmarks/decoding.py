"""One token more for every row: a cache that grows, one of fixed size, and a compiled step over the latter.

    python benchmarks/decoding.py                    # 8 rows, prompts of 64 tokens, 64 new ones, 30 and 15 layers
    python benchmarks/decoding.py --device cuda      # the same there
    python benchmarks/decoding.py --quick            # a tiny random model; its ratios mean nothing

`grown` is what Limbeck's rollouts do: transformers' DynamicCache, which is as long as the longest row. `static` is its
StaticCache, made for prompt and answer, so that every step reads the whole of it. `compiled` is the same step through
`torch.compile`, whose first call is timed apart, because a run pays it again for every number of rows and every length
of the cache. All sides draw the likeliest token from the same prompts; the share of equal tokens is printed. Targets:
none; a side pays where it takes less time than `grown`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from machine import describe
from record import parser, publish
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache

from limbeck.models.loading import load_model
from limbeck.models.packaged import fetch
from limbeck.models.shrinking import measured_layers, shrink
from limbeck.testing import tiny_model

MODEL, HALF = "smollm2-135m-instruct", 15
Step = Callable[..., Any]


@dataclass(frozen=True)
class Decoded:
    """Tokens of all rows, seconds of the steps after the prompt, and of what was done once before."""

    tokens: Tensor
    seconds: float
    once: float


def decoded(model: PreTrainedModel, prompts: Tensor, *, new: int, cache: Any, step: Step, repeats: int) -> Decoded:
    """The likeliest tokens after the prompts; the fastest of `repeats` after one that is not counted."""
    found: list[Tensor] = []
    took: list[float] = []
    for _ in range(1 + repeats):
        held = cache()
        began = time.perf_counter()
        place = torch.arange(prompts.shape[1], device=prompts.device)
        out = model(prompts, past_key_values=held, cache_position=place, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        _finish(prompts)
        counted = time.perf_counter() if took else began
        found = [token]
        for at in range(new - 1):
            where = torch.tensor([prompts.shape[1] + at], device=prompts.device)
            out = step(token, past_key_values=held, cache_position=where, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            found.append(token)
        _finish(prompts)
        took.append(time.perf_counter() - counted)
    return Decoded(torch.cat(found, 1).cpu(), min(took[1:]), took[0])


def _finish(on: Tensor) -> None:
    if on.is_cuda:
        torch.cuda.synchronize()


def sides(model: PreTrainedModel, prompts: Tensor, *, new: int, repeats: int) -> dict[str, Decoded]:
    """Every side once."""
    length = prompts.shape[1] + new

    def fixed() -> Any:
        return StaticCache(config=model.config, max_cache_len=length)

    def grown() -> Any:
        return DynamicCache(config=model.config)

    torch._dynamo.reset()
    compiled = torch.compile(model.forward, dynamic=False)
    chosen: dict[str, tuple[Any, Step]] = {
        "grown": (grown, model),
        "static": (fixed, model),
        "compiled": (fixed, compiled),
    }
    return {
        name: decoded(model, prompts, new=new, cache=cache, step=step, repeats=repeats)
        for name, (cache, step) in chosen.items()
    }


def models(given: argparse.Namespace) -> dict[str, PreTrainedModel]:
    """The measured models by name."""
    if given.quick:
        return {"tiny": tiny_model(width=32, layers=2, positions=256).eval()}
    whole = load_model(str(fetch(MODEL)), device=given.device)
    half = shrink(whole, layers=measured_layers(MODEL, HALF))
    return {"30 layers": whole.eval(), "15 layers": half.to(given.device).eval()}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--rows", type=int, default=8)
    options.add_argument("--new", type=int, default=64)
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    print(describe())
    prompt, new, repeats = (8, 6, 1) if given.quick else (64, given.new, given.repeats)
    findings: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for name, model in models(given).items():
            generator = torch.Generator().manual_seed(0)
            prompts = torch.randint(model.config.vocab_size, (given.rows, prompt), generator=generator)
            found = sides(model, prompts.to(given.device), new=new, repeats=repeats)
            base = found["grown"]
            for side, each in found.items():
                equal = float((each.tokens == base.tokens).float().mean())
                speed, a_token = base.seconds / each.seconds, each.seconds / (new - 1)
                print(
                    f"{name:<10} {side:<9} {1000 * a_token:6.1f} ms a token of {given.rows} rows   speed {speed:.2f}"
                    f"   first call {each.once:5.1f} s   equal tokens {equal:.0%}",
                    flush=True,
                )
                findings[f"{name}.{side}.speed"] = speed
                rows.append({"model": name, "side": side, "seconds": each.seconds, "once": each.once, "equal": equal})
    publish("decoding", given, sizes={"rows": given.rows, "prompt": prompt, "new": new}, findings=findings, rows=rows)


if __name__ == "__main__":
    main()
