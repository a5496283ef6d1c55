"""Answers as rows: corpus × decoding seed × example, drawn in fixed batches, appended to disk batch by batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from limbeck.data.tokenizing import Encoder
from limbeck.errors import CheckpointError
from limbeck.files import json_lines, read_row, write_whole
from limbeck.models.decoders import Decoder
from limbeck.models.extending import extend_in_turn
from limbeck.models.sampling import Sampling
from limbeck.models.turns import UNIT_TURNS
from limbeck.records import AnswerRow, Example
from limbeck.registry import Registry
from limbeck.reporting.run_logs import DRAW_AGAIN
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import pack_rows

BATCH_ROWS = 16
"""Rows that are decoded at a time, unless told otherwise."""
_PURPOSE = "answer"
# Files of earlier versions do not say them.
_LATER = ("stop_ids", "prompts")


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Decoding:
    """How answers are drawn; recorded with them. `temperature` 0 is greedy."""

    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    no_repeat_ngram: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=256, ge=1)


DECODINGS: Registry[Decoding] = Registry(
    "decoding preset",
    {
        "plain": Decoding(),
        "paper": Decoding(no_repeat_ngram=6),
        "greedy": Decoding(temperature=0.0),
    },
)


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A decoder with all that is needed to turn an example into text.

    At most `batch_rows` rows are decoded at a time, waiting rows in the place of finished ones; a batch, after which
    answers are on the disk, holds `UNIT_TURNS` times as many, those of all seeds together.
    """

    decoder: Decoder
    encoder: Encoder
    stop_ids: frozenset[int]
    banned_ids: frozenset[int]
    pad_id: int
    device: torch.device
    batch_rows: int = BATCH_ROWS
    max_length: int | None = None

    def answers(
        self,
        examples: Sequence[Example],
        *,
        corpus: str,
        seeds: Sequence[int],
        decoding: Decoding,
        skip: frozenset[str] = frozenset(),
    ) -> Iterator[list[AnswerRow]]:
        """The answers with every seed, a batch at a time, longest prompts first; batches whose ids are all in `skip`
        are left out.

        A prompt is read once for all seeds. The uniforms of a row come from its key (corpus, id, seed): the same
        student answers the same again, whatever other seeds there are, but for rounding.
        """
        sampling = Sampling(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            no_repeat_ngram=decoding.no_repeat_ngram,
            stop_ids=self.stop_ids,
            banned_ids=self.banned_ids,
        )
        prompts = {example.id: self.encoder.prompt(example) for example in examples}
        by_id = {example.id: example for example in examples}
        for group in self.plan(prompts, copies=len(seeds)):
            if skip.issuperset(group):
                continue
            keys: list[tuple[str, str, int]] = [(corpus, id, seed) for id in group for seed in seeds]
            rows = [prompts[id] for _, id, _ in keys]
            packed = pack_rows(
                rows, [[False] * len(row) for row in rows], origin=["prompt"] * len(rows), keys=keys, pad_id=self.pad_id
            ).to(self.device)
            limit = packed.lengths + decoding.max_new_tokens
            extension = extend_in_turn(
                self.decoder,
                packed,
                seats=self.batch_rows,
                start=packed.lengths,
                limit=limit if self.max_length is None else limit.clamp(max=self.max_length),
                rows=torch.ones(len(rows), dtype=torch.bool),
                sampling=sampling,
                noise=RowNoise([Seeds(0).child(_PURPOSE, *key) for key in keys]),
                copies=len(seeds),
            )
            yield [
                self._row(by_id[id], place, extension.sequences, bool(extension.stopped[place]), corpus, seed)
                for place, (_, id, seed) in enumerate(keys)
            ]

    def finished(self, examples: Sequence[Example], there: Sequence[Sequence[str]]) -> list[int]:
        """For each seed, how many of its first ids that are `there` belong to batches that all seeds have whole."""
        groups = self.plan({example.id: self.encoder.prompt(example) for example in examples}, copies=len(there))
        whole = {id for group in groups if all(set(ids).issuperset(group) for ids in there) for id in group}
        counts = [next((place for place, id in enumerate(ids) if id not in whole), len(ids)) for ids in there]
        kept = {frozenset(ids[:count]) for ids, count in zip(there, counts, strict=True)}
        # Rows that somebody took out of one file: nothing is left that all of them have.
        return counts if len(kept) == 1 else [0] * len(counts)

    def plan(self, prompts: dict[str, tuple[int, ...]], *, copies: int = 1) -> list[list[str]]:
        """Ids in batches of like prompt length, each of them answered `copies` times."""
        order = sorted(prompts, key=lambda id: (-len(prompts[id]), id))
        size = max(1, UNIT_TURNS * self.batch_rows // copies)
        return [order[first : first + size] for first in range(0, len(order), size)]

    def _row(self, example: Example, place: int, sequences: Any, stopped: bool, corpus: str, seed: int) -> AnswerRow:
        ids = sequences.tokens[place][sequences.is_response[place]].tolist()
        return AnswerRow(
            corpus=corpus,
            seed=seed,
            id=example.id,
            # What ends an answer is no word of it: not every tokenizer calls its end of turn special.
            text=self.encoder.decode(ids[:-1] if stopped else ids),
            tokens=tuple(ids),
            num_tokens=len(ids),
            stopped=stopped,
            references=example.references,
            category=example.category,
            question=example.question,
            scores={},
        )


class AnswerFile:
    """Answers on disk: a header line that says how they were drawn, then one row a line.

    A kill loses at most the batch in progress: a half-written last line is dropped, and an unfinished batch is drawn
    again whole, so that its shapes, and with them its answers, are the same.
    """

    def __init__(self, path: Path, *, header: dict[str, Any]) -> None:
        self.path = path
        self.header = header

    def existing(self) -> list[dict[str, Any]]:
        """The rows that are there; creates the file. Raises `CheckpointError` if it was drawn under another header."""
        first = json.dumps(self.header, ensure_ascii=False).encode() + b"\n"
        found = self.path.read_bytes() if self.path.exists() else b""
        if b"\n" not in found and first.startswith(found):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(first)
            return []
        # In bytes: a kill may leave half a character, and text holds line breaks of its own (U+2028) that JSON keeps.
        whole = found[: found.rfind(b"\n") + 1]
        lines = whole.split(b"\n")[:-1]
        if len(lines) == 1 and _is_header(_loads(lines[0]), like=self.header):
            # Nothing was drawn under that header: a batch too large for the memory may have been tried.
            self.path.write_bytes(first)
            return []
        earlier = {key: value for key, value in self.header.items() if key not in _LATER}
        if not lines or _loads(lines[0]) not in (self.header, earlier):
            raise CheckpointError(
                f"{self.path} holds answers that were drawn otherwise"
                " (model, weights, decoding, seed, examples, template, end tokens or batches differ).\n"
                "  Choose another --out, or remove that file."
            )
        if whole != found:
            os.truncate(self.path, len(whole))
        return [
            read_row(line, place=f"{self.path} line {number}", error=CheckpointError, remedy=DRAW_AGAIN)
            for number, line in enumerate(lines[1:], start=2)
        ]

    def cut_back(self, count: int) -> None:
        """Let go of the rows after the first `count`."""
        lines = self.path.read_bytes().split(b"\n")[: count + 1]
        os.truncate(self.path, sum(len(line) + 1 for line in lines))

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These rows in place of all that are there."""
        write_whole(self.path, json_lines([self.header, *rows]))

    def append(self, rows: Sequence[AnswerRow | Mapping[str, Any]]) -> None:
        """One batch of answers, or of other rows."""
        plain = [row.to_json() if isinstance(row, AnswerRow) else row for row in rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_lines(plain))
            file.flush()


def drawn_together(path: Path) -> tuple[int, ...]:
    """The seeds that a file of answers was drawn with, its own among them; none where nothing was drawn into it."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        header, has_rows = _loads(file.readline()), bool(file.readline())
    if not has_rows:
        return ()
    named = header.get("drawn_together") if isinstance(header, dict) else None
    return tuple(named) if isinstance(named, list) else ()


def _is_header(found: Any, *, like: Mapping[str, Any]) -> bool:
    return isinstance(found, dict) and found.keys() == like.keys()


def _loads(line: bytes) -> Any:
    """The JSON value of a line; None where it is no JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None
