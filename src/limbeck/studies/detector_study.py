"""Do detectors find errors that are known to be there? Errors are put in, looked for, corrected, and scored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.data.corpora import load_corpus
from limbeck.errors import ConfigError, NothingToLearn
from limbeck.evaluation.answers import AnswerFile
from limbeck.evaluation.identity import fingerprint, weights_fingerprint
from limbeck.evaluation.subjects import Subject, load_subject
from limbeck.losses.heads import auto_chunk
from limbeck.methods import to_config
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import evaluating
from limbeck.models.pieces import token_pieces
from limbeck.models.sampling import Sampling
from limbeck.records import EncodedRow, Example
from limbeck.revision import DETECTORS, Detector
from limbeck.seeds import Seeds
from limbeck.sequences.source import Rollouts
from limbeck.spans.pieces import TokenPieces
from limbeck.studies.detecting import Bench, Case, Clean, judged
from limbeck.studies.detections import SOURCES, Detections, spared_row
from limbeck.studies.error_kinds import ERROR_KINDS
from limbeck.studies.injecting import Encode, inject

_BATCH = "batch"


def injected_errors(
    *,
    teacher: str | os.PathLike[str],
    student: str | os.PathLike[str],
    data: str,
    out: Path,
    rows: int = 200,
    detectors: Sequence[str] | Mapping[str, Detector] | None = None,
    kinds: Sequence[str] | None = None,
    sources: Sequence[str] = tuple(SOURCES),
    seed: int = 0,
    split: str = "test",
    root: Path | None = None,
    max_prompt: int = 256,
    max_new_tokens: int = 128,
    batch_rows: int = 8,
    greedy: bool = False,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> Detections:
    """Put errors of known kind and place into responses, and see which detector finds them and what correcting brings.

    Into each of `rows` references of the corpus `data`, and into what the student draws for the same prompts, goes one
    error of each kind at a time (`studies/error_kinds.py`: repetition, drift, number, name, negation), at a place that
    belongs to `seed`, row and kind. Each detector (None: all of `DETECTORS`) then sees it as it would see a response in
    training: one round of SCRG with this detector, the teacher's token drawn, or its most probable one with `greedy`.

    `out` gets rows.jsonl, one line for each injected error and detector, ids, places and scores but no text, and
    table.md, made of them. A killed call loses the batch in progress; the next one goes on, with the same rows.
    `say` is told of every batch that is done.
    Raises `UnknownName`, `ConfigError`, `DataError`, `ModelError`; `NothingToLearn` where every prompt is too long;
    `CheckpointError` if `out` holds rows of another study.

    It says how well an injected error is found, not how often students make such errors; MGSR (arXiv 2407.10068) has
    no such measurement.
    """
    chosen = _detectors(detectors)
    named = list(ERROR_KINDS) if kinds is None else list(kinds)
    _check(named, sources=sources, rows=rows, batch_rows=batch_rows)
    examples = load_corpus(data, split=split, root=root, max_rows=rows, seeds=Seeds(seed)).examples
    subject = load_subject(
        student,
        teacher=os.fspath(teacher),
        max_prompt=max_prompt,
        new_tokens=max_new_tokens,
        device=device,
        batch_rows=batch_rows,
    )
    assert subject.teacher is not None, "it was given"
    header = {
        "rows": "injected errors",
        # By their weights alone: the folders are called otherwise on every machine.
        "teacher_weights": weights_fingerprint(subject.teacher.model),
        "student_weights": weights_fingerprint(subject.student.model),
        "data": data,
        "examples": len(examples),
        "content": fingerprint(examples),
        "detectors": {name: to_config(detector) for name, detector in chosen.items()},
        "kinds": named,
        "sources": list(sources),
        "seed": seed,
        "template": subject.encoder.template.kind,
        "max_prompt": max_prompt,
        "max_new_tokens": max_new_tokens,
        "batch_rows": batch_rows,
        "greedy": greedy,
    }
    file = AnswerFile(out / "rows.jsonl", header=header)
    with evaluating(subject.student.model), evaluating(subject.teacher.model):
        plan = _Plan(subject, examples, kinds=named, sources=sources, seed=seed, max_new_tokens=max_new_tokens)
        found = _judge_missing(plan, detectors=chosen, file=file, greedy=greedy, say=say)
    result = Detections(rows=[row for row in found if row["measure"] != _BATCH], folder=out)
    (out / "table.md").write_text(result.markdown(), encoding="utf-8")
    return result


def _judge_missing(
    plan: _Plan,
    *,
    detectors: Mapping[str, Detector],
    file: AnswerFile,
    greedy: bool,
    say: Callable[[str], None] | None,
) -> list[dict[str, Any]]:
    """Every row of a file, those of the batches that it does not have made and added; a torn batch is made again."""
    found = file.existing()
    whole = 1 + max((place for place, row in enumerate(found) if row["measure"] == _BATCH), default=-1)
    file.cut_back(whole)
    found = found[:whole]
    done = sum(row["measure"] == _BATCH for row in found)
    bench, groups = plan.bench(greedy=greedy), list(plan.groups())
    for number, group in list(enumerate(groups))[done:]:
        cases, spared = plan.cases(group)
        added = [*spared, *judged(cases, detectors=detectors, bench=bench), {"measure": _BATCH, "number": number}]
        file.append(added)
        # Through JSON, so that rows just made and rows read from disk are equal.
        found += json.loads(json.dumps(added))
        if say is not None:
            say(f"injected errors: {number + 1} of {len(groups)} batches of {len(groups[0])} rows")
    return found


class _Plan:
    """Which responses get which errors: decided by seed, row and kind, whatever the batches."""

    def __init__(
        self,
        subject: Subject,
        examples: Sequence[Example],
        *,
        kinds: Sequence[str],
        sources: Sequence[str],
        seed: int,
        max_new_tokens: int,
    ) -> None:
        self._subject, self._kinds, self._sources = subject, kinds, sources
        self._seeds, self._most = Seeds(seed), max_new_tokens
        self._pieces: TokenPieces = token_pieces(subject.pair.tokenizer)
        encoded = [(example, subject.encoder.row(example)) for example in examples]
        self._rows: list[tuple[Example, EncodedRow]] = [(example, row) for example, row in encoded if row is not None]
        if not self._rows:
            raise NothingToLearn(f"none of the {len(examples)} prompts fits into max_prompt; raise it")
        self._said = {example.id: example.references[0] for example, _ in self._rows}

    def groups(self) -> Iterator[list[tuple[Example, EncodedRow]]]:
        """The rows in batches, in the corpus's order."""
        size = self._subject.batch_rows
        return (self._rows[first : first + size] for first in range(0, len(self._rows), size))

    def bench(self, *, greedy: bool) -> Bench:
        """The two models, and the student's draws as in training: temperature 1, nothing cut off."""
        subject = self._subject
        pair = subject.pair
        assert subject.teacher is not None, "a study of detectors has a teacher"
        device = next(pair.student.parameters()).device
        self._rollouts = Rollouts(
            decoder=CausalDecoder(subject.student),
            sampling=Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student)),
            max_new_tokens=self._most,
            max_length=subject.encoder.max_length,
            group_rows=subject.batch_rows,
            pad_id=pair.pad_id,
            seeds=self._seeds,
            device=device,
        )
        return Bench(
            student=subject.student,
            teacher=subject.teacher,
            rollouts=self._rollouts,
            chunk=auto_chunk(pair.vocabulary.width, device.type),
            decode=subject.encoder.decode,
            greedy=greedy,
        )

    def cases(self, group: Sequence[tuple[Example, EncodedRow]]) -> tuple[list[Case], list[dict[str, Any]]]:
        """The errors of a batch, and a row for each that could not be made."""
        cases, spared = list[Case](), list[dict[str, Any]]()
        for clean in self._cleans(group):
            others = [text for id, text in self._said.items() if id != clean.id]
            for kind in self._kinds:
                injection = inject(
                    clean.response,
                    kind=kind,
                    pieces=self._pieces,
                    encode=self._encode,
                    others=others,
                    draw=self._seeds.child("inject", *clean.key, kind).generator(),
                    most=self._most,
                )
                if injection is None:
                    spared.append(spared_row(id=clean.id, source=clean.source, kind=kind))
                else:
                    cases.append(Case(clean=clean, injection=injection))
        return cases, spared

    def _cleans(self, group: Sequence[tuple[Example, EncodedRow]]) -> Iterator[Clean]:
        for source in self._sources:
            if source == "references":
                responses = [row.tokens[len(row.prompt) :] for _, row in group]
            else:
                drawn = self._rollouts.student([((source, example.id), row) for example, row in group])
                responses = [
                    tuple(row[flags].tolist()) for row, flags in zip(drawn.tokens, drawn.is_response, strict=True)
                ]
            for (example, row), response in zip(group, responses, strict=True):
                yield Clean(
                    source=source,
                    id=example.id,
                    prompt=row.prompt,
                    response=response,
                    references=example.references,
                )

    @property
    def _encode(self) -> Encode:
        tokenizer = self._subject.pair.tokenizer
        return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _detectors(given: Sequence[str] | Mapping[str, Detector] | None) -> dict[str, Detector]:
    if isinstance(given, Mapping):
        return dict(given)
    return {name: DETECTORS[name]() for name in (DETECTORS if given is None else given)}


def _check(kinds: Sequence[str], *, sources: Sequence[str], rows: int, batch_rows: int) -> None:
    for kind in kinds:
        ERROR_KINDS[kind]
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or not sources or not kinds:
        raise ConfigError(
            f"sources are {list(sources)} and kinds {list(kinds)}; give at least one of each\n"
            f"  sources that exist: {', '.join(SOURCES)}"
        )
    if rows < 1 or batch_rows < 1:
        raise ConfigError(f"rows is {rows} and batch_rows {batch_rows}; each is at least 1")
