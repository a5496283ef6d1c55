"""What the folder of one run holds, read for a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import DataError
from limbeck.files import read_json, read_rows

DRAW_AGAIN = "remove that file, and the same limbeck evaluate draws its answers again"
"""What to do about a damaged file of answers."""
_RECIPE, _METRICS = "recipe.yaml", "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunLogs:
    """The rows of a run by their file; empty where a file is missing.

    `best` is the validation row of the student that was kept; `answers` are by the folder below answers/ ("plain"), of
    the seeds that answered every example, with a line in `unfinished` for each other seed; `headers` say by folder and
    corpus how they were drawn. `counted` is rows.json.
    """

    name: str
    folder: Path
    recipe: str
    settings: Mapping[str, Any]
    metrics: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    looks: tuple[dict[str, Any], ...]
    best: Mapping[str, Any]
    validation_answers: tuple[dict[str, Any], ...]
    answers: Mapping[str, tuple[dict[str, Any], ...]]
    unfinished: Mapping[str, tuple[str, ...]]
    headers: Mapping[tuple[str, str], str]
    counted: Mapping[str, Any]
    environment: Mapping[str, Any]
    is_finished: bool

    @classmethod
    def read(cls, folder: Path, name: str) -> RunLogs:
        """The logs of a run. Raises `DataError` for a folder that is no run, and for a line that is no JSON."""
        if not (folder / _RECIPE).is_file() or not (folder / _METRICS).is_file():
            raise DataError(f"'{folder}' is not the folder of a run: it needs recipe.yaml and metrics.jsonl")
        recipe = (folder / _RECIPE).read_text(encoding="utf-8")
        metrics = tuple(rows_of(folder / _METRICS))
        best: dict[str, Any] = next((row for row in reversed(metrics) if row.get("is_best")), {})
        drawn, headers = _evaluated(folder / "answers")
        parted = {kind: _whole_seeds(rows) for kind, rows in drawn.items()}
        return cls(
            name=name,
            folder=folder,
            recipe=recipe,
            settings=yaml.safe_load(recipe) or {},
            metrics=metrics,
            samples=tuple(rows_of(folder / "samples.jsonl")),
            looks=tuple(rows_of(folder / "tokens.jsonl")),
            best=best,
            validation_answers=tuple(rows_of(_drawn(folder, int(best.get("step", 0))))),
            answers={kind: rows for kind, (rows, _) in parted.items()},
            unfinished={kind: lines for kind, (_, lines) in parted.items()},
            headers=headers,
            counted=_json(folder / "rows.json"),
            environment=_json(folder / "environment.json"),
            is_finished=(folder / "finished.json").is_file(),
        )

    @property
    def method(self) -> str:
        """The name that the recipe gives its method."""
        return str(self.settings.get("method", {}).get("base", "?"))

    @property
    def is_sft(self) -> bool:
        """Whether the run is plain fine-tuning on references."""
        return self.method.partition(":")[0] == "sft"

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of its steps."""
        return self.of_kind("step")

    @property
    def last_step(self) -> int:
        """The number of the last step that was taken."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl of one kind: step, validation or watch."""
        return [row for row in self.metrics if row["kind"] == kind]

    def setting(self, dotted: str) -> Any:
        """A setting of the recipe; None where it has no such key."""
        value: Any = self.settings
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def validation_scores(self, step: int) -> dict[str, float]:
        """ROUGE-L of each validation row after a step; empty where no answers were drawn."""
        rows = rows_of(_drawn(self.folder, step))
        return {str(row["id"]): float(row["scores"]["rouge_l"]) for row in rows}


def rows_of(path: Path, *, remedy: str = "put the file back") -> Iterator[dict[str, Any]]:
    """The rows of a log; none where it is missing. The line that a running process is writing is left out."""
    if path.is_file():
        yield from read_rows(path, growing=True, remedy=remedy)


def _whole_seeds(rows: Sequence[dict[str, Any]]) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The rows of the seeds that answered as many examples of their corpus as any seed did; a line for each other one.

    An evaluation that is still going, or was stopped, has a seed that answered some: a mean over all rows would weigh
    these examples more.
    """
    counts = Counter((str(row["corpus"]), row["seed"]) for row in rows)
    most = {corpus: max(count for (other, _), count in counts.items() if other == corpus) for corpus, _ in counts}
    short = {place: count for place, count in counts.items() if count < most[place[0]]}
    lines = tuple(
        f"{corpus}: seed {seed} has {count} of {most[corpus]} answers and is left out"
        for (corpus, seed), count in sorted(short.items())
    )
    return tuple(row for row in rows if (str(row["corpus"]), row["seed"]) not in short), lines


def _drawn(folder: Path, step: int) -> Path:
    return folder / "validation" / f"step-{step:06d}.jsonl"


def _json(path: Path) -> dict[str, Any]:
    return dict(read_json(path, remedy="put the file back")) if path.is_file() else {}


def _evaluated(
    folder: Path,
) -> tuple[dict[str, list[dict[str, Any]]], dict[tuple[str, str], str]]:
    """The scored answers by folder, and how those of each corpus were drawn: decoding and content, not the model."""
    found: dict[str, list[dict[str, Any]]] = {}
    headers: dict[tuple[str, str], str] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        kind = str(path.parent.relative_to(folder))
        for row in rows_of(path, remedy=DRAW_AGAIN):
            if "rouge_l" in row.get("scores", {}):
                found.setdefault(kind, []).append(row)
            elif "decoding" in row and "corpus" in row:
                about = [row["decoding"], row.get("content"), row.get("max_prompt")]
                headers[kind, str(row["corpus"])] = json.dumps(about, sort_keys=True)
    return found, headers
