"""Tiny models and rows in a folder, and the starting of ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from limbeck.testing import save_tiny, save_toy

_RANKS = Path(__file__).with_name("ranks.py")
_SECONDS = 120


@dataclass(frozen=True)
class Place:
    """A folder with models, rows and runs."""

    path: Path

    def recipe(self, run: str, *, method: str, student: str = "student", **sections: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe of 6 steps: on two ranks 4 rows each, in 2 micro-batches; 35 validation rows at the end."""
        supervised = {} if method == "sft" else {"weights": {"supervised": 1}}
        teacher = {} if method == "sft" else {"teacher": str(self.path / "teacher")}
        return {
            "method": {"base": method, **supervised},
            "models": {"student": str(self.path / student), "device": "cpu", **teacher, **sections.get("models", {})},
            "data": {
                "corpus": str(self.path / "train.jsonl"),
                "valid": str(self.path / "valid.jsonl"),
                "max_prompt": 48,
                "max_length": 64,
            },
            "sampling": {"max_new_tokens": 12},
            "train": {"steps": 6, "batch_rows": 8, "micro_rows": 2, "learning_rate": 5e-4, **sections.get("train", {})},
            # Two ranks take 18 and 17 of the rows, in groups of 16 while answering and of 2 while measuring.
            "validate": {"every": 6, "rows": 35, **sections.get("validate", {})},
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
        ranks = [self._start(folder, rank, size=len(codes), port=port) for port in [_free_port()] for rank in range(len(codes))]
        until = time.monotonic() + _SECONDS
        try:
            outputs = [each.communicate(timeout=max(0.0, until - time.monotonic()))[0] for each in ranks]
        finally:
            for each in ranks:
                each.kill()
        found = tuple(each.returncode for each in ranks)
        assert found == codes, f"exit codes {found}\n" + "\n".join(outputs)
        return Launch(folder, tuple(outputs))

    @staticmethod
    def _start(folder: Path, rank: int, *, size: int, port: int) -> subprocess.Popen[str]:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        return subprocess.Popen(
            [sys.executable, str(_RANKS), str(folder / "plan.json")],
            env={
                **os.environ,
                **{key: str(value) for key, value in place.items()},
                "MASTER_ADDR": "127.0.0.1",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True)
class Launch:
    """What came of a plan: `of` a case, one result a rank, and what each rank printed."""

    folder: Path
    outputs: tuple[str, ...]

    def of(self, case: str) -> list[dict[str, Any]]:
        """The results of a case, rank by rank."""
        return [json.loads((self.folder / f"{case}-{rank}.json").read_text()) for rank in range(len(self.outputs))]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("ranks")
    save_tiny(folder / "student")
    save_tiny(folder / "tied", architecture="gemma3")
    save_tiny(folder / "teacher", seed=1, layers=3)
    save_toy(folder / "train.jsonl", 48)
    save_toy(folder / "valid.jsonl", 35, seed=5)
    return Place(folder)
