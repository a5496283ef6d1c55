"""The sections of a recipe: every key with its default, its meaning and what it may be.

The words of `Key` are used twice: by error messages, and by the comments of a recipe that Limbeck writes.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclasses.dataclass(frozen=True)
class Key:
    """What a key means, and what its value may be ("" where the type says it; `keys_of` fills it in).

    `is_choice`: `allowed` lists every value that there is.
    """

    meaning: str
    allowed: str = ""
    is_choice: bool = False


_STRICT = ConfigDict(extra="forbid")
_WHOLE = "a whole number of at least 1"
_OR_AUTO = "auto, or a whole number of at least 1"
_OFF_OR_SHARE = "null, or a number between 0 and 1"

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
Dtype = Literal["auto", "fp32", "float32", "bf16", "bfloat16", "float64"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoraSection:
    """LoRA in place of training all weights of the student."""

    rank: Annotated[Count, Key("rank of the update", _WHOLE)] = 16
    alpha: Annotated[Positive, Key("scale: alpha / rank", "a number above 0")] = 32.0
    dropout: Annotated[Decay, Key("dropout on the update's input", "a number from 0 to below 1")] = 0.0
    targets: Annotated[
        tuple[Name, ...] | None, Key("module names; null = every linear layer but the head", "null, or a list of names")
    ] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelsSection:
    """Teacher and student, and how they are loaded."""

    teacher: Annotated[
        Name | None, Key("model to learn from: hub id, folder or packaged name", "a model's name or folder, or null")
    ] = None
    student: Annotated[Name, Key("model to be trained: hub id, folder or packaged name", "a model's name or folder")]
    teacher_dtype: Annotated[Dtype, Key("precision of the teacher's weights")] = "auto"
    device: Annotated[Name, Key("where the student is", "auto, cpu, cuda, cuda:N or mps")] = "auto"
    teacher_device: Annotated[Name, Key("where the teacher is", "auto, cpu, cuda, cuda:N or mps")] = "auto"
    teacher_bits: Annotated[
        Literal[8, 4] | None, Key("bits a weight of the teacher, by bitsandbytes on CUDA (extra gpu)", "null, 8 or 4")
    ] = None
    teacher_offload: Annotated[bool, Key("the teacher lies in main memory between uses")] = False
    teacher_is_base: Annotated[bool, Key("the teacher is the student with LoRA off: one set of weights")] = False
    lora: Annotated[LoraSection | None, Key("null = train all weights", "null, or {rank, alpha, dropout, targets}")] = (
        None
    )
    dropout: Annotated[bool, Key("keep the student's dropout")] = False
    attention: Annotated[Attention, Key("attention code")] = "auto"
    allow_bin: Annotated[bool, Key("also take .bin weights (weights_only)")] = False
    chat_template_kwargs: Annotated[
        dict[str, Any], Key("arguments of the chat template", "a mapping, e.g. {enable_thinking: false}")
    ] = Field(default_factory=dict)
    gradient_checkpointing: Annotated[bool, Key("less memory, more time")] = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CorpusShare:
    """One of several corpora."""

    corpus: Annotated[Name, Key("corpus, file or hub id", "a corpus, a file or a hub id")]
    weight: Annotated[Positive, Key("its share of the rows, relative to the others", "a number above 0")] = 1.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataSection:
    """The rows, and how they become tokens. `corpus` is None only where Python code passes rows."""

    corpus: Annotated[
        Name | tuple[CorpusShare, ...] | None,
        Key("corpus, .jsonl[.gz] file or hub id", "a corpus, a file, a hub id, or a list of {corpus, weight}"),
    ] = None
    root: Annotated[
        Name | None, Key("folder of the named corpora; hub: the papers' files", "a folder, hub, or null")
    ] = None
    split: Annotated[Name, Key("split to train on", "the name of a split")] = "train"
    valid: Annotated[
        Literal["auto"] | Count | Share | Name,
        Key("validation rows: auto, a number, a share or a file", "auto, a whole number, a share below 1, or a file"),
    ] = "auto"
    columns: Annotated[
        dict[str, Name], Key("field: column of your file", "a mapping, e.g. {prompt: question, completion: answer}")
    ] = Field(default_factory=dict)
    plain_text: Annotated[
        Name | None, Key("text for method.weights.plain_text", "null, a .txt file, or JSON lines with `text`")
    ] = None
    max_rows: Annotated[Count | None, Key("use only this many rows", "null, or a whole number of at least 1")] = None
    template: Annotated[
        Literal["auto", "chat", "paper", "plain"], Key("auto = the tokenizer's chat template, else paper")
    ] = "auto"
    train_on: Annotated[Literal["last", "all"], Key("which assistant turns are learned")] = "last"
    max_prompt: Annotated[Count, Key("longest prompt, in tokens", _WHOLE)] = 256
    max_length: Annotated[Count, Key("longest prompt + response, in tokens", _WHOLE)] = 512
    long_prompt: Annotated[Literal["drop", "cut"], Key("what happens to a longer prompt")] = "drop"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SamplingSection:
    """How responses are drawn while training."""

    temperature: Annotated[NotNegative, Key("0 = greedy", "a number of at least 0")] = 1.0
    top_p: Annotated[
        float, Field(gt=0, le=1), Key("smallest set of this mass; 1 = all", "a number above 0, at most 1")
    ] = 1.0
    top_k: Annotated[int, Field(ge=0), Key("the k most probable; 0 = all", "a whole number of at least 0")] = 0
    max_new_tokens: Annotated[Count, Key("longest drawn response, in tokens", _WHOLE)] = 256


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainSection:
    """The optimisation. `steps`, where given, decides the length; otherwise `epochs` does."""

    epochs: Annotated[Count, Key("passes over the rows", _WHOLE)] = 1
    steps: Annotated[Count | None, Key("optimiser steps; null = by epochs", "null, or " + _WHOLE)] = None
    batch_rows: Annotated[Count, Key("rows a step, over all processes", _WHOLE)] = 32
    micro_rows: Annotated[Literal["auto"] | Count, Key("rows at once; does not change results", _OR_AUTO)] = "auto"
    chunk: Annotated[Literal["auto"] | Count, Key("tokens a chunk of the vocabulary layer", _OR_AUTO)] = "auto"
    learning_rate: Annotated[Positive, Key("highest learning rate", "a number above 0")] = 5e-4
    schedule: Annotated[Literal["cosine", "constant", "linear"], Key("after the warm-up")] = "cosine"
    warmup: Annotated[
        Annotated[int, Field(ge=0)] | Decay,
        Key("steps, or a fraction of the run", "a whole number of steps, or a fraction below 1"),
    ] = 0
    final_learning_rate: Annotated[NotNegative, Key("where the schedule ends", "a number of at least 0")] = 0.0
    clip_norm: Annotated[Positive | None, Key("gradient norm limit; null = off", "null, or a number above 0")] = 1.0
    weight_decay: Annotated[NotNegative, Key("AdamW's decay", "a number of at least 0")] = 0.01
    betas: Annotated[tuple[Decay, Decay], Key("AdamW's betas", "two numbers from 0 to below 1")] = (0.9, 0.999)
    precision: Annotated[Literal["auto", "fp32", "bf16-mixed", "bf16"], Key("student's weights and computation")] = (
        "auto"
    )
    strategy: Annotated[Literal["auto", "ddp", "fsdp"], Key("how several processes share the work")] = "auto"
    stop_after: Annotated[
        Count | None, Key("stop after this many validations without a better one", "null, or " + _WHOLE)
    ] = None
    checkpoint_minutes: Annotated[NotNegative, Key("minutes between checkpoints", "a number of at least 0")] = 5.0
    deterministic: Annotated[bool, Key("the same bits every time on a CUDA device")] = True
    seed: Annotated[int, Field(ge=0), Key("root of all randomness", "a whole number of at least 0")] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ValidateSection:
    """When and how the student is validated; `metric` chooses the best checkpoint."""

    every: Annotated[
        Literal["epoch"] | Count | None,
        Key("epoch, every so many steps, or null = never", "epoch, null, or " + _WHOLE),
    ] = "epoch"
    rows: Annotated[Count, Key("validation rows that are used", _WHOLE)] = 200
    metric: Annotated[Literal["rouge-l", "loss"], Key("chooses the best checkpoint")] = "rouge-l"
    seed: Annotated[int, Field(ge=0), Key("decoding seed", "a whole number of at least 0")] = 10


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class WatchSection:
    """What is looked at beside the loss; below `rows`, when a failure signature shows (docs/watching.md)."""

    every: Annotated[Count, Key("steps between looks at each term's gradient", _WHOLE)] = 50
    rows: Annotated[
        int, Field(ge=0), Key("validation rows that tokens.jsonl follows", "a whole number of at least 0")
    ] = 8
    revision_harm: Annotated[
        NotNegative | None, Key("loss of teacher's log p by revision, nats a token", "null, or a number of at least 0")
    ] = 0.1
    clip_collapsed: Annotated[Share | None, Key("share of tokens with one class kept", _OFF_OR_SHARE)] = 0.9
    clip_unstable: Annotated[Share | None, Key("change of the clip from step to step", _OFF_OR_SHARE)] = 0.1
    span_dominates: Annotated[Share | None, Key("span term's share of the gradient", _OFF_OR_SHARE)] = 0.8
    repetition: Annotated[Share | None, Key("distinct token pairs / the references'", _OFF_OR_SHARE)] = 0.5
    length_drift: Annotated[
        Annotated[float, Field(gt=1, allow_inf_nan=False)] | None,
        Key("factor on the responses' first length", "null, or a number above 1"),
    ] = 2.0
    length_mismatch: Annotated[
        Annotated[float, Field(gt=1, allow_inf_nan=False)] | None,
        Key("factor on the references' length", "null, or a number above 1"),
    ] = 4.0
    teacher_no_better: Annotated[
        Annotated[float, Field(allow_inf_nan=False)] | None,
        Key("least lead of the teacher, nats a token", "null, or a number"),
    ] = 0.0
    stale_replay: Annotated[
        Positive | None, Key("mean age of replayed rows, in steps", "null, or a number above 0")
    ] = 200.0
    counts_nothing: Annotated[Count | None, Key("steps in which a term counts nothing", "null, or " + _WHOLE)] = 20


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrackSection:
    """Where a run's metrics go beside its own files. `none`: nowhere."""

    kind: Annotated[Literal["none", "tensorboard", "wandb", "trackio"], Key("who else gets the metrics")] = "none"
    project: Annotated[Name | None, Key("of wandb or trackio; null = limbeck", "null, or the name of a project")] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CacheSection:
    """What is kept of the teacher's work, so that it is not done twice (docs/teacher-cache.md)."""

    kind: Annotated[
        Literal["off", "memory", "disk", "offline"],
        Key("where the teacher's hidden states of rows that come again are"),
    ] = "off"
    max_gb: Annotated[Positive, Key("the most that is kept, in 10^9 bytes a process", "a number above 0")] = 4.0
    path: Annotated[Name | None, Key("folder of an offline cache", "a folder, or null")] = None


THRESHOLDS = tuple(each.name for each in dataclasses.fields(WatchSection) if each.name not in ("every", "rows"))
"""The keys of `watch` that say when a failure signature shows."""

SECTIONS = {
    "models": ModelsSection,
    "data": DataSection,
    "sampling": SamplingSection,
    "train": TrainSection,
    "cache": CacheSection,
    "validate": ValidateSection,
    "watch": WatchSection,
    "track": TrackSection,
}


def keys_of(section: type) -> dict[str, Key]:
    """The keys of a section in order, with what each may be.

    >>> keys_of(WatchSection)["every"].allowed
    'a whole number of at least 1'
    """
    found: dict[str, Key] = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        parts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        key = next((part for part in parts[1:] if isinstance(part, Key)), Key(""))
        found[name] = Key(key.meaning, key.allowed or _allowed(parts[0]), is_choice=get_origin(parts[0]) is Literal)
    return found


def section_inside(section: type, name: str) -> type | None:
    """The section that a key holds, alone, optionally or in a list; None where it holds plain values."""
    return _dataclass_in(get_type_hints(section, include_extras=True).get(name))


def _dataclass_in(hint: object) -> type | None:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    return next((found for part in get_args(hint) if (found := _dataclass_in(part)) is not None), None)


def _allowed(hint: object) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(str(choice) for choice in get_args(hint))
    return "true or false" if hint is bool else "text"
