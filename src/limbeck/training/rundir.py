"""A run is a directory that explains itself. This module knows its files, and nothing of training."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from limbeck.errors import CheckpointError, ConfigError
from limbeck.files import alone_in, json_lines, read_json, read_rows, write_whole

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
TOKENS = "tokens.jsonl"
AUTO = "auto.json"
ROWS = "rows.json"
EXTRACTOR = "extractor.json"
TRACKING = "tracking.json"
CLIP_NETWORK = "clip_network.safetensors"
STUDENT = "student"
FINISHED = "finished.json"
PAGE = "page.html"
_CHECKPOINTS = "checkpoints"
_ENVIRONMENT = "environment.json"
_DAMAGED = "Put the file back, or start again in another directory: run=runs/NAME"
_LOGS = (METRICS, SAMPLES, TOKENS)
_PACKAGES = ("limbeck", "torch", "transformers", "accelerate", "datasets", "peft", "numpy", "rouge-score")


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run, and appends to its logs. `docs/run-directory.md` lists every file with its fields."""

    path: Path

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        recipe: str,
        environment: Mapping[str, Any],
        extractor: Mapping[str, Any] | None = None,
        rows: Mapping[str, Any] | None = None,
    ) -> RunDirectory:
        """A new run directory, with what the extractor of spans has learned, if it has, and counts of the rows.

        Raises `ConfigError` as `check_free` does, or if it cannot be made.
        """
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ConfigError(f"run is '{path}', which cannot be made: {error.strerror}; choose run=DIR") from error
        directory = cls(path)
        (path / _ENVIRONMENT).write_text(json.dumps(environment, indent=2) + "\n")
        for log in _LOGS:
            (path / log).touch()
        if rows is not None:
            directory.write_text(ROWS, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        # A run that never began may have left one.
        (path / EXTRACTOR).unlink(missing_ok=True)
        if extractor is not None:
            directory.write_text(EXTRACTOR, json.dumps({"sum": _sum(extractor), **extractor}) + "\n")
        # Last: a folder with a recipe is a run.
        directory.write_text(RECIPE, recipe)
        return directory

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """The directory of a run that was started. Raises `CheckpointError` if it is none."""
        if not (path / RECIPE).is_file():
            raise CheckpointError(f"'{path}' is not the directory of a run: it has no {RECIPE}")
        return cls(path)

    @contextlib.contextmanager
    def alone(self, *, is_main: bool = True) -> Iterator[RunDirectory]:
        """Train into it, the main rank for all of them. Raises `CheckpointError` while another process does."""
        with alone_in(self.path) if is_main else contextlib.nullcontext():
            yield self

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file so that a reader sees the old text or the new, never half of one."""
        write_whole(self.path / name, text)

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a whole file of rows in the same way."""
        write_whole(self.path / name, json_lines(rows))

    def append(self, log: str, row: Mapping[str, Any]) -> None:
        """One line at the end of a log."""
        # A row's id may hold half a surrogate pair, as a JSON string may.
        with (self.path / log).open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=True) + "\n")

    def sizes(self) -> dict[str, int]:
        """The length of each log in bytes: where a resumed run goes on writing."""
        return {log: (self.path / log).stat().st_size for log in _LOGS}

    def flush(self) -> None:
        """Force the logs to the disk: a checkpoint must not know more of them than the disk does."""
        for log in _LOGS:
            with (self.path / log).open("rb") as file:
                os.fsync(file.fileno())

    def cut_back(self, sizes: Mapping[str, int]) -> None:
        """Let go of what the logs say about steps after a checkpoint. Raises `CheckpointError` before any change."""
        for log, size in sizes.items():
            path = self.path / log
            if not path.exists() or path.stat().st_size < size:
                raise CheckpointError(
                    f"{path} is shorter than at the last checkpoint ({size} bytes); the run directory is damaged.\n"
                    f"  {_DAMAGED}"
                )
        for log, size in sizes.items():
            os.truncate(self.path / log, size)

    def tidy(self, *, after: int) -> None:
        """Remove what a kill left behind: drafts, and answers of validations after the step that the run goes on from.

        A student that was just being replaced is put back.
        """
        for draft in [*self.path.glob(".*.draft"), *self.path.glob("validation/.*.draft")]:
            draft.unlink()
        # Longer now, or about to be finished again.
        (self.path / FINISHED).unlink(missing_ok=True)
        for answers in self.path.glob("validation/step-*.jsonl"):
            # A copy that somebody made beside them is not the run's.
            number = answers.stem.removeprefix("step-")
            if number.isdecimal() and int(number) > after:
                answers.unlink()
        for scratch in self.path.glob(f".{STUDENT}-*"):
            if not self.student.exists() and (scratch / "replaced").is_dir():
                os.replace(scratch / "replaced", self.student)
            shutil.rmtree(scratch, ignore_errors=True)

    def has_student(self) -> bool:
        """Whether weights lie where the student is kept."""
        return (self.student / "config.json").is_file() and any(self.student.glob("*.safetensors"))

    def rows(self, log: str) -> Iterator[dict[str, Any]]:
        """The rows of a log; a last line that was cut off by a crash is left out."""
        path = self.path / log
        if path.exists():
            yield from read_rows(path, growing=True, error=CheckpointError, remedy=_DAMAGED)

    def auto(self) -> dict[str, Any]:
        """What `auto` settings became at the first step, and out-of-memory halvings with their steps."""
        path = self.path / AUTO
        is_due = path.exists() or any((self.path / _CHECKPOINTS).glob("step-*"))
        found = read_json(path, error=CheckpointError, remedy=_DAMAGED) if is_due else {}
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} is damaged: it holds no settings.\n  {_DAMAGED}")
        return found

    def extractor(self) -> dict[str, Any]:
        """What the extractor of spans learned at the start of the run. Raises `CheckpointError` if it is damaged."""
        path = self.path / EXTRACTOR
        try:
            state = dict(json.loads(path.read_text(encoding="utf-8")))
            if state.pop("sum") == _sum(state):
                return state
            why = "it does not have the sum that was written with it"
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}, what the extractor of spans has learned, cannot be read: {why}.\n  {_DAMAGED}")

    def environment(self) -> dict[str, Any]:
        """The environment that the run was started in; empty if its file is not there any more."""
        try:
            found = json.loads((self.path / _ENVIRONMENT).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_auto(self, settings: Mapping[str, Any]) -> None:
        """Record what `auto` became."""
        self.write_text(AUTO, json.dumps(settings, indent=2) + "\n")

    @property
    def student(self) -> Path:
        """The student as a Hugging Face folder: the best by the validation metric so far."""
        return self.path / STUDENT


def _sum(state: Mapping[str, Any]) -> str:
    """CRC-32 of the values as JSON: it tells damage, not forgery."""
    return f"{zlib.crc32(json.dumps(state, sort_keys=True).encode()):08x}"


def check_free(path: Path) -> None:
    """Raise `ConfigError` if the folder holds anything, except for what a run that never began left there."""
    if not path.exists():
        return
    begun = {_ENVIRONMENT, *_LOGS, EXTRACTOR, ROWS}
    drafts = tuple(f".{name}.*draft" for name in (EXTRACTOR, ROWS, RECIPE))
    if path.is_dir() and all(
        entry.name in begun or any(entry.match(draft) for draft in drafts) for entry in path.iterdir()
    ):
        return
    held = "is another run's directory" if (path / RECIPE).exists() else "exists and is not empty"
    raise ConfigError(
        f"run is '{path}', which {held if path.is_dir() else 'is a file'}.\n"
        "  Go on with that run by --resume, or choose another directory: run=runs/NAME"
    )


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


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run that goes on in another environment than it was started in may do otherwise than it would have.

    >>> environment_changes({"threads": 1, "python": "3.11.1"}, {"threads": 2, "python": "3.11.1"})
    ['this run was started with threads 1, now 2; its numbers may differ in the last bits']
    """
    flat = [{**each, **each.get("versions", {})} for each in (before, now)]
    changed = [
        f"{key} {value}, now {flat[1].get(key)}"
        for key, value in flat[0].items()
        if key not in ("versions", "code") and flat[1].get(key) != value
    ]
    line = f"this run was started with {'; '.join(changed)}; its numbers may differ in the last bits"
    other = ", ".join(name for name, hash in before.get("code", {}).items() if now.get("code", {}).get(name) != hash)
    part = f"warning: {other}, the code of a part of this run, has changed since it was started: what it learns may too"
    return [*([line] if changed else []), *([part] if other else [])]


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

    @property
    def is_finished(self) -> bool:
        """Whether the run went to its end, by its steps or by `train.stop_after`."""
        return (self.directory / FINISHED).is_file()

    def drop_checkpoints(self) -> None:
        """Remove what the run could go on from, three times the size of its weights; student and logs stay.

        Raises `CheckpointError` if the run is not finished.
        """
        if not self.is_finished:
            raise CheckpointError(f"the run {self.directory} is not finished: it would have to start again")
        dropped = self.directory / f".{_CHECKPOINTS}-dropped"
        shutil.rmtree(dropped, ignore_errors=True)
        # In one move first: half of a checkpoint would be taken for a damaged one.
        if (self.directory / _CHECKPOINTS).is_dir():
            os.replace(self.directory / _CHECKPOINTS, dropped)
        shutil.rmtree(dropped, ignore_errors=True)

    def student(self) -> Any:
        """The student, loaded with plain transformers."""
        from transformers import AutoModelForCausalLM

        from limbeck.models.bars import without_bars

        with without_bars():
            return AutoModelForCausalLM.from_pretrained(self.directory / STUDENT)

    def __fspath__(self) -> str:
        return str(self.directory)
