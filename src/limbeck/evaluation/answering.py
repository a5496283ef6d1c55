"""A model's answers with some decoding seeds: drawn, scored, kept as rows, and gone on with after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError
from limbeck.evaluation.answers import Answerer, AnswerFile, Decoding, drawn_together
from limbeck.evaluation.identity import fingerprint, ids_fingerprint, prompts_fingerprint, weights_fingerprint
from limbeck.evaluation.scorers import Scorer, Scorers, standard_scorers
from limbeck.evaluation.subjects import Subject
from limbeck.models.decoders import CausalDecoder
from limbeck.models.room import is_out_of_memory
from limbeck.models.turns import UNIT_TURNS
from limbeck.records import AnswerRow, Example


def answer_path(out: Path, corpus: str, seed: int) -> Path:
    """Where the answers of a corpus and seed lie below an evaluation's folder."""
    return out / f"{corpus.replace('/', '_')}-answers-seed{seed}.jsonl"


def answer_rows(
    subject: Subject,
    examples: Sequence[Example],
    *,
    corpus: str,
    seeds: Sequence[int],
    decoding: Decoding,
    path: Callable[[int], Path] | None,
    scorers: Mapping[str, Scorer] | None = None,
    is_scored: bool = True,
) -> list[dict[str, Any]]:
    """Every example answered with each decoding seed, and scored; goes on where the files at `path` of a seed stop.

    Seeds are drawn together, so that a prompt is read once. Which ones were is in the header of their files, and holds:
    seeds that come later are drawn beside them, by themselves. Answers that are only to be read by models (not
    `is_scored`) have no scores, so that nobody counts them as results.
    """
    wanted = list(seeds)
    scoring = Scorers({**standard_scorers(), **(scorers or {})} if is_scored else {})
    found: dict[int, list[dict[str, Any]]] = {}
    for together in _together(wanted, path):
        found |= _Drawing(subject, examples, corpus=corpus, decoding=decoding, scoring=scoring).rows(together, path)
    return [
        {**row, "measure": "answers"} for seed in wanted for row in sorted(found[seed], key=lambda row: str(row["id"]))
    ]


def _together(seeds: Sequence[int], path: Callable[[int], Path] | None) -> list[tuple[int, ...]]:
    """The seeds in groups that are drawn together: those that their files name, and all that have no file."""
    groups: list[tuple[int, ...]] = []
    for seed in seeds:
        if not any(seed in group for group in groups):
            named = () if path is None else drawn_together(path(seed))
            groups += [tuple(named)] if seed in named else []
    new = sorted(seed for seed in seeds if not any(seed in group for group in groups))
    return groups + ([tuple(new)] if new else [])


@dataclass(frozen=True)
class _Drawing:
    """One corpus being answered by one model."""

    subject: Subject
    examples: Sequence[Example]
    corpus: str
    decoding: Decoding
    scoring: Scorers

    def rows(self, seeds: tuple[int, ...], path: Callable[[int], Path] | None) -> dict[int, list[dict[str, Any]]]:
        """The rows of seeds that are drawn together: those that are on disk, and the others, which are then too."""
        answerer, files = self._answerer(), dict[int, AnswerFile]()
        if path is not None:
            header = self._header(seeds, answerer)
            files = {seed: AnswerFile(path(seed), header={**header, "seed": seed}) for seed in seeds}
        found = {seed: files[seed].existing() if files else [] for seed in seeds}
        done = answerer.finished(self.examples, [[str(row["id"]) for row in found[seed]] for seed in seeds])
        for seed, count in zip(seeds, done, strict=True):
            if count < len(found[seed]):
                files[seed].cut_back(count)
                found[seed] = found[seed][:count]
            if any(self.scoring.lacks(row["scores"]) for row in found[seed]):
                found[seed] = [_scored_again(row, self.scoring) for row in found[seed]]
                files[seed].replace(found[seed])
        drawn = answerer.answers(
            self.examples,
            corpus=self.corpus,
            seeds=seeds,
            decoding=self.decoding,
            skip=frozenset(str(row["id"]) for row in found[seeds[0]]),
        )
        while (group := _next_group(drawn, corpus=self.corpus, batch_rows=self.subject.batch_rows)) is not None:
            for row in group:
                self.scoring.score(row)
            for seed in seeds:
                own = [row for row in group if row.seed == seed]
                if files:
                    files[seed].append(own)
                # Through JSON, so that rows just drawn and rows read from disk are equal.
                found[seed] += json.loads(json.dumps([row.to_json() for row in own]))
        return found

    def _answerer(self) -> Answerer:
        subject = self.subject
        return Answerer(
            decoder=CausalDecoder(subject.student),
            encoder=subject.encoder,
            stop_ids=subject.pair.stop_ids,
            banned_ids=frozenset(subject.pair.vocabulary.dropped_student),
            pad_id=subject.pair.pad_id,
            device=next(subject.pair.student.parameters()).device,
            batch_rows=subject.batch_rows,
        )

    def _header(self, together: tuple[int, ...], answerer: Answerer) -> dict[str, Any]:
        """What the files of all seeds say of how they were drawn."""
        subject = self.subject
        return {
            "model": subject.name,
            "weights": weights_fingerprint(subject.student.model),
            "dtype": str(next(subject.student.model.parameters()).dtype).removeprefix("torch."),
            "banned_ids": ids_fingerprint(answerer.banned_ids),
            "stop_ids": sorted(answerer.stop_ids),
            "corpus": self.corpus,
            "seed": together[0],
            "drawn_together": list(together),
            "decoding": asdict(self.decoding),
            "examples": len(self.examples),
            "content": fingerprint(self.examples),
            "prompts": prompts_fingerprint(map(subject.encoder.prompt, self.examples)),
            "template": subject.encoder.template.kind,
            "max_prompt": subject.encoder.max_prompt,
            "batch_rows": subject.batch_rows,
            "unit_turns": UNIT_TURNS,
            "rows": "answers",
        }


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
