"""A run is a directory that explains itself. This module knows its files, and nothing of training."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from limbeck.errors import CheckpointError, ConfigError

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
AUTO = "auto.json"
STUDENT = "student"
_LOGS = (METRICS, SAMPLES)
_PACKAGES = ("limbeck", "torch", "transformers", "accelerate", "datasets", "peft", "numpy", "rouge-score")


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run, and appends to its logs. `docs/run-directory.md` lists every file with its fields."""

    path: Path

    @classmethod
    def create(cls, path: Path, *, recipe: str, environment: Mapping[str, Any]) -> RunDirectory:
        """A new run directory. Raises `ConfigError` if the folder holds anything already; nothing is changed then."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            held = "is another run's directory" if (path / RECIPE).exists() else "exists and is not empty"
            raise ConfigError(
                f"run is '{path}', which {held}.\n"
                "  Go on with that run by --resume, or choose another directory: run=runs/NAME"
            )
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path)
        (path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
        for log in _LOGS:
            (path / log).touch()
        directory.write_text(RECIPE, recipe)
        return directory

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """The directory of a run that was started. Raises `CheckpointError` if it is none."""
        if not (path / RECIPE).is_file():
            raise CheckpointError(f"'{path}' is not the directory of a run: it has no {RECIPE}")
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file so that a reader sees the old text or the new, never half of one."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)

    def append(self, log: str, row: Mapping[str, Any]) -> None:
        """One line at the end of a log."""
        with (self.path / log).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=True) + "\n")

    def sizes(self) -> dict[str, int]:
        """The length of each log in bytes: where a resumed run goes on writing."""
        return {log: (self.path / log).stat().st_size for log in _LOGS}

    def cut_back(self, sizes: Mapping[str, int]) -> None:
        """Let go of what the logs say about steps after a checkpoint."""
        for log, size in sizes.items():
            path = self.path / log
            if not path.exists() or path.stat().st_size < size:
                raise CheckpointError(f"{path} is shorter than at the last checkpoint; the run directory is damaged")
            os.truncate(path, size)

    def rows(self, log: str) -> Iterator[dict[str, Any]]:
        """The rows of a log; a last line that was cut off by a crash is left out."""
        path = self.path / log
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def auto(self) -> dict[str, Any]:
        """What `auto` settings became at the first step, and out-of-memory halvings with their steps."""
        path = self.path / AUTO
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def write_auto(self, settings: Mapping[str, Any]) -> None:
        """Record what `auto` became."""
        self.write_text(AUTO, json.dumps(settings, indent=2) + "\n")

    @property
    def student(self) -> Path:
        """The student as a Hugging Face folder: the best by the validation metric so far."""
        return self.path / STUDENT


def environment(*, device: str, ranks: int, threads: int) -> dict[str, Any]:
    """Versions and machine, as far as they can move a number. No host name, no user name, no path."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": versions,
        "device": device,
        "ranks": ranks,
        "threads": threads,
    }


@dataclass(frozen=True)
class Run:
    """A finished or stopped run."""

    directory: Path

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation row of the checkpoint that was kept as the student; None if nothing was validated."""
        best = [row for row in self.metrics() if row["kind"] == "validation" and row["is_best"]]
        return best[-1] if best else None

    def metrics(self) -> list[dict[str, Any]]:
        """Every row of metrics.jsonl."""
        return list(RunDirectory(self.directory).rows(METRICS))

    def student(self) -> Any:
        """The student, loaded with plain transformers."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.directory / STUDENT)

    def __fspath__(self) -> str:
        return str(self.directory)
