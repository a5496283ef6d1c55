"""What a recipe asks of the models: rows, steps, and tokens read and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher, needs_teacher
from limbeck.data.assembling import TrainingData
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import LimbeckError
from limbeck.models.loading import load_tokenizer
from limbeck.records import Example
from limbeck.seeds import Seeds
from limbeck.sequences import CollectedRollouts, Fixed, Mixture, TeacherWritten
from limbeck.sequences.source import Collecting
from limbeck.training.rows import training_data

_MEASURED_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Rows, steps and tokens of a run. Means a row; `is_measured` false where the data could not be read: full rows.

    `drawn`: the share of rows that the student draws (with a teacher in `drawn_together`); `written`: rows that the
    teacher writes once. `longest` is the longest row there is.
    """

    rows: int
    valid_rows: int
    steps: int
    validations: int
    prompt_tokens: float
    response_tokens: float
    longest: int
    drawn: float
    drawn_together: bool
    written: int
    reads_teacher: bool
    supervised_apart: bool
    is_measured: bool

    @classmethod
    def of(cls, recipe: Recipe, *, data: TrainingData | None = None) -> Workload:
        """The workload of a recipe; of full-length rows where its data or tokenizer is not there."""
        method = recipe.built_method()
        data = data or _data(recipe)
        rows = sum(len(part) for part in data.parts) if data is not None else 10_000
        lengths = _lengths(recipe, [e for part in data.parts for e in part.examples]) if data is not None else None
        prompt, response, longest = lengths or (
            float(recipe.data.max_prompt),
            float(recipe.data.max_length - recipe.data.max_prompt),
            recipe.data.max_length,
        )
        train, source = recipe.train, method.sequences
        repeats = source.repeats if isinstance(source, Collecting) else 1
        per_epoch = -(-rows * repeats // train.batch_rows)
        steps = train.steps if train.steps is not None else train.epochs * per_epoch
        every = recipe.validate.every
        valid = min(recipe.validate.rows, len(data.valid.examples) if data is not None and data.valid else 500)
        period = per_epoch if every == "epoch" else int(every or 0)
        share = drawn_share(source)
        return cls(
            rows=rows,
            valid_rows=0 if every is None else valid,
            steps=steps,
            validations=0 if every is None else max(1, steps // max(1, period)),
            prompt_tokens=prompt,
            response_tokens=response,
            longest=longest,
            drawn=share / repeats,
            drawn_together=isinstance(source, CollectedRollouts),
            written=min(rows, steps * train.batch_rows) if isinstance(source, TeacherWritten) else 0,
            reads_teacher=needs_teacher(method) and matches_teacher(method),
            supervised_apart=bool(method.weights.supervised) and share > 0,
            is_measured=lengths is not None,
        )


def drawn_share(source: Any) -> float:
    """The share of rows that the student draws; of a source whose schedule changes, the most that it may become.

    >>> drawn_share(Mixture(share=0.25)), drawn_share(Fixed())
    (0.25, 0.0)
    """
    if isinstance(source, Fixed | TeacherWritten):
        return 0.0
    if isinstance(source, Mixture):
        return source.share * drawn_share(source.first) + (1 - source.share) * drawn_share(source.second)
    return 1.0


def sampled(examples: Sequence[Example], most: int = _MEASURED_ROWS) -> Sequence[Example]:
    """At most so many examples, evenly spread over all."""
    return examples[:: -(-len(examples) // most)] if examples else examples


def encoder_of(recipe: Recipe, tokenizer: Any) -> Encoder:
    """The encoder that a run of this recipe would use; no model is asked for its context."""
    data = recipe.data
    return Encoder(
        tokenizer,
        choose_template(data.template, tokenizer, dict(recipe.models.chat_template_kwargs)),
        max_prompt=data.max_prompt,
        max_length=data.max_length,
        long_prompt=data.long_prompt,
        train_on=data.train_on,
    )


def _data(recipe: Recipe) -> TrainingData | None:
    if recipe.data.corpus is None:
        return None
    try:
        return training_data(recipe, seeds=Seeds(recipe.train.seed), rows=None)
    except LimbeckError:
        return None


def _lengths(recipe: Recipe, examples: Sequence[Example]) -> tuple[float, float, int] | None:
    """Mean prompt, mean response and longest row in tokens; None without a tokenizer or a row that is kept."""
    try:
        encoder = encoder_of(recipe, load_tokenizer(recipe.models.student))
        rows = encoder.rows(sampled(examples))
    except LimbeckError:
        return None
    prompts = sum(len(row.prompt) for row in rows) / len(rows)
    whole = sum(len(row.tokens) for row in rows) / len(rows)
    return prompts, whole - prompts, max(len(row.tokens) for row in rows)
