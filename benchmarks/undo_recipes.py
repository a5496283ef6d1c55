"""The tasks of undo_runs.py: where their questions come from, and who the student is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undo_tables import MAIN

from limbeck.blackbox.artefacts import read_rows, write_rows
from limbeck.blackbox.solutions import solution_steps
from limbeck.blackbox.tasks import load_task
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import fetch
from limbeck.models.saving import save_student
from limbeck.models.shrinking import measured_layers, shrink

ROUNDS = 3
NAME = "smollm2-135m-instruct"


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """Recipes whose runs lie in `work`, whose questions in `data`, whose students on `device`; tiny where `quick`."""

    work: Path
    data: Path | None
    quick: bool
    device: str = "cpu"

    def recipe(self, task: str, seed: int) -> dict[str, Any]:
        made = {"arithmetic": self._arithmetic, "svamp": self._svamp, "strategyqa": self._strategyqa}[task](seed)
        method = {"base": MAIN, "rounds": ROUNDS, "feedback": "validation+instance", "carry": "previous_accepted"}
        # Every arm takes every round: the stop rules would end some arms before others.
        rules = {"patience": ROUNDS + 1, "min_accepted": 0.0}
        return {"method": method, "stop": rules, "seed": seed, "run": str(self.work / f"{task}-seed{seed}"), **made}

    def _arithmetic(self, seed: int) -> dict[str, Any]:
        of = self._of
        return {
            "teacher": {"kind": "solver"},
            "task": {
                "name": "arithmetic",
                "steps": [2],
                "largest": 20,
                "train": of(2000, 24),
                "probe": of(20, 3),
                "stop": of(300, 6),
                "test": of(2000, 8),
            },
            "student": self.scratch(seed, width=96, layers=3, prompt=96, answer=96),
            "train": {"epochs": of(6, 1), "batch_rows": 16, "learning_rate": 3e-3, "warmup": 0.05},
        }

    def _svamp(self, seed: int) -> dict[str, Any]:
        of = self._of
        pool, test = self._pool(), self._below("svamp/test.jsonl")
        return {
            "teacher": {"kind": "solver"},
            "task": {
                "file": str(pool),
                "test_file": str(test),
                "probe": of(20, 3),
                "stop": of(120, 6),
                "train": of(None, 24),
                "test": of(None, 8),
            },
            "student": self.scratch(seed, width=128, layers=4, prompt=160, answer=96, vocabulary=2048),
            "train": {"epochs": of(6, 1), "batch_rows": 16, "learning_rate": 3e-3, "warmup": 0.05},
        }

    def _strategyqa(self, seed: int) -> dict[str, Any]:
        of = self._of
        return {
            "teacher": {"kind": "facts"},
            "task": {
                "name": "strategyqa",
                "root": str(self._below(".")),
                "train": of(400, 16),
                "probe": of(20, 2),
                "stop": of(40, 4),
                "test": of(None, 4),
            },
            "student": {
                "model": str(self.shrunk(15)),
                "device": self.device,
                "max_prompt": 96,
                "max_new_tokens": of(128, 64),
                "answer_rows": 40,
            },
            "train": {"epochs": of(1, 0.5), "learning_rate": 5e-4, "warmup": 0.1, "precision": "bf16-mixed"},
        }

    def _of(self, real: Any, quick: Any) -> Any:
        return quick if self.quick else real

    def scratch(self, seed: int, *, width: int, layers: int, prompt: int, answer: int, vocabulary: int = 1024) -> Any:
        made = {"width": width, "layers": layers, "heads": 4, "positions": 256, "vocabulary": vocabulary, "seed": seed}
        lengths = {"max_prompt": prompt, "max_new_tokens": answer, "answer_rows": 100}
        return {"scratch": made, "device": self.device, **lengths}

    def _below(self, name: str) -> Path:
        assert self.data is not None, "--data names the folder that holds svamp, gsm8k and strategyqa"
        return self.data / name

    def _pool(self) -> Path:
        """SVAMP's training questions, and GSM8K's shortest ones whose solutions have two or three steps."""
        path = self.work / "svamp-pool.jsonl"
        if not path.is_file():
            known = {
                item.id
                for item in load_task("gsm8k", "train", self._below("."))
                if len(solution_steps(item)) in (2, 3) and item.question.isascii()
            }
            rows = [row for row in read_rows(self._below("gsm8k/train.jsonl")) if row["id"] in known]
            rows.sort(key=lambda row: (len(row["question"]), row["id"]))
            write_rows(path, [*read_rows(self._below("svamp/train.jsonl")), *rows[:600]])
        return path

    def shrunk(self, layers: int) -> Path:
        """So many layers of the packaged model, made once."""
        folder = self.work / f"smollm2-{layers}-layers"
        if not (folder / "config.json").is_file():
            small = shrink(load_model(str(fetch(NAME)), device="cpu"), layers=measured_layers(NAME, layers))
            save_student(small, load_tokenizer(str(fetch(NAME))), folder)
        return folder
