"""A model's answers with one decoding seed: drawn, scored, kept as rows, and gone on with after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError
from limbeck.evaluation.answers import Answerer, AnswerFile, Decoding
from limbeck.evaluation.identity import fingerprint, ids_fingerprint, weights_fingerprint
from limbeck.evaluation.scorers import Scorer, Scorers, standard_scorers
from limbeck.evaluation.subjects import Subject
from limbeck.models.decoders import CausalDecoder
from limbeck.models.room import is_out_of_memory
from limbeck.models.turns import UNIT_TURNS
from limbeck.records import AnswerRow, Example


def answer_path(out: Path, *, corpus: str, seed: int) -> Path:
    """Where the answers of a corpus and seed lie below an evaluation's folder."""
    return out / f"{corpus.replace('/', '_')}-answers-seed{seed}.jsonl"


def answer_rows(
    subject: Subject,
    examples: Sequence[Example],
    *,
    corpus: str,
    seed: int,
    decoding: Decoding,
    path: Path | None,
    scorers: Mapping[str, Scorer] | None = None,
    is_scored: bool = True,
) -> list[dict[str, Any]]:
    """Every example answered with one decoding seed, and scored; goes on where a file at `path` stops.

    Answers that are only to be read by models (not `is_scored`) have no scores, so that nobody counts them as results.
    """
    answerer = Answerer(
        decoder=CausalDecoder(subject.student),
        encoder=subject.encoder,
        stop_ids=subject.pair.stop_ids,
        banned_ids=frozenset(subject.pair.vocabulary.dropped_student),
        pad_id=subject.pair.pad_id,
        device=next(subject.pair.student.parameters()).device,
        batch_rows=subject.batch_rows,
    )
    header = {
        "model": subject.name,
        "weights": weights_fingerprint(subject.student.model),
        "dtype": str(next(subject.student.model.parameters()).dtype).removeprefix("torch."),
        "banned_ids": ids_fingerprint(answerer.banned_ids),
        "corpus": corpus,
        "seed": seed,
        "decoding": asdict(decoding),
        "examples": len(examples),
        "content": fingerprint(examples),
        "template": subject.encoder.template.kind,
        "max_prompt": subject.encoder.max_prompt,
        "batch_rows": subject.batch_rows,
        "unit_turns": UNIT_TURNS,
        "rows": "answers",
    }
    file = None if path is None else AnswerFile(path, header=header)
    found = [] if file is None else file.existing()
    finished = answerer.num_finished(examples, [str(row["id"]) for row in found]) if found else 0
    if file is not None and finished < len(found):
        file.cut_back(finished)
        found = found[:finished]
    scoring = Scorers({**standard_scorers(), **(scorers or {})} if is_scored else {})
    done = frozenset(str(row["id"]) for row in found)
    if any(scoring.lacks(row["scores"]) for row in found):
        found = [_scored_again(row, scoring) for row in found]
        assert file is not None
        file.replace(found)
    drawn = answerer.answers(examples, corpus=corpus, seed=seed, decoding=decoding, skip=done)
    while (group := _next_group(drawn, corpus=corpus, batch_rows=subject.batch_rows)) is not None:
        for row in group:
            scoring.score(row)
        if file is not None:
            file.append(group)
        # Through JSON, so that rows just drawn and rows read from disk are equal.
        found += json.loads(json.dumps([row.to_json() for row in group]))
    return [{**row, "measure": "answers"} for row in sorted(found, key=lambda row: str(row["id"]))]


def _next_group(drawn: Iterator[list[AnswerRow]], *, corpus: str, batch_rows: int) -> list[AnswerRow] | None:
    """The next batch of answers, None behind the last. Raises `ConfigError` where it wants too much memory."""
    try:
        return next(drawn, None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"there is not enough memory to draw answers for {corpus}, {batch_rows} rows at a time\n"
            "  lower --batch-rows (evaluate.batch_rows in a study, student.answer_rows in UNDO), or the new tokens"
        ) from error


def _scored_again(row: dict[str, Any], scoring: Scorers) -> dict[str, Any]:
    """A kept row with the scores that it lacked."""
    fields = {**row, "tokens": tuple(row["tokens"]), "references": tuple(row["references"])}
    answer = AnswerRow(**fields)
    scoring.score(answer)
    return {**row, "scores": answer.scores}
