"""What a teacher cache saves and takes: epoch 2 of kd with and without it, and the bytes a token of offline caches.

    python benchmarks/cache.py                      # random models: teacher 12 layers of width 768, student 6 of 384
    python benchmarks/cache.py --teacher smollm2-135m-instruct --student students/small   # real ones
    python benchmarks/cache.py --quick              # small, to see that it runs; its ratios mean nothing

Each run has two epochs over the same rows, in the same steps; the second epoch's steps are timed. The losses of the
first epoch must be equal bit for bit and those of the second within 1e-4: checked. Bytes a token are those of the
shards of `limbeck cache build`; that of `topk` is compared with the formula of `most_bytes_a_token` and with 150.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe

from limbeck.models.offline_cache import Manifest
from limbeck.models.sparse_coding import most_bytes_a_token
from limbeck.testing import byte_tokenizer, tiny_model
from limbeck.training import train
from limbeck.training.cache_building import build_cache

LIMIT, TOP = 150, 32


def rows(count: int) -> list[dict[str, str]]:
    """Rows of like lengths as a real corpus has them, made by rule."""
    return [
        {
            "prompt": f"Tell me about number {i}. " * 3,
            "completion": f"Number {i} is {i * i} when squared. " * (3 + i % 7),
        }
        for i in range(count)
    ]


def models(folder: Path, *, quick: bool) -> tuple[str, str]:
    """A random pair of the byte tokenizer; what its numbers say is nothing, what they cost is the point."""
    sizes = {"teacher": (64, 3), "student": (32, 2)} if quick else {"teacher": (768, 12), "student": (384, 6)}
    for seed, (name, (width, layers)) in enumerate(sizes.items()):
        tiny_model(width=width, layers=layers, seed=seed, positions=1024).save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    return str(folder / "teacher"), str(folder / "student")


def recipe(teacher: str | None, student: str, *, count: int, cache: dict[str, Any], run: Path) -> dict[str, Any]:
    return {
        "method": {"base": "kd"},
        "models": {"teacher": teacher, "student": student, "device": "cpu"},
        "data": {"max_prompt": 192, "max_length": 512},
        "train": {"steps": 2 * count // 8, "batch_rows": 8, "learning_rate": 1e-4},
        "validate": {"every": None},
        "cache": cache,
        "run": str(run),
    }


def second_epoch(settings: dict[str, Any], data: list[dict[str, str]]) -> tuple[float, list[float]]:
    """Seconds of the second epoch's steps, and the losses of all steps."""
    steps = [row for row in train(settings, rows=data).metrics() if row["kind"] == "step"]
    seconds = sum(row["time"]["seconds"] for row in steps[len(steps) // 2 :])
    return seconds, [row["loss"] for row in steps]


def check(name: str, losses: list[float], expected: list[float]) -> None:
    half = len(expected) // 2
    if name in ("memory", "disk") and losses[:half] != expected[:half]:
        raise SystemExit(f"{name}: the first epoch is not the same bit for bit")
    gap = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    if name != "topk" and gap > 1e-4:
        raise SystemExit(f"{name}: a loss differs by {gap:.2e}")


def line(manifest: Manifest) -> str:
    about, tokens = manifest.about, sum(shard.tokens for shard in manifest.shards)
    each = manifest.num_bytes / tokens
    said = f"bytes a token, {manifest.kind:<6} {each:8,.1f} over {tokens:,} tokens, names and places of rows included"
    if manifest.kind == "topk":
        most = most_bytes_a_token(classes=TOP + 1, vocabulary_size=int(about["logits_width"]))
        said += f"   at most {most} by formula   target {LIMIT} {'met' if each <= LIMIT else 'MISSED'}"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--teacher", help="a model's name or folder; random if not given")
    parser.add_argument("--student", help="a model's name or folder; random if not given")
    parser.add_argument("--rows", type=int, default=64, help="a multiple of 8")
    arguments = parser.parse_args()
    count = 16 if arguments.quick else arguments.rows
    print(describe(), file=sys.stdout)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        teacher, student = arguments.teacher, arguments.student
        if teacher is None or student is None:
            teacher, student = models(folder, quick=arguments.quick)
        data = rows(count)
        kinds: dict[str, dict[str, Any]] = {
            "off": {"kind": "off"},
            "memory": {"kind": "memory"},
            "disk": {"kind": "disk"},
        }
        for kind in ("hidden", "topk"):
            settings = recipe(teacher, student, count=count, cache={}, run=folder / "none")
            manifest = build_cache(settings, out=folder / f"cache-{kind}", kind=kind, top=TOP, rows=data)
            print(line(manifest))
            kinds[kind] = {"kind": "offline", "path": str(folder / f"cache-{kind}")}
        found: dict[str, float] = {}
        expected: list[float] = []
        for name, cache in kinds.items():
            named = None if cache["kind"] == "offline" else teacher
            settings = recipe(named, student, count=count, cache=cache, run=folder / f"run-{name}")
            found[name], losses = second_epoch(settings, data)
            expected = expected or losses
            check(name, losses, expected)
        print("epoch 2, seconds: " + "   ".join(f"{k} {v:.2f} ({v / found['off']:.2f})" for k, v in found.items()))
        print(json.dumps({"rows": count, "seconds": found}))


if __name__ == "__main__":
    main()
