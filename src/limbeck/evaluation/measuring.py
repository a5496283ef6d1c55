"""Evaluate a model on corpora: answers, scores, agreement with a teacher; rows on disk first, averages last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from limbeck.data.corpora import load_corpus
from limbeck.errors import ConfigError
from limbeck.evaluation.agreement import Reader, agreement_rows, exposure_rows, own_and_references
from limbeck.evaluation.answers import BATCH_ROWS, DECODINGS, Answerer, AnswerFile, Decoding
from limbeck.evaluation.exposure import Prefix
from limbeck.evaluation.identity import fingerprint, ids_fingerprint, weights_fingerprint
from limbeck.evaluation.kept_teacher import KeptTeacher
from limbeck.evaluation.results import Results
from limbeck.evaluation.scorers import Scorer, Scorers, self_bleu, standard_scorers
from limbeck.evaluation.subjects import Subject, load_subject
from limbeck.losses.heads import auto_chunk
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import evaluating
from limbeck.models.room import is_out_of_memory
from limbeck.models.turns import UNIT_TURNS
from limbeck.records import AnswerRow, Example
from limbeck.types import Sequences

SEEDS = (10, 20, 30, 40, 50)
_MOST_READ = 8


def evaluate(
    model: str | os.PathLike[str] | PreTrainedModel,
    corpora: str | Sequence[str],
    *,
    decoding: str | Decoding = "plain",
    seeds: Sequence[int] = SEEDS,
    out: Path | None = None,
    root: Path | None = None,
    teacher: str | PreTrainedModel | None = None,
    max_rows: int | None = None,
    max_prompt: int = 256,
    template: str = "auto",
    max_new_tokens: int | None = None,
    split: str = "test",
    device: str = "auto",
    scorers: Mapping[str, Scorer] | None = None,
    exposure: bool = False,
    batch_rows: int = BATCH_ROWS,
    dtype: str = "auto",
) -> Results:
    """Answer every example of the corpora with every decoding seed, score the answers, compare with the teacher.

    `model` is a run (its best student), a model folder, a hub id, or a model. `corpora`: names, files or hub ids; the
    named ones lie below `root`, or on the hub where it is "hub".
    With `teacher`, KL both ways, top-1 agreement and 1 − TVD are taken on the references and on the answers that the
    model drew with the first seed. `scorers` are functions of an answer's row beside the standard ones
    (`evaluation/scorers.py`); a score that kept rows lack is added to them. With `exposure` the teacher answers too,
    with the first seed, and KL(t‖s) is kept token by token on both models' answers (`Results.exposure`). Prompts over
    `max_prompt` tokens are cut in the user's text, as the papers do. `batch_rows` are decoded at a time: more are
    faster where there is memory for their keys and values, and change answers by rounding alone. `dtype` is that of the
    weights; "auto" is float32, and bfloat16 for a teacher on a CUDA device that computes in it.

    Rows go to `out` as they are made; a second call goes on where the first was stopped. `out` None keeps them in
    memory. Raises `ConfigError`, `DataError`, `ModelError`, and `CheckpointError` if `out` holds other rows.
    """
    names = [corpora] if isinstance(corpora, str) else list(corpora)
    if not names or not seeds:
        raise ConfigError("nothing to evaluate: give at least one corpus and one seed")
    if batch_rows < 1:
        raise ConfigError(f"batch_rows is {batch_rows}; at least 1 is needed")
    if exposure and teacher is None:
        raise ConfigError("exposure bias compares with the teacher's answers: name a teacher")
    if len(set(seeds)) < len(seeds) or len(set(names)) < len(names):
        raise ConfigError(f"corpora {names} and seeds {list(seeds)}: name each corpus and each seed once")
    chosen = decoding if isinstance(decoding, Decoding) else DECODINGS[decoding]
    chosen = chosen if max_new_tokens is None else replace(chosen, max_new_tokens=max_new_tokens)
    data = {name: load_corpus(name, split=split, root=root, max_rows=max_rows) for name in names}
    subject = load_subject(
        model,
        teacher=teacher,
        max_prompt=max_prompt,
        new_tokens=chosen.max_new_tokens,
        template=template,
        device=device,
        batch_rows=batch_rows,
        dtype=dtype,
    )
    rows: list[dict[str, Any]] = []
    with evaluating(subject.student.model):
        for name, dataset in data.items():
            rows += evaluate_examples(
                subject,
                dataset.examples,
                corpus=name,
                decoding=chosen,
                seeds=seeds,
                out=out,
                scorers=scorers,
                exposure=exposure,
            )
    notes = tuple(dataset.note for dataset in data.values() if dataset.note)
    return Results(rows=rows, folder=out, notes=notes)


def evaluate_examples(
    subject: Subject,
    examples: Sequence[Example],
    *,
    corpus: str,
    decoding: Decoding,
    seeds: Sequence[int],
    out: Path | None,
    scorers: Mapping[str, Scorer] | None = None,
    exposure: bool = False,
    kept: Path | None = None,
) -> list[dict[str, Any]]:
    """The rows of one corpus: answers of all seeds, then agreement on references and on the first seed's answers.

    With several seeds there is one row an example more, across them: how alike its answers are. With `exposure` there
    are two more: KL token by token on the model's answer and on the teacher's. What the teacher finds in the references
    is looked for, and left, in the folder `kept`, which belongs to this teacher.
    """
    rows: list[dict[str, Any]] = []
    slug = corpus.replace("/", "_")
    for seed in seeds:
        path = None if out is None else answer_path(out, corpus=corpus, seed=seed)
        rows += answer_rows(subject, examples, corpus=corpus, seed=seed, decoding=decoding, path=path, scorers=scorers)
    own = {row["id"]: tuple(row["tokens"]) for row in rows if row["seed"] == seeds[0]}
    answered, references = own_and_references(examples, own, encoder=subject.encoder, pad_id=subject.pair.pad_id)
    across = _across_seeds(rows, corpus=corpus, seed=seeds[0]) if len(seeds) > 1 else []
    if across and out is not None:
        _write_rows(out / f"{slug}-across-seeds.jsonl", across)
    rows += across
    for measure, sequences in (("references", references), ("own", answered)):
        path = None if out is None else out / f"{slug}-{measure}.jsonl"
        teacher: Reader | None = subject.teacher
        if subject.teacher is not None and kept is not None and measure == "references":
            teacher = KeptTeacher(subject.teacher, kept)
        rows += _agreement(
            subject, sequences, teacher=teacher, corpus=corpus, seed=seeds[0], measure=measure, path=path
        )
    if exposure:
        rows += _exposure(subject, examples, answered, corpus=corpus, seed=seeds[0], decoding=decoding, out=out)
    return rows


def answer_path(out: Path, *, corpus: str, seed: int) -> Path:
    """Where the answers of a corpus and seed lie below an evaluation's folder."""
    return out / f"{corpus.replace('/', '_')}-answers-seed{seed}.jsonl"


def _rows_read(subject: Subject) -> int:
    """Rows that are read in one forward: more of them share more padding, and nothing else."""
    return min(_MOST_READ, max(1, subject.batch_rows // 2))


def _across_seeds(rows: Sequence[Mapping[str, Any]], *, corpus: str, seed: int) -> list[dict[str, Any]]:
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(str(row["id"]), []).append(str(row["text"]))
    return [
        {
            "measure": "across",
            "corpus": corpus,
            "seed": seed,
            "id": id,
            "scores": {"self_bleu": sum(found) / len(found)},
        }
        for id, said in texts.items()
        for found in [self_bleu(said)]
    ]


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


def _agreement(
    subject: Subject,
    sequences: Sequences,
    *,
    teacher: Reader | None,
    corpus: str,
    seed: int,
    measure: str,
    path: Path | None,
) -> list[dict[str, Any]]:
    device = next(subject.pair.student.parameters()).device
    rows: list[dict[str, Any]] = []
    for group in agreement_rows(
        sequences,
        student=subject.student,
        teacher=teacher,
        chunk=auto_chunk(subject.pair.vocabulary.width, device.type),
        group_rows=_rows_read(subject),
    ):
        rows += [{"measure": measure, "corpus": corpus, "seed": seed, **row} for row in group]
    rows.sort(key=lambda row: str(row["id"]))
    if path is not None:
        _write_rows(path, rows)
    return rows


def _exposure(
    subject: Subject,
    examples: Sequence[Example],
    answered: Sequences,
    *,
    corpus: str,
    seed: int,
    decoding: Decoding,
    out: Path | None,
) -> list[dict[str, Any]]:
    """KL(t‖s) before each token of the model's answers and of answers that the teacher draws from the same noise."""
    assert subject.teacher is not None
    speaker = replace(subject, name=subject.pair.teacher_name or "teacher", student=subject.teacher, teacher=None)
    slug = corpus.replace("/", "_")
    path = None if out is None else out / f"{slug}-teacher-answers-seed{seed}.jsonl"
    drawn = answer_rows(speaker, examples, corpus=corpus, seed=seed, decoding=decoding, path=path, is_scored=False)
    said = {row["id"]: tuple(row["tokens"]) for row in drawn}
    teachers, _ = own_and_references(examples, said, encoder=subject.encoder, pad_id=subject.pair.pad_id)
    device = next(subject.pair.student.parameters()).device
    rows: list[dict[str, Any]] = []
    written: tuple[tuple[Prefix, Sequences], ...] = (("student", answered), ("teacher", teachers))
    for prefix, sequences in written:
        found = exposure_rows(
            sequences,
            student=subject.student,
            teacher=subject.teacher,
            prefix=prefix,
            chunk=auto_chunk(subject.pair.vocabulary.width, device.type),
            group_rows=_rows_read(subject),
        )
        about = {"measure": "exposure", "corpus": corpus, "seed": seed}
        rows += [{**about, **row} for row in sorted(found, key=lambda row: str(row["id"]))]
    if out is not None:
        _write_rows(out / f"{slug}-exposure.jsonl", rows)
    return rows


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, path)
