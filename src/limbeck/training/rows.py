"""The rows of a run: read, cut into training and validation, encoded, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.config import Recipe
from limbeck.data.assembling import TrainingData, load_training
from limbeck.data.corpora import cut_validation, limited
from limbeck.data.examples import from_rows
from limbeck.data.loader import Mix
from limbeck.data.plain_texts import plain_rows
from limbeck.data.shares import CorpusShare
from limbeck.data.templates import choose_template, described
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError
from limbeck.models.pair import Pair
from limbeck.models.sharing import check_shared
from limbeck.records import EncodedRow, Example
from limbeck.seeds import Seeds

# Validation rows whose cross-entropy a source may ask for; the same ones whatever is validated.
OBSERVED_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The encoded rows of a run.

    `observed` are the validation rows that a source may ask about. `asked` are the examples of the training rows, by
    their prompt tokens. `texts` are rows of plain text, for a method with a term on them. `counted` is what rows.json
    says of them all.
    """

    train: Sequence[EncodedRow] | Mix
    valid: tuple[EncodedRow, ...]
    valid_examples: tuple[Example, ...]
    lines: tuple[str, ...]
    observed: tuple[EncodedRow, ...] = ()
    asked: Mapping[tuple[int, ...], Example] = field(default_factory=dict)
    texts: tuple[EncodedRow, ...] = ()
    counted: Mapping[str, Any] = field(default_factory=dict)

    def scored_tokens(self) -> int:
        """Response tokens of the training and validation rows together."""
        return sum(sum(row.is_response[1:]) for row in self.all_rows())

    def all_rows(self) -> list[EncodedRow]:
        """The training rows in order, then the validation rows."""
        parts = self.train.parts if isinstance(self.train, Mix) else (self.train,)
        return [row for part in (*parts, self.valid) for row in part]

    def fingerprint(self) -> str:
        """A digest of the training rows in order: ids, tokens, what is learned, shares of a mix; and of plain text."""
        digest = hashlib.blake2b(digest_size=16)
        parts = self.train.parts if isinstance(self.train, Mix) else (self.train,)
        digest.update(repr(self.train.weights if isinstance(self.train, Mix) else (1.0,)).encode())
        for row in (row for part in (*parts, self.texts) for row in part):
            digest.update(repr((row.id, len(row.tokens))).encode())
            digest.update(np.asarray(row.tokens, dtype=np.int64).tobytes())
            digest.update(np.asarray(row.is_response, dtype=np.bool_).tobytes())
        return digest.hexdigest()


def build_encoder(recipe: Recipe, pair: Pair) -> Encoder:
    """The one encoder of a run. Raises `ConfigError` if `data.max_length` is more than the models can read."""
    data = recipe.data
    template = choose_template(data.template, pair.tokenizer, dict(recipe.models.chat_template_kwargs))
    context = _context(pair)
    if context is not None and data.max_length > context:
        raise ConfigError(
            f"data.max_length is {data.max_length}, but the models read at most {context} tokens; lower data.max_length"
        )
    return Encoder(
        pair.tokenizer,
        template,
        max_prompt=data.max_prompt,
        max_length=data.max_length,
        long_prompt=data.long_prompt,
        train_on=data.train_on,
    )


def _context(pair: Pair) -> int | None:
    lengths = [
        int(model.config.max_position_embeddings)
        for model in (pair.student, pair.teacher)
        if model is not None and getattr(model.config, "max_position_embeddings", None)
    ]
    return min(lengths) if lengths else None


def encode_rows(
    recipe: Recipe, encoder: Encoder, *, seeds: Seeds, rows: Iterable[Mapping[str, Any]] | None, pair: Pair
) -> Rows:
    """Read, cut and encode; `rows` take the place of `data.corpus`.

    Raises `DataError`, `ConfigError`, and `VocabularyMismatch` for a token that the teacher of the pair cannot read.
    """
    data = training_data(recipe, seeds=seeds, rows=rows)
    parts = [encoder.rows(part.examples) for part in data.parts]
    train: Sequence[EncodedRow] | Mix = parts[0] if len(parts) == 1 else Mix(tuple(parts), data.weights)
    lines = [*data.lines(), described(encoder.template), *encoder.report.lines()]
    held_out = () if data.valid is None else data.valid.examples
    examples = held_out[: recipe.validate.rows]
    measuring = Encoder(
        pair.tokenizer,
        encoder.template,
        max_prompt=encoder.max_prompt,
        max_length=encoder.max_length,
        long_prompt=encoder.long_prompt,
        train_on=encoder.train_on,
    )
    kept = [(example, row) for example in examples if (row := measuring.row(example)) is not None]
    measured = measuring.report.counts()
    if examples and not kept:
        raise DataError(f"all {len(examples)} validation prompts are longer than data.max_prompt; see data.long_prompt")
    texts = () if recipe.data.plain_text is None else _texts(recipe, pair=pair)
    lines += [f"plain text: {len(texts):,} rows of at most {recipe.data.max_length} tokens"] if texts else []
    observed = islice(filter(None, (measuring.row(example) for example in held_out)), OBSERVED_ROWS)
    found = Rows(
        train=train,
        valid=tuple(row for _, row in kept),
        valid_examples=tuple(example for example, _ in kept),
        lines=tuple(lines),
        observed=tuple(observed),
        asked={
            row.prompt: example
            for part, encoded in zip(data.parts, parts, strict=True)
            for row, example in _with_examples(encoded, part.examples)
        },
        texts=texts,
        counted={
            "sources": [{"source": part.source, "format": part.format, "rows": len(part)} for part in data.parts],
            "max_prompt": encoder.max_prompt,
            "max_length": encoder.max_length,
            "train": encoder.report.counts(),
            "validation": measured,
            "plain_text": len(texts),
        },
    )
    check_shared(pair.vocabulary, encoder, [*found.all_rows(), *found.observed, *found.texts])
    return found


def _texts(recipe: Recipe, *, pair: Pair) -> tuple[EncodedRow, ...]:
    assert recipe.data.plain_text is not None, "asked for with a file only"
    path = Path(recipe.data.plain_text).expanduser()
    return plain_rows(path, tokenizer=pair.tokenizer, max_length=recipe.data.max_length)


def _with_examples(rows: Sequence[EncodedRow], examples: Sequence[Example]) -> list[tuple[EncodedRow, Example]]:
    by_id = {example.id: example for example in examples}
    return [(row, by_id[row.id]) for row in rows]


def training_data(recipe: Recipe, *, seeds: Seeds, rows: Iterable[Mapping[str, Any]] | None) -> TrainingData:
    """The examples that a recipe trains on and validates with, before they are encoded."""
    data = recipe.data
    valid = None if recipe.validate.every is None else data.valid
    if rows is not None:
        whole = from_rows(rows, columns=data.columns, corpus="rows", source="rows")
        kept = limited(whole, max_rows=data.max_rows, seeds=seeds)
        if valid is None:
            return TrainingData(parts=(kept,), weights=(1.0,), valid=None)
        train, held_out = cut_validation(kept, spec=valid, seeds=seeds, columns=data.columns)
        return TrainingData(parts=(train,), weights=(1.0,), valid=held_out)
    if data.corpus is None:
        raise ConfigError("data.corpus is missing; name a corpus, a .jsonl file or a hub set")
    corpus: str | list[CorpusShare] = (
        data.corpus if isinstance(data.corpus, str) else [CorpusShare(part.corpus, part.weight) for part in data.corpus]
    )
    return load_training(
        corpus,
        split=data.split,
        root=None if data.root is None else Path(data.root),
        columns=data.columns,
        max_rows=data.max_rows,
        valid=valid,
        seeds=seeds,
    )
