"""A folder of tiny models, rows and runs, and the starting of ranks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Tied embeddings are one parameter of the outermost shard under two names.
CASES: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "gkd": {"method": "gkd"},
    "mgsr": {"method": "mgsr"},
    "minillm": {"method": "minillm", "parts": {"sequences": {"rows": 16, "epochs": 2}}},
    "tied": {"method": "gkd", "student": "tied", "models": {"gradient_checkpointing": True}, "train": {"chunk": 3}},
    # A buffer of two steps, so that rows of both ranks are replayed in the run's few steps.
    "replay": {
        "method": "mgsr:off-policy",
        "parts": {
            "sequences": {
                "capacity": 16,
                "schedule": {"initial": 0.8, "rise": 0.0, "check_every": 2},
                "fresh": "constant",
            }
        },
    },
    "seqkd": {"method": "seqkd"},
    "lora": {"method": "mgsr", "models": {"lora": {"rank": 4, "alpha": 8}}},
    **{
        name: {
            "method": "kd",
            "parts": {"token": {"kind": "dac-kl", "top": 32, "clip": {"kind": name, "learning_rate": 0.01}}},
        }
        for name in ("conv", "rnn")
    },
    # Spans that are learned from the rows, by each rank for itself, and plain text beside them.
    "learned": {
        "method": "kd",
        "parts": {
            "span": {"kind": "correlation", "extractor": {"kind": "learned", "threshold": 0.1, "min_count": 2}},
            "weights": {"supervised": 1, "span": 5, "plain_text": 0.5},
        },
        "data": {"plain_text": "plain.jsonl"},
    },
}

# Cases that are stopped on one rank and go on, too.
RESUMED = ("conv", "rnn", "learned")

_RANKS = Path(__file__).with_name("ranks.py")
# Only so that a hang is found; a busy machine takes many times what a free one does.
_SECONDS = 300


@dataclass(frozen=True)
class Place:
    """A folder with models, rows and runs."""

    path: Path

    def recipe_of(self, case: str, *, run: str, **train: Any) -> dict[str, Any]:
        """The recipe of one of `CASES`."""
        sections = {**CASES[case], "train": {**CASES[case].get("train", {}), **train}}
        return self.recipe(run, **sections)

    def recipe(
        self, run: str, *, method: str, student: str = "student", **sections: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A recipe of 6 steps: on two ranks 4 rows each, in 2 micro-batches; 33 validation rows at the end."""
        supervised = {} if method in ("sft", "minillm") else {"weights": {"supervised": 1}}
        if method == "seqkd":
            # Both processes and the one write into a folder of the run.
            supervised |= {"sequences": {"cache": str(self.path / f"answers-{run}")}}
        teacher = {} if method == "sft" else {"teacher": str(self.path / "teacher")}
        named = {key: str(self.path / name) for key, name in sections.get("data", {}).items()}
        return {
            "method": {"base": method, **supervised, **sections.get("parts", {})},
            "models": {"student": str(self.path / student), "device": "cpu", **teacher, **sections.get("models", {})},
            "data": {
                "corpus": str(self.path / "train.jsonl"),
                "valid": str(self.path / "valid.jsonl"),
                "max_prompt": 48,
                "max_length": 64,
                **named,
            },
            "sampling": {"max_new_tokens": 12},
            "train": {"steps": 6, "batch_rows": 8, "micro_rows": 2, "learning_rate": 5e-4, **sections.get("train", {})},
            # Two ranks take 17 and 16 of the rows, on 16 seats while answering and in groups of 2 while measuring.
            "validate": {"every": 6, "rows": 33, **sections.get("validate", {})},
            "run": str(self.path / run),
        }

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """A run's metrics without the time that it took."""
        lines = (self.path / run / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]

    def launch(self, plan: Mapping[str, Any], *, name: str, codes: tuple[int, ...] = (0, 0)) -> Launch:
        """Run a plan on as many ranks as there are exit codes, and check them; a rank that hangs is an error."""
        folder = self.path / name
        folder.mkdir()
        (folder / "plan.json").write_text(json.dumps(plan))
        port = _free_port()
        with contextlib.ExitStack() as files:
            outputs = [files.enter_context((folder / f"output-{rank}").open("w+")) for rank in range(len(codes))]
            ranks = [
                subprocess.Popen(
                    [sys.executable, str(_RANKS), str(folder / "plan.json")],
                    env=environment() | _as_rank(rank, size=len(codes), port=port),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                for rank, output in enumerate(outputs)
            ]
            found = _exit_codes(ranks)
        launch = Launch(folder, tuple((folder / f"output-{rank}").read_text() for rank in range(len(codes))))
        assert found == codes, f"exit codes {found}\n" + "\n".join(launch.outputs)
        return launch

    def weights(self, run: str) -> dict[str, Tensor]:
        """The student that a run kept."""
        return dict(load_file(self.path / run / "student" / "model.safetensors"))

    def clip_network(self, run: str) -> dict[str, Tensor]:
        """The clip network that a run kept; nothing for a method without one."""
        file = self.path / run / "clip_network.safetensors"
        return dict(load_file(file)) if file.exists() else {}

    def assert_same(self, run: str, other: str) -> None:
        """The same bits of two runs: student, trained weights, optimizer and metrics."""
        assert self.metrics(run) == self.metrics(other)
        kept = Path("checkpoints") / "step-000006"
        held = [kept / "source"] if (self.path / run / kept / "source.safetensors").exists() else []
        for part in (Path("student") / "model", kept / "trainable", kept / "optimizer", *held):
            ours, theirs = (load_file(self.path / each / f"{part}.safetensors") for each in (run, other))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours), part


@dataclass(frozen=True)
class Launch:
    """What came of a plan: `of` a case, one result a rank, and what each rank printed."""

    folder: Path
    outputs: tuple[str, ...]

    def of(self, case: str) -> list[dict[str, Any]]:
        """The results of a case, rank by rank; a rank that was killed left none."""
        files = [self.folder / f"{case}-{rank}.json" for rank in range(len(self.outputs))]
        return [json.loads(file.read_text()) for file in files if file.exists()]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _as_rank(rank: int, *, size: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _exit_codes(ranks: Sequence[subprocess.Popen[bytes]]) -> tuple[int, ...]:
    """How the ranks ended; those that do not end in time are killed."""
    until = time.monotonic() + _SECONDS
    while any(each.poll() is None for each in ranks) and time.monotonic() < until:
        time.sleep(0.05)
    for each in ranks:
        each.kill()
    return tuple(each.wait() for each in ranks)


def environment() -> dict[str, str]:
    """One thread a process, and no GPU even where there is one."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
