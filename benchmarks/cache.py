"""What a teacher cache saves and takes: epoch 2 of kd with and without it, bytes a token, and what `topk` gets wrong.

    python benchmarks/cache.py --data dolly/train.jsonl    # SmolLM2-135M-Instruct and 15 of its layers, 64 rows
    python benchmarks/cache.py --quick                     # random models; its ratios mean nothing

Each side takes two epochs over the same rows, in the same steps; the second epoch's steps are timed, with the share of
the teacher's body in them. The losses of the first epoch must be equal bit for bit (`memory`, `disk`), those of all
steps within 1e-4 (but `topk`): checked. Bytes a token are those of the shards of `limbeck cache build`; that of `topk`
is compared with the formula of `most_bytes_a_token` and with 150. What `topk` gets wrong is taken at the first step,
where all sides have the same student: (KL − exact) / exact; the length of the gradient's difference over the length of
the exact gradient; and how much of the exact gradient is missing along its own direction. `drawn` is the same size with
classes drawn from the teacher (`--draws`), whose gradient is right on average and noisy instead.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import describe
from pair import made_rows, random_pair, saved_pair
from record import parser, publish
from step_profile import Clock, watched

from limbeck.config import Recipe
from limbeck.models.offline_cache import Manifest
from limbeck.models.sparse_coding import most_bytes_a_token
from limbeck.training.cache_building import build_cache
from limbeck.training.caching import let_go
from limbeck.training.session import open_session
from limbeck.training.step import move_weights, take_items, take_step
from limbeck.training.world import World

LIMIT, TOP, BATCH = 150, 32, 8
SPEED, SHARE, GAP = 1.35, 0.02, 1e-6
OFFLINE: dict[str, dict[str, Any]] = {
    "hidden": {"kind": "hidden"},
    "topk": {"kind": "topk", "top": TOP},
    "drawn": {"kind": "topk", "draws": TOP},
}


def recipe(
    models: tuple[str | None, str], corpus: str, *, count: int, cache: dict[str, Any], run: Path
) -> dict[str, Any]:
    return {
        "method": {"base": "kd"},
        "models": {"teacher": models[0], "student": models[1], "device": "cpu"},
        "data": {"corpus": corpus, "max_prompt": 128, "max_length": 256, "long_prompt": "cut", "max_rows": count},
        "train": {"steps": 2 * count // BATCH, "batch_rows": BATCH, "learning_rate": 1e-4},
        "validate": {"every": None},
        "cache": cache,
        "run": str(run),
    }


def two_epochs(settings: dict[str, Any]) -> tuple[list[float], Clock, dict[str, torch.Tensor]]:
    """The losses of all steps, where the second epoch's time went, and the gradient of the first step."""
    session = open_session(Recipe.load(settings, []), world=World.start(device="cpu"), rows=None, recorded={})
    losses, second, gradient, consumed = [], Clock(), {}, 0
    for step in range(1, session.steps + 1):
        items, wanted = take_items(session, step, consumed)
        clock = Clock() if step <= session.steps // 2 else second
        with watched(clock), clock.part("backward, optimizer"):
            result = take_step(session, step, items=items)
            if step == 1:
                found = session.distiller.named_parameters()
                gradient = {name: p.grad.clone() for name, p in found if p.grad is not None}
            result = move_weights(session, result)
        let_go(session.cache, session.source)
        consumed += wanted
        losses.append(result.row["loss"])
    if session.cache is not None:
        session.cache.close()
    return losses, second, gradient


def check(name: str, losses: list[float], expected: list[float]) -> float:
    """The largest difference of a loss. Fails where more differs than may."""
    half = len(expected) // 2
    if name in ("memory", "disk") and losses[:half] != expected[:half]:
        raise SystemExit(f"{name}: the first epoch is not the same bit for bit")
    gap = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    if name not in ("topk", "drawn") and gap > 1e-4:
        raise SystemExit(f"{name}: a loss differs by {gap:.2e}")
    return gap


def errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of a gradient: the length of what differs, and what is missing along the exact one."""
    squares = sum(float(value.double().square().sum()) for value in exact.values())
    apart = sum(float((found[name] - value).double().square().sum()) for name, value in exact.items())
    along = sum(float((found[name].double() * value.double()).sum()) for name, value in exact.items())
    return {"gradient": math.sqrt(apart / squares), "along": 1 - along / squares}


def size_line(name: str, manifest: Manifest) -> tuple[float, str]:
    about, tokens = manifest.about, sum(shard.tokens for shard in manifest.shards)
    each = manifest.num_bytes / tokens
    said = f"bytes a token, {name:<6} {each:8,.1f} over {tokens:,} tokens, names and places of rows included"
    if name == "topk":
        most = most_bytes_a_token(classes=TOP + 1, vocabulary_size=int(about["logits_width"]))
        said += f"   at most {most} by formula   target {LIMIT} {'met' if each <= LIMIT else 'MISSED'}"
    return each, said


def measured(given: argparse.Namespace, folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    teacher, student = (
        random_pair(folder, teacher=(64, 3), student=(32, 2)) if given.quick else saved_pair(folder, quick=False)
    )
    count = 16 if given.quick else given.rows
    corpus = made_rows(folder / "rows.jsonl", count=count) if given.quick else given.data
    kinds: dict[str, dict[str, Any]] = {name: {"kind": name} for name in ("off", "memory", "disk")}
    findings: dict[str, float] = {}
    for name, how in OFFLINE.items():
        settings = recipe((teacher, student), corpus, count=count, cache={}, run=folder / "none")
        manifest = build_cache(settings, out=folder / f"cache-{name}", **how)
        findings[f"{name}.bytes"], said = size_line(name, manifest)
        print(said)
        kinds[name] = {"kind": "offline", "path": str(folder / f"cache-{name}")}
    expected: list[float] = []
    exact: dict[str, torch.Tensor] = {}
    rows: list[dict[str, Any]] = []
    for name, cache in kinds.items():
        models = (None if cache["kind"] == "offline" else teacher, student)
        settings = recipe(models, corpus, count=count, cache=cache, run=folder / f"run-{name}")
        losses, clock, gradient = two_epochs(settings)
        expected, exact = expected or losses, exact or gradient
        seconds = sum(clock.seconds.values())
        row = {"cache": name, "seconds": seconds, "loss_gap": check(name, losses, expected)}
        row |= {"teacher_body": clock.seconds["bodies of teacher"] / seconds}
        row |= {"heads": clock.seconds["heads and terms"] / seconds}
        row |= {"kl_error": losses[0] / expected[0] - 1, **errors(gradient, exact)}
        rows.append(row)
        findings |= {f"{name}.speed": rows[0]["seconds"] / seconds, f"{name}.teacher-body": row["teacher_body"]}
        findings |= {f"{name}.gap": row["loss_gap"], f"{name}.kl-error": row["kl_error"]}
        findings |= {f"{name}.gradient-error": row["gradient"], f"{name}.gradient-missing": row["along"]}
        print(
            f"epoch 2, {name:<6} {seconds:7.2f} s, {findings[f'{name}.speed']:5.2f} times as fast as off;"
            f" teacher's body {row['teacher_body']:6.1%}, heads and terms {row['heads']:4.0%}; largest difference"
            f" of a loss {row['loss_gap']:.1e}"
        )
        if name in ("topk", "drawn"):
            print(
                f"    step 1: KL {row['kl_error']:+.2%}, gradient differs by {row['gradient']:.2%} of its length,"
                f" {row['along']:+.2%} of it is missing along its direction"
            )
    return findings, rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", default="starter", help="a corpus or a file of rows")
    options.add_argument("--rows", type=int, default=64, help=f"a multiple of {BATCH}")
    given = options.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as scratch:
        findings, rows = measured(given, Path(scratch))
    if not given.quick:
        met = (
            findings["hidden.speed"] >= SPEED
            and findings["hidden.teacher-body"] <= SHARE
            and findings["hidden.gap"] <= GAP
        )
        print(
            f"hidden: target {SPEED} times, body at most {SHARE:.0%}, losses within {GAP}: {'met' if met else 'MISSED'}"
        )
    publish("cache", given, sizes={"rows": given.rows, "batch_rows": BATCH, "top": TOP}, findings=findings, rows=rows)


if __name__ == "__main__":
    main()
