"""One model of a study, answered and scored: rows, and the few numbers that are no rows."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from limbeck.errors import CheckpointError
from limbeck.evaluation.answering import answer_path, answer_rows
from limbeck.evaluation.answers import Decoding
from limbeck.evaluation.measuring import evaluate_examples
from limbeck.evaluation.results import Results
from limbeck.evaluation.subjects import load_subject
from limbeck.files import json_lines, read_json, read_rows, write_whole
from limbeck.models.extending import evaluating
from limbeck.records import Example
from limbeck.reporting.run_logs import DRAW_AGAIN, rows_of

CORPUS = "held-out"
SEED = 10
_DONE, _ROWS = "scored.json", "rows.jsonl"
_AGAIN = f"remove {_DONE} beside it, and the same command scores this model again"


@dataclass(frozen=True, kw_only=True)
class ScoredArm:
    """A model's rows, its size, how fast it decoded (None where its answers were there) and was trained (None where it
    was not)."""

    name: str
    results: Results
    parameters: int
    megabytes: float
    tokens_per_second: float | None
    training_seconds: float | None

    def values(self, measure: str, score: str) -> dict[str, float]:
        """Score by example id; empty where it was not measured."""
        return self.results.values(measure, score).get(CORPUS, {})

    def answers(self) -> dict[str, dict[str, Any]]:
        """The answer rows by example id."""
        return {str(row["id"]): row for row in self.results.rows if row["measure"] == "answers"}


def is_scored(out: Path) -> bool:
    """Whether an arm was scored into this folder."""
    return (out / _DONE).is_file()


def score_arm(
    name: str,
    folder: Path,
    examples: Sequence[Example],
    *,
    teacher: PreTrainedModel | str | None,
    max_prompt: int,
    new_tokens: int,
    out: Path,
    run: Path | None,
) -> ScoredArm:
    """Answer the examples, score the answers, compare with the teacher; a scored model is not scored again.

    Several arms may be given the same loaded teacher.
    """
    done, decoding = out / _DONE, Decoding(max_new_tokens=new_tokens)
    if done.is_file():
        kept = read_json(done, error=CheckpointError, remedy=_AGAIN)
        return ScoredArm(name=name, results=Results(rows=_read(out), folder=out), **kept)
    out.mkdir(parents=True, exist_ok=True)
    subject = load_subject(folder, teacher=teacher, max_prompt=max_prompt, new_tokens=new_tokens)
    place = functools.partial(answer_path, out, CORPUS)
    with evaluating(subject.student.model):
        there = {str(row.get("id")) for row in rows_of(place(SEED), remedy=DRAW_AGAIN)}
        started = time.perf_counter()
        answers = answer_rows(subject, examples, corpus=CORPUS, seeds=[SEED], decoding=decoding, path=place)
        seconds = time.perf_counter() - started
        drawn = sum(row["num_tokens"] for row in answers if str(row["id"]) not in there)
        rows = evaluate_examples(subject, examples, corpus=CORPUS, decoding=decoding, seeds=(SEED,), out=out)
    numbers = {
        "parameters": sum(p.numel() for p in subject.pair.student.parameters()),
        "megabytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6,
        "tokens_per_second": drawn / seconds if drawn else None,
        "training_seconds": None if run is None else _training_seconds(run),
    }
    write_whole(out / _ROWS, json_lines(rows))
    write_whole(done, json.dumps(numbers, indent=2) + "\n")
    return ScoredArm(name=name, results=Results(rows=rows, folder=out), **numbers)


def _read(out: Path) -> list[dict[str, Any]]:
    return list(read_rows(out / _ROWS, error=CheckpointError, remedy=_AGAIN))


def _training_seconds(run: Path) -> float:
    from limbeck.training.rundir import Run

    return sum(float(row["time"]["seconds"]) for row in Run(run).metrics() if row["kind"] == "step")
