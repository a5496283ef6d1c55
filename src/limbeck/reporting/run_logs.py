"""What the folder of one run holds, read for a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import DataError
from limbeck.files import read_json, read_rows

DRAW_AGAIN = "remove that file, and the same limbeck evaluate draws its answers again"
"""What to do about a damaged file of answers."""
_RECIPE, _METRICS = "recipe.yaml", "metrics.jsonl"
_ANSWERS_OF = "-answers-seed"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What counts of one folder below answers/: the answers of whole seeds by the student that the run keeps.

    `beside` is what else was measured of corpora whose seeds all count, `how` by corpus the way answers were drawn:
    decoding and content, not the model. `unfinished` has a line for each seed that has not answered every example,
    `outdated` one about the corpora that another student answered.
    """

    answers: tuple[dict[str, Any], ...]
    beside: tuple[dict[str, Any], ...]
    how: Mapping[str, str]
    unfinished: tuple[str, ...]
    outdated: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunLogs:
    """The rows of a run by their file; empty where a file is missing.

    `best` is the validation row of the student that was kept; `evaluations` are by the folder below answers/ ("plain").
    `counted` is rows.json.
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
    evaluations: Mapping[str, Evaluation]
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
            evaluations=read_evaluations(folder),
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
    def answers(self) -> dict[str, tuple[dict[str, Any], ...]]:
        """The answers of each evaluation that has some."""
        return {kind: each.answers for kind, each in self.evaluations.items() if each.answers}

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


def read_evaluations(run: Path) -> dict[str, Evaluation]:
    """The evaluations of a run by their folder below answers/. Raises `DataError` for a line that is no JSON."""
    answers, weights = run / "answers", _json(run / "student" / "limbeck.json").get("weights")
    folders = sorted({path.parent for path in answers.rglob(f"*{_ANSWERS_OF}*.jsonl")})
    return {str(folder.relative_to(answers)): _evaluation(folder, weights) for folder in folders}


@dataclass(frozen=True, kw_only=True)
class _Seed:
    """A file of answers: `asked` examples by one decoding seed."""

    corpus: str
    seed: Any
    asked: int
    how: str
    is_outdated: bool
    rows: tuple[dict[str, Any], ...]


def _evaluation(folder: Path, weights: str | None) -> Evaluation:
    seeds: list[_Seed] = []
    beside: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        if _ANSWERS_OF in path.name:
            seeds += _seed(path, weights)
        else:
            beside += [row for row in rows_of(path, remedy=DRAW_AGAIN) if "id" in row and "scores" in row]
    outdated = list(_corpora(each for each in seeds if each.is_outdated))
    current = [each for each in seeds if not each.is_outdated]
    # All seeds of an evaluation are drawn together, longest prompts first: a stopped one has each of them short alike.
    asked = {corpus: max(each.asked for each in current if each.corpus == corpus) for corpus in _corpora(current)}
    whole = [each for each in current if len(each.rows) == asked[each.corpus]]
    short = [each for each in current if len(each.rows) != asked[each.corpus]]
    doubtful = {*outdated, *_corpora(short)}
    return Evaluation(
        answers=tuple(row for each in whole for row in each.rows),
        beside=tuple(row for row in beside if str(row["corpus"]) not in doubtful),
        how={each.corpus: each.how for each in whole},
        unfinished=tuple(
            f"{each.corpus}: seed {each.seed} has {len(each.rows)} of {asked[each.corpus]} answers and is left out"
            for each in short
        ),
        outdated=(
            f"{', '.join(outdated)}: answered by another student than the one that the run keeps now, and left out; "
            f"evaluate again with another --out, or first remove {folder}",
        )
        if outdated
        else (),
    )


def _seed(path: Path, weights: str | None) -> Iterator[_Seed]:
    """The answers of a file; none where they are those that a teacher gave beside the student's (`exposure`)."""
    rows = tuple(rows_of(path, remedy=DRAW_AGAIN))
    header = rows[0] if rows else {}
    corpus = str(header.get("corpus"))
    if not path.name.startswith(corpus.replace("/", "_") + _ANSWERS_OF):
        return
    answers = tuple({"measure": "answers", **row} for row in rows if "rouge_l" in row.get("scores", {}))
    # The student's digest is that of its weights in float32: those of rounded weights are other ones.
    is_known = weights is not None and header.get("dtype") == "float32"
    yield _Seed(
        corpus=corpus,
        seed=header.get("seed"),
        asked=int(header.get("examples", len(answers))),
        how=json.dumps([header.get(key) for key in ("decoding", "content", "max_prompt")], sort_keys=True),
        is_outdated=is_known and header.get("weights") != weights,
        rows=answers,
    )


def _corpora(seeds: Iterable[_Seed]) -> dict[str, None]:
    return dict.fromkeys(each.corpus for each in seeds)


def _drawn(folder: Path, step: int) -> Path:
    return folder / "validation" / f"step-{step:06d}.jsonl"


def _json(path: Path) -> dict[str, Any]:
    return dict(read_json(path, remedy="put the file back")) if path.is_file() else {}
