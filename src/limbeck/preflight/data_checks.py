"""What can be said of the rows: whether they can be read, what stands twice, what is cut, and what leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from limbeck.config import Recipe
from limbeck.data.assembling import TrainingData
from limbeck.data.corpora import load_corpus
from limbeck.data.named import CORPORA, local_file
from limbeck.errors import LimbeckError
from limbeck.models.loading import load_tokenizer
from limbeck.models.sharing import check_shared
from limbeck.preflight.findings import Finding, Severity, failed, ok
from limbeck.preflight.pair_checks import matched_vocabulary
from limbeck.preflight.workload import encoder_of, sampled
from limbeck.records import Example
from limbeck.seeds import Seeds
from limbeck.training.rows import OBSERVED_ROWS, training_data

# Above these shares of rows, what happens to them is a warning and no note.
_MANY = 0.05
_SHOWN = 3


def read_data(recipe: Recipe) -> tuple[TrainingData | None, list[Finding]]:
    """The recipe's examples, or why they cannot be read."""
    if recipe.data.corpus is None:
        message = "data.corpus is missing; only Python code can pass rows"
        return None, [Finding(check="data", severity="error", message=message, advice="name a corpus or a file")]
    try:
        return training_data(recipe, seeds=Seeds(recipe.train.seed), rows=None), []
    except LimbeckError as error:
        return None, [failed("data", error)]


def data_findings(recipe: Recipe, data: TrainingData) -> list[Finding]:
    """Format, number of rows, duplicates, overlap with validation and test rows, and what encoding does to rows."""
    train = [example for part in data.parts for example in part.examples]
    valid = () if data.valid is None else data.valid.examples
    found = [ok("data", "; ".join(part.describe() for part in data.parts))]
    found += _size(recipe, train)
    found += _duplicates(train)
    found.append(_overlap(train, valid, what="validation", advice="give data.valid a file without them"))
    found += _tests(recipe, train)
    found += _encoding(recipe, train)
    found += _shared(recipe, [*train, *valid[: max(recipe.validate.rows, OBSERVED_ROWS)]])
    return found


def _size(recipe: Recipe, train: Sequence[Example]) -> list[Finding]:
    if len(train) >= recipe.train.batch_rows:
        return []
    message = f"{len(train)} training rows are fewer than the {recipe.train.batch_rows} of train.batch_rows"
    advice = "lower train.batch_rows: a step would read rows twice"
    return [Finding(check="data", severity="warning", message=message, advice=advice)]


def _duplicates(train: Sequence[Example]) -> list[Finding]:
    rows = Counter(example.content_hash() for example in train)
    prompts = Counter(example.messages for example in train)
    again = sum(count - 1 for count in rows.values())
    other = sum(count - 1 for count in prompts.values()) - again
    found = []
    if again:
        twice = _named(example for example in train if rows[example.content_hash()] > 1)
        message = f"{again:,} of {len(train):,} rows are exact copies of others ({twice})"
        severity, advice = _graded(again, len(train)), "remove copies, unless they are meant to weigh more"
        found.append(Finding(check="duplicates", severity=severity, message=message, advice=advice))
    if other:
        message = f"{other:,} rows ask what another row asks, with another answer"
        advice = "good for diversity, bad where only one answer can be right"
        found.append(Finding(check="duplicates", severity="note", message=message, advice=advice))
    return found or [ok("duplicates", "no row stands twice")]


def _overlap(train: Sequence[Example], other: Sequence[Example], *, what: str, advice: str) -> Finding:
    if not other:
        return ok(f"overlap with {what}", f"no {what} rows")
    asked = {example.messages for example in train}
    shared = [example for example in other if example.messages in asked]
    if not shared:
        return ok(f"overlap with {what}", f"none of {len(other):,} prompts is trained on")
    message = f"{len(shared):,} of {len(other):,} prompts are trained on too ({_named(shared)})"
    return Finding(
        check=f"overlap with {what}",
        severity="warning",
        message=message,
        advice=f"scores would be too good: take these rows out of the training data, or {advice}",
    )


def _tests(recipe: Recipe, train: Sequence[Example]) -> list[Finding]:
    """Overlap with the test splits of every named corpus that lies on this machine."""
    root = None if recipe.data.root is None else Path(recipe.data.root)
    found = []
    for name, corpus in CORPORA.items():
        path = local_file(corpus, "test", root=root) if "test" in corpus.files else None
        if path is None or not path.is_file():
            continue
        try:
            rows = load_corpus(name, split="test", root=root).examples
        except LimbeckError:
            continue
        found.append(_overlap(train, rows, what=f"{name}'s test rows", advice="do not score on that corpus"))
    return found


def _encoding(recipe: Recipe, train: Sequence[Example]) -> list[Finding]:
    """What becomes of a sample of the rows when they are encoded."""
    try:
        encoder = encoder_of(recipe, load_tokenizer(recipe.models.student))
        rows = sampled(train)
        encoder.rows(rows)
    except LimbeckError as error:
        # A model that is not there is a finding of its own.
        return [] if "model" in type(error).__name__.lower() else [failed("lengths", error)]
    report, total = encoder.report, len(rows)
    cases = (
        (report.dropped_prompts, "rows are dropped: their prompt is longer than data.max_prompt",
         "raise data.max_prompt, or set data.long_prompt=cut"),
        (report.cut_prompts, "prompts are cut to data.max_prompt", "raise data.max_prompt"),
        (report.cut_responses, "responses are cut at data.max_length and teach no end of turn",
         "raise data.max_length"),
        (report.control_tokens, "rows spell a special token of the tokenizer, which is encoded as that token",
         "remove it from the text: it may end a response too early"),
        (report.unknown_tokens, "rows have text that the tokenizer has no token for: it is lost and learned as unknown",
         "take a model whose tokenizer knows it, line breaks and letters of the language included"),
        (report.open_thoughts, "responses have no </think>, though the chat template begins them with <think>",
         "write the thoughts into the rows, or try models.chat_template_kwargs={enable_thinking: false}"),
    )  # fmt: skip
    found = [
        Finding(
            check="lengths", severity=_graded(count, total), message=f"{count:,} of {total:,} {what}", advice=advice
        )
        for count, what, advice in cases
        if count
    ]
    longest = max(p + r for p, r in zip(report.prompt_lengths, report.response_lengths, strict=True))
    return found or [ok("lengths", f"{total:,} rows looked at are read whole; the longest has {longest:,} tokens")]


def _shared(recipe: Recipe, examples: Sequence[Example]) -> list[Finding]:
    """A token of a row that the teacher cannot read. All rows are encoded, but only where the tokenizers differ."""
    try:
        vocabulary = matched_vocabulary(recipe)
        if vocabulary is None or not vocabulary.dropped:
            return []
        encoder = encoder_of(recipe, load_tokenizer(recipe.models.student))
        rows = encoder.rows(examples)
    except LimbeckError:
        # A pair that does not fit and rows that cannot be encoded are findings of their own.
        return []
    try:
        check_shared(vocabulary, encoder, rows)
    except LimbeckError as error:
        return [failed("tokens", error)]
    return [ok("tokens", f"the teacher knows every token that is learned from {len(rows):,} rows")]


def _graded(count: int, total: int) -> Severity:
    return "warning" if count > _MANY * total else "note"


def _named(examples: Iterable[Example]) -> str:
    found = [example.source or example.id for example in examples]
    return ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
