"""Evaluate a model on corpora: answers, scores, agreement with a teacher; rows on disk first, averages last."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from limbeck.data.corpora import load_corpus
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError
from limbeck.evaluation.agreement import Reader, agreement_rows, exposure_rows, own_and_references
from limbeck.evaluation.answering import answer_path, answer_rows
from limbeck.evaluation.answers import BATCH_ROWS, DECODINGS, Decoding
from limbeck.evaluation.exposure import Prefix
from limbeck.evaluation.kept_teacher import KeptTeacher
from limbeck.evaluation.results import Results
from limbeck.evaluation.scorers import Scorer, self_bleu
from limbeck.evaluation.subjects import Subject, load_subject
from limbeck.files import alone_in, json_lines, read_rows, write_whole
from limbeck.losses.heads import auto_chunk
from limbeck.models.extending import evaluating
from limbeck.models.sharing import check_shared
from limbeck.records import Example
from limbeck.reporting.run_logs import DRAW_AGAIN
from limbeck.types import Sequences

SEEDS = (10, 20, 30, 40, 50)
_MOST_READ = 8


def evaluate(
    model: str | os.PathLike[str] | PreTrainedModel,
    corpora: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    decoding: str | Decoding = "plain",
    seeds: int | Sequence[int] = SEEDS,
    out: str | os.PathLike[str] | None = None,
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
    `max_prompt` tokens are cut in the user's text, as the papers do; `notes` say how many. `batch_rows` are decoded at
    a time: more are faster where there is memory for their keys and values, and change answers by rounding alone.
    `dtype` is that of the weights; "auto" is float32, and bfloat16 for a teacher on a CUDA device that computes in it.

    Rows go to `out` as they are made; a second call goes on where the first was stopped. `out` None keeps them in
    memory. Raises `ConfigError`, `DataError`, `ModelError`, `VocabularyMismatch`, and `CheckpointError` if `out` holds
    other rows.
    """
    names = [os.fspath(each) for each in ([corpora] if isinstance(corpora, str | os.PathLike) else corpora)]
    drawn = [seeds] if isinstance(seeds, int) else list(seeds)
    out = None if out is None else Path(out)
    if not names or not drawn:
        raise ConfigError("nothing to evaluate: give at least one corpus and one seed")
    if batch_rows < 1:
        raise ConfigError(f"batch_rows is {batch_rows}; at least 1 is needed")
    if exposure and teacher is None:
        raise ConfigError("exposure bias compares with the teacher's answers: name a teacher")
    if len(set(drawn)) < len(drawn) or len(set(names)) < len(names):
        raise ConfigError(f"corpora {names} and seeds {drawn}: name each corpus and each seed once")
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
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with evaluating(subject.student.model), contextlib.nullcontext() if out is None else alone_in(out):
        for name, dataset in data.items():
            rows += evaluate_examples(
                subject,
                dataset.examples,
                corpus=name,
                decoding=chosen,
                seeds=drawn,
                out=out,
                scorers=scorers,
                exposure=exposure,
            )
    notes = [dataset.note for dataset in data.values()]
    notes += [_cut_note(subject.encoder, dataset.examples, corpus=name) for name, dataset in data.items()]
    return Results(rows=rows, folder=out, notes=tuple(filter(None, notes)))


def _cut_note(encoder: Encoder, examples: Sequence[Example], *, corpus: str) -> str:
    """How many prompts were cut to fit, empty for none: nothing else in a result would tell."""
    whole = Encoder(
        encoder.tokenizer,
        encoder.template,
        max_prompt=encoder.max_prompt,
        max_length=encoder.max_length,
        long_prompt="drop",
    )
    cut = sum(len(whole.prompt(example)) > whole.max_prompt for example in examples)
    if not cut:
        return ""
    return (
        f"{corpus}: {cut:,} of {len(examples):,} prompts are longer than {whole.max_prompt} tokens, and were cut in "
        "the user's text (max_prompt)"
    )


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
    encoded = (row for example in examples if (row := subject.encoder.row(example)) is not None)
    check_shared(subject.pair.vocabulary, subject.encoder, encoded)
    place = None if out is None else functools.partial(answer_path, out, corpus)
    rows += answer_rows(subject, examples, corpus=corpus, seeds=seeds, decoding=decoding, path=place, scorers=scorers)
    own = {row["id"]: tuple(row["tokens"]) for row in rows if row["seed"] == seeds[0]}
    answered, references = own_and_references(examples, own, encoder=subject.encoder, pad_id=subject.pair.pad_id)
    across = _across_seeds(rows, corpus=corpus, seed=seeds[0]) if len(seeds) > 1 else []
    if across and out is not None:
        write_whole(out / f"{slug}-across-seeds.jsonl", json_lines(across))
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
    # What a teacher said in an earlier call is not to be had again without it.
    if path is not None and not (teacher is None and _says_more(path, rows)):
        write_whole(path, json_lines(rows))
    return rows


def _says_more(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a file has these rows with further scores in them."""
    kept = list(read_rows(path, remedy=DRAW_AGAIN)) if path.is_file() else []
    return len(kept) == len(rows) and all(
        one["id"] == other["id"]
        and one["seed"] == other["seed"]
        and one["scores"].keys() > other["scores"].keys()
        and math.isclose(one["scores"]["cross_entropy"], other["scores"]["cross_entropy"], rel_tol=1e-4)
        for one, other in zip(kept, rows, strict=True)
    )


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
    path = None if out is None else lambda seed: out / f"{slug}-teacher-answers-seed{seed}.jsonl"
    drawn = answer_rows(speaker, examples, corpus=corpus, seeds=[seed], decoding=decoding, path=path, is_scored=False)
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
        write_whole(out / f"{slug}-exposure.jsonl", json_lines(rows))
    return rows
