"""`limbeck init`: a recipe for one's own rows, with every key explained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.config.reading import scalar
from limbeck.config.sections import (
    SECTIONS,
    CacheSection,
    DataSection,
    ModelsSection,
    SamplingSection,
    TrackSection,
    TrainSection,
    ValidateSection,
    WatchSection,
    keys_of,
)
from limbeck.data.examples import Dataset, read_examples
from limbeck.errors import ConfigError
from limbeck.files import write_whole
from limbeck.records import Example

_TEACHER = "smollm2-135m-instruct"
_LAYERS = 15
_STUDENT = f"students/{_TEACHER}-{_LAYERS}-layers"
_SMALL_STUDENT = f"make it with: limbeck shrink {_TEACHER} --layers {_LAYERS} --out {_STUDENT}"
_MEASURED_ROWS = 2_000
_LONGEST = 1_024
# English in a vocabulary of 50,000 has about 1.3 tokens a word; scripts without spaces, about a token per 3 bytes.
_TOKENS_PER_WORD, _BYTES_PER_TOKEN, _TEMPLATE_TOKENS = 1.4, 4, 40


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Prompt and response lengths of rows, in `unit`; `in_tokens` says the same in (estimated) tokens.

    `context` is what the models read at most, where their folders say it.
    """

    unit: str
    template: str
    prompts: tuple[int, ...]
    responses: tuple[int, ...]
    prompts_in_tokens: tuple[int, ...]
    responses_in_tokens: tuple[int, ...]
    context: int | None = None

    def lines(self) -> tuple[str, ...]:
        """The quantiles, for printing."""
        return (
            f"prompts: {_spread(self.prompts, self.unit)}",
            f"responses: {_spread(self.responses, self.unit)}",
            f"template: {self.template}",
        )


def write_recipe(
    data: Path,
    *,
    out: Path,
    teacher: str | None = None,
    student: str | None = None,
    force: bool = False,
    say: Callable[[str], object] = print,
) -> Path:
    """Write a commented recipe for the rows of `data`, which `Recipe.load` takes as it is; returns `out`.

    Format and lengths come from the rows: in tokens where teacher or student is a folder with a tokenizer, else in
    words, from which tokens are estimated. A student without a teacher gets a recipe for fine-tuning. What was found is
    told to `say`. Raises `DataError` for rows that cannot be used and `ConfigError` where `out` exists, unless `force`.
    """
    if out.exists() and not (force and out.is_file()):
        raise ConfigError(f"{out} exists already; choose another file with --out, or replace it with --force")
    dataset = read_examples(data)
    lengths = _lengths(dataset, [name for name in (student, teacher) if name])
    found = [dataset.describe(), *lengths.lines()]
    max_prompt, max_response = _fitting(
        _limit(lengths.prompts_in_tokens), _limit(lengths.responses_in_tokens), context=lengths.context
    )
    sections = _sections(
        dataset, data=data, teacher=teacher, student=student, max_prompt=max_prompt, max_response=max_response
    )
    for line in found:
        say(line)
    say(f"chosen: data.max_prompt {max_prompt}, data.max_length {max_prompt + max_response} tokens")
    longer = sum(length > max_prompt for length in lengths.prompts_in_tokens)
    if longer:
        say(f"{longer} of {len(lengths.prompts)} prompts looked at are longer, and dropped unless data.long_prompt=cut")
    cut = sum(
        prompt <= max_prompt and prompt + response > max_prompt + max_response
        for prompt, response in zip(lengths.prompts_in_tokens, lengths.responses_in_tokens, strict=True)
    )
    if cut:
        say(f"{cut} of {len(lengths.responses)} responses looked at are cut there, and teach no end of turn")
    text = _recipe_text(found, sections, run=f"runs/{out.stem if out.stem != 'recipe' else _stem(data)}", out=out)
    _write(text, out)
    return out


def _sections(
    dataset: Dataset, *, data: Path, teacher: str | None, student: str | None, max_prompt: int, max_response: int
) -> dict[str, Any]:
    is_tuning = student is not None and teacher is None
    few = len(dataset.examples) < 2_000
    return {
        "method": "sft" if is_tuning else "gkd",
        "models": ModelsSection(teacher=None if is_tuning else teacher or _TEACHER, student=student or _STUDENT),
        "data": DataSection(corpus=str(data), max_prompt=max_prompt, max_length=max_prompt + max_response),
        "sampling": SamplingSection(max_new_tokens=max_response),
        "train": TrainSection(epochs=3 if few else 1, batch_rows=8 if few else 32),
        "cache": CacheSection(),
        "validate": ValidateSection(),
        "watch": WatchSection(),
        "track": TrackSection(),
    }


def _lengths(dataset: Dataset, models: Sequence[str]) -> Lengths:
    every = math.ceil(len(dataset.examples) / _MEASURED_ROWS)
    examples = dataset.examples[::every]
    marks = ("config.json", "tokenizer_config.json")
    folders = [name for name in models if all((Path(name) / mark).is_file() for mark in marks)]
    if folders:
        return _token_lengths(examples, folders)
    asked = [" ".join(f"{message.content} {message.input}" for message in example.messages) for example in examples]
    answered = [example.references[0] for example in examples]
    return Lengths(
        unit="words",
        template="the tokenizer's chat template if it has one, else the paper's layout",
        prompts=tuple(len(text.split()) for text in asked),
        responses=tuple(len(text.split()) for text in answered),
        prompts_in_tokens=tuple(_estimated(text) + _TEMPLATE_TOKENS for text in asked),
        responses_in_tokens=tuple(_estimated(text) + 1 for text in answered),
    )


def _token_lengths(examples: Sequence[Example], folders: Sequence[str]) -> Lengths:
    from limbeck.data.templates import choose_template
    from limbeck.data.tokenizing import Encoder
    from limbeck.models.loading import load_config, load_tokenizer

    limits = [getattr(load_config(name).get_text_config(), "max_position_embeddings", None) for name in folders]
    tokenizer, unlimited = load_tokenizer(folders[0]), 10**9
    template = choose_template("auto", tokenizer, {})
    encoder = Encoder(tokenizer, template, max_prompt=unlimited, max_length=2 * unlimited)
    rows = [row for example in examples if (row := encoder.row(example)) is not None]
    prompts = tuple(len(row.prompt) for row in rows)
    responses = tuple(len(row.tokens) - len(row.prompt) for row in rows)
    return Lengths(
        unit="tokens",
        template=f"{template.kind}, by the tokenizer of {folders[0]}",
        prompts=prompts,
        responses=responses,
        prompts_in_tokens=prompts,
        responses_in_tokens=responses,
        context=min((int(limit) for limit in limits if limit), default=None),
    )


def _estimated(text: str) -> int:
    return math.ceil(max(len(text.split()) * _TOKENS_PER_WORD, len(text.encode()) / _BYTES_PER_TOKEN))


def _quantile(lengths: Sequence[int], share: float) -> int:
    return sorted(lengths)[min(len(lengths) - 1, math.ceil(share * len(lengths)) - 1)]


def _limit(lengths: Sequence[int]) -> int:
    """What 99 % of the rows fit into, in steps of 32 from 64 to 1,024."""
    return min(_LONGEST, max(64, math.ceil(_quantile(lengths, 0.99) / 32) * 32))


def _fitting(max_prompt: int, max_response: int, *, context: int | None) -> tuple[int, int]:
    """Both limits, made smaller until a row fits into the context; what is short keeps its room."""
    if context is None or max_prompt + max_response <= context:
        return max_prompt, max_response
    response = max(min(max_response, context // 2), context - max_prompt)
    return context - response, response


def _spread(lengths: Sequence[int], unit: str) -> str:
    half, most = _quantile(lengths, 0.5), _quantile(lengths, 0.95)
    return f"half have at most {half:,} {unit}, 95 % at most {most:,}, the longest has {max(lengths):,}"


def _stem(data: Path) -> str:
    return data.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json") or "mine"


def _recipe_text(found: Sequence[str], sections: Mapping[str, Any], *, run: str, out: Path) -> str:
    base = sections["method"]
    lines = [f"# {' '.join(line.split())}" for line in found]
    lines += ["#", f"# Run it:                    limbeck train {out}"]
    lines += ["# Change a key for one run:  train.learning_rate=1e-4 behind that command", "", "method:"]
    lines += [_line("base", base, "gkd, imitkd, kd: from the teacher; sft: fine-tuning, with models.teacher: null")]
    for name, section in SECTIONS.items():
        lines += ["", f"{name}:"]
        defaults = dataclasses.asdict(sections[name])
        for key, about in keys_of(section).items():
            meaning = f"{about.meaning}: {about.allowed}" if about.is_choice else about.meaning
            if key == "student" and defaults[key] == _STUDENT:
                meaning = _SMALL_STUDENT
            lines.append(_line(key, defaults[key], meaning))
    lines += ["", f"run: {scalar(run)}  # folder of the run; it must not exist yet"]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object, meaning: str) -> str:
    shown = scalar(list(value) if isinstance(value, tuple) else value)
    return f"  {f'{key}: {shown}':<36}  # {meaning}"


def _write(text: str, out: Path) -> None:
    write_whole(out, text)
