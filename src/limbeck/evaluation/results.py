"""Evaluate a model on corpora: answers, ROUGE-L, and agreement with a teacher; rows on disk first, averages last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from limbeck.data.corpora import load_corpus
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError
from limbeck.evaluation.agreement import agreement_rows, own_and_references
from limbeck.evaluation.answers import DECODINGS, Answerer, AnswerFile, Decoding
from limbeck.evaluation.identity import fingerprint, ids_fingerprint, weights_fingerprint
from limbeck.evaluation.rouge import RougeL
from limbeck.losses.heads import auto_chunk
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import evaluating
from limbeck.models.pair import Pair
from limbeck.models.saving import training_settings
from limbeck.models.scoring import Scorer
from limbeck.records import Example
from limbeck.reporting.reduce import by_example, mean_interval
from limbeck.reporting.tables import Column, Number, Row, Table
from limbeck.types import Sequences

SEEDS = (10, 20, 30, 40, 50)
_COLUMNS = {
    "rouge_l": ("ROUGE-L", 100.0, 1, "higher"),
    "kl_teacher_student": ("KL(t‖s) on references", 1.0, 3, "lower"),
    "kl_student_teacher": ("KL(s‖t) on own answers", 1.0, 3, "lower"),
    "top1_agreement": ("top-1 agreement %", 100.0, 1, "higher"),
    "acceptance": ("1 − TVD %", 100.0, 1, "higher"),
    "cross_entropy": ("cross-entropy", 1.0, 3, "lower"),
}


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation found. `rows` holds a dictionary a line on disk: `measure` says which kind of row it is.

    `measure` is "answers" (one a corpus, seed and example; scores: rouge_l), "references" (one a corpus and example,
    on the corpus's own responses) or "own" (one an answer, on what the model wrote itself).
    """

    rows: list[dict[str, Any]]
    folder: Path | None = None

    def values(self, measure: str, score: str) -> dict[str, dict[str, float]]:
        """Corpus → example → score, averaged over decoding seeds."""
        chosen = [row for row in self.rows if row["measure"] == measure and score in row["scores"]]
        return by_example(chosen, score=score) if chosen else {}

    def mean(self, score: str = "rouge_l", *, measure: str = "answers") -> float:
        """The mean over seeds, then examples, then corpora. Raises `DataError` if nothing was measured."""
        corpora = self.values(measure, score)
        if not corpora:
            raise DataError(f"no row has '{score}' under '{measure}'; give a teacher for agreement scores")
        means = [sum(values.values()) / len(values) for values in corpora.values()]
        return sum(means) / len(means)

    def table(self) -> Table:
        """One row a corpus, with 95 % bootstrap intervals over examples."""
        wanted = [
            ("answers", "rouge_l"),
            ("references", "kl_teacher_student"),
            ("own", "kl_student_teacher"),
            ("references", "top1_agreement"),
            ("references", "acceptance"),
            ("references", "cross_entropy"),
        ]
        found = [(measure, score) for measure, score in wanted if self.values(measure, score)]
        corpora = list(dict.fromkeys(row["corpus"] for row in self.rows))
        columns = (Column(title="corpus"), Column(title="n"), *(Column(title=_COLUMNS[score][0]) for _, score in found))
        rows = [Row(cells=(corpus, str(self._count(corpus)), *self._cells(corpus, found))) for corpus in corpora]
        return Table(columns=columns, rows=tuple(rows))

    def _count(self, corpus: str) -> int:
        return len({row["id"] for row in self.rows if row["corpus"] == corpus})

    def _cells(self, corpus: str, found: list[tuple[str, str]]) -> Iterator[Number | None]:
        for measure, score in found:
            values = self.values(measure, score).get(corpus)
            _, scale, digits, _ = _COLUMNS[score]
            yield None if values is None else Number.of(mean_interval(values, seed=0), scale=scale, digits=digits)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: the student, its teacher if there is one, and how rows become tokens."""

    name: str
    pair: Pair
    encoder: Encoder
    student: Scorer
    teacher: Scorer | None
    batch_rows: int = 16


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
) -> Results:
    """Answer every example of the corpora with every decoding seed, score the answers, compare with the teacher.

    `model` is a run (its best student), a model folder, a hub id, or a model. `corpora`: names, files or hub ids.
    With `teacher`, KL both ways, top-1 agreement and 1 − TVD are taken on the references and on the answers that the
    model drew with the first seed. Prompts over `max_prompt` tokens are cut in the user's text, as the papers do.
    Rows go to `out` as they are made; a second call goes on where the first was stopped. `out` None keeps them in
    memory. Raises `ConfigError`, `DataError`, `ModelError`, and `CheckpointError` if `out` holds other rows.
    """
    names = [corpora] if isinstance(corpora, str) else list(corpora)
    if not names or not seeds:
        raise ConfigError("nothing to evaluate: give at least one corpus and one seed")
    if len(set(seeds)) < len(seeds) or len(set(names)) < len(names):
        raise ConfigError(f"corpora {names} and seeds {list(seeds)}: name each corpus and each seed once")
    chosen = decoding if isinstance(decoding, Decoding) else DECODINGS[decoding]
    chosen = chosen if max_new_tokens is None else replace(chosen, max_new_tokens=max_new_tokens)
    data = {name: load_corpus(name, split=split, root=root, max_rows=max_rows).examples for name in names}
    subject = load_subject(
        model,
        teacher=teacher,
        max_prompt=max_prompt,
        new_tokens=chosen.max_new_tokens,
        template=template,
        device=device,
    )
    rows: list[dict[str, Any]] = []
    with evaluating(subject.student.model):
        for name, examples in data.items():
            rows += evaluate_examples(subject, examples, corpus=name, decoding=chosen, seeds=seeds, out=out)
    return Results(rows=rows, folder=out)


def load_subject(
    model: str | os.PathLike[str] | PreTrainedModel,
    *,
    teacher: str | PreTrainedModel | None,
    max_prompt: int,
    new_tokens: int,
    template: str = "auto",
    device: str = "auto",
) -> Subject:
    """Load a model, and a teacher if given, for evaluation. Raises `ConfigError` where the context is too short.

    `template` "auto" is the one that a student of Limbeck's was trained with; for other models the tokenizer's own.
    """
    given = model if isinstance(model, PreTrainedModel) else _student_folder(model)
    # Evaluation mode is enough against dropout; a caller's own model must keep its probabilities.
    pair = Pair.load(teacher=teacher, student=given, device=device, teacher_device=device, dropout=True)
    for role, part in (("model", pair.student), ("teacher", pair.teacher)):
        context = None if part is None else getattr(part.config, "max_position_embeddings", None)
        if context is not None and max_prompt + new_tokens > context:
            raise ConfigError(
                f"prompts of {max_prompt} tokens and answers of {new_tokens} do not fit into the {role}'s context"
                f" of {context}\n  lower max_prompt or the decoding's max_new_tokens"
            )
    used = training_settings(given) if isinstance(given, str) and template == "auto" else {}
    encoder = Encoder(
        pair.tokenizer,
        choose_template(used.get("template", template), pair.tokenizer, used.get("chat_template_kwargs")),
        max_prompt=max_prompt,
        max_length=max_prompt + new_tokens,
        long_prompt="cut",
    )
    return Subject(
        name=pair.student_name or type(pair.student).__name__,
        pair=pair,
        encoder=encoder,
        student=Scorer.of(pair.student, vocabulary=pair.vocabulary),
        teacher=None if pair.teacher is None else Scorer.of(pair.teacher, vocabulary=pair.vocabulary),
    )


def _student_folder(model: str | os.PathLike[str]) -> str:
    """A run's best student, or the name as it is."""
    name = os.fspath(model)
    student = Path(name) / "student"
    return str(student) if (student / "config.json").is_file() else name


def evaluate_examples(
    subject: Subject,
    examples: Sequence[Example],
    *,
    corpus: str,
    decoding: Decoding,
    seeds: Sequence[int],
    out: Path | None,
) -> list[dict[str, Any]]:
    """The rows of one corpus: answers of all seeds, then agreement on references and on the first seed's answers."""
    rows: list[dict[str, Any]] = []
    slug = corpus.replace("/", "_")
    for seed in seeds:
        path = None if out is None else answer_path(out, corpus=corpus, seed=seed)
        rows += answer_rows(subject, examples, corpus=corpus, seed=seed, decoding=decoding, path=path)
    own = {row["id"]: tuple(row["tokens"]) for row in rows if row["seed"] == seeds[0]}
    answered, references = own_and_references(examples, own, encoder=subject.encoder, pad_id=subject.pair.pad_id)
    for measure, sequences in (("references", references), ("own", answered)):
        path = None if out is None else out / f"{slug}-{measure}.jsonl"
        rows += _agreement(subject, sequences, corpus=corpus, seed=seeds[0], measure=measure, path=path)
    return rows


def answer_path(out: Path, *, corpus: str, seed: int) -> Path:
    """Where the answers of a corpus and seed lie below an evaluation's folder."""
    return out / f"{corpus.replace('/', '_')}-answers-seed{seed}.jsonl"


def answer_rows(
    subject: Subject, examples: Sequence[Example], *, corpus: str, seed: int, decoding: Decoding, path: Path | None
) -> list[dict[str, Any]]:
    """Every example answered with one decoding seed and scored by ROUGE-L; goes on where a file at `path` stops."""
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
        "banned_ids": ids_fingerprint(answerer.banned_ids),
        "corpus": corpus,
        "seed": seed,
        "decoding": asdict(decoding),
        "examples": len(examples),
        "content": fingerprint(examples),
        "template": subject.encoder.template.kind,
        "max_prompt": subject.encoder.max_prompt,
        "batch_rows": subject.batch_rows,
        "rows": "answers",
    }
    file = None if path is None else AnswerFile(path, header=header)
    found = [] if file is None else file.existing()
    finished = answerer.num_finished(examples, [str(row["id"]) for row in found]) if found else 0
    if file is not None and finished < len(found):
        file.cut_back(finished)
        found = found[:finished]
    scorer = RougeL()
    done = frozenset(str(row["id"]) for row in found)
    for group in answerer.answers(examples, corpus=corpus, seed=seed, decoding=decoding, skip=done):
        for row in group:
            row.scores["rouge_l"] = scorer.score(row.text, row.references)
        if file is not None:
            file.append(group)
        # Through JSON, so that rows just drawn and rows read from disk are equal.
        found += json.loads(json.dumps([row.to_json() for row in group]))
    return [{**row, "measure": "answers"} for row in sorted(found, key=lambda row: str(row["id"]))]


def _agreement(
    subject: Subject,
    sequences: Sequences,
    *,
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
        teacher=subject.teacher,
        chunk=auto_chunk(subject.pair.vocabulary.width, device.type),
        group_rows=max(1, subject.batch_rows // 2),
    ):
        rows += [{"measure": measure, "corpus": corpus, "seed": seed, **row} for row in group]
    rows.sort(key=lambda row: str(row["id"]))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows
