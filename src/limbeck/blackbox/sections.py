"""The sections of an UNDO recipe: every key with its default, its meaning and what it may be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.blackbox.endpoints import Budget
from limbeck.config.sections import Attention, Count, Decay, Key, LoraSection, Name, NotNegative, Positive

_STRICT = ConfigDict(extra="forbid")
_WHOLE = "a whole number of at least 1"
_NOT_NEGATIVE = "a whole number of at least 0"

Whole = Annotated[int, Field(ge=0)]
Part = Annotated[float, Field(ge=0, le=1)]

Scope = Literal["all", "wrong", "wrong_or_unstable", "sample", "none"]
Shown = Literal["validation", "instance", "validation+instance", "summary", "hybrid", "none"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TaskSection:
    """The questions. They come from a named task, from generated arithmetic, or from files of JSON lines."""

    name: Annotated[Name | None, Key("a named task, or arithmetic", "null, or the name of a task")] = None
    root: Annotated[Name | None, Key("folder of the named tasks", "a folder, or null")] = None
    file: Annotated[Name | None, Key("questions of your own: .jsonl", "a file, or null")] = None
    test_file: Annotated[Name | None, Key("its test questions; null = cut from file", "a file, or null")] = None
    train: Annotated[Count | None, Key("questions that are learned from; null = all", "null, or " + _WHOLE)] = None
    probe: Annotated[Count, Key("questions whose attempts every prompt shows", _WHOLE)] = 20
    stop: Annotated[
        Literal["auto"] | Count,
        Key("questions that choose the round; auto = a tenth, at most 500", "auto, or " + _WHOLE),
    ] = "auto"
    test: Annotated[Count | None, Key("questions that are only reported; null = all", "null, or " + _WHOLE)] = None
    ood: Annotated[tuple[Name, ...], Key("tasks whose loss ends the loop", "a list of tasks")] = ()
    ood_rows: Annotated[Count, Key("questions of each of them", _WHOLE)] = 200
    probe_policy: Annotated[Literal["fixed", "resample", "stratified_errors"], Key("which questions are shown")] = (
        "fixed"
    )
    steps: Annotated[tuple[Count, ...], Key("arithmetic: operations of a question, in turn", "a list of numbers")] = (
        2,
        3,
        4,
    )
    largest: Annotated[int, Field(ge=20), Key("arithmetic: largest number", "a whole number of at least 20")] = 400
    seed: Annotated[Whole, Key("cuts the splits", _NOT_NEGATIVE)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScratchSection:
    """A student of a few hundred thousand random weights, for runs without any download.

    Its tokenizer is learned from the questions and the teacher's first rationales; every digit is a token of its own.
    """

    vocabulary: Annotated[Count, Key("tokens; at least 300", _WHOLE)] = 512
    width: Annotated[Count, Key("hidden size, a multiple of heads", _WHOLE)] = 128
    layers: Annotated[Count, Key("layers", _WHOLE)] = 4
    heads: Annotated[Count, Key("attention heads", _WHOLE)] = 4
    positions: Annotated[Count, Key("longest row, in tokens", _WHOLE)] = 512
    seed: Annotated[Whole, Key("of its weights", _NOT_NEGATIVE)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StudentSection:
    """The student: a model, or one that is made here; and how it answers."""

    model: Annotated[Name | None, Key("hub id, folder or packaged name", "a model, or null with scratch")] = None
    scratch: Annotated[ScratchSection | None, Key("a small random model instead", "null, or {width, layers, …}")] = None
    device: Annotated[Name, Key("where it is", "auto, cpu, cuda, cuda:N or mps")] = "auto"
    attention: Annotated[Attention, Key("attention code")] = "auto"
    lora: Annotated[LoraSection | None, Key("null = train all weights", "null, or {rank, alpha, …}")] = None
    template: Annotated[
        Literal["auto", "chat", "paper", "plain"], Key("auto = the tokenizer's chat template, else paper")
    ] = "auto"
    max_prompt: Annotated[Count, Key("longest question, in tokens; longer ones are left out", _WHOLE)] = 256
    max_new_tokens: Annotated[Count, Key("longest answer and rationale, in tokens", _WHOLE)] = 256
    temperature: Annotated[NotNegative, Key("of its attempts; 0 = greedy", "a number of at least 0")] = 0.0
    samples: Annotated[Count, Key("attempts at a training question", _WHOLE)] = 1
    answer_rows: Annotated[Count, Key("answers drawn at once", _WHOLE)] = 32


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MethodSection:
    """The loop. A preset `base` says what null leaves open."""

    base: Annotated[Name, Key("the loop: undo-v1, adaptdistill, one-shot", "the name of a preset")] = "undo-v1"
    rounds: Annotated[Whole | None, Key("rewriting rounds; null = the preset's", "null, or " + _NOT_NEGATIVE)] = None
    scope: Annotated[
        Scope | None, Key("which questions are rewritten", "null, all, wrong, wrong_or_unstable, sample or none")
    ] = None
    scope_share: Annotated[Part, Key("share of the questions under scope: sample", "a number from 0 to 1")] = 0.5
    feedback: Annotated[
        Shown | None,
        Key("what the teacher sees", "null, validation, instance, validation+instance, summary, hybrid or none"),
    ] = None
    history: Annotated[Literal["last", "all", "window"], Key("which of the earlier attempts")] = "window"
    history_tokens: Annotated[Count, Key("size of that window", _WHOLE)] = 1024
    gold_visible: Annotated[Literal["never", "on_retry", "always"], Key("whether the teacher sees the answer")] = (
        "never"
    )
    hints: Annotated[Literal["off", "answer", "answer+solution"], Key("after the retries: what is shown")] = "off"
    candidates: Annotated[Count, Key("rationales asked for at once", _WHOLE)] = 1
    candidate: Annotated[
        Literal["first_correct", "shortest_correct", "student_likelihood"],
        Key("which is taken; student_likelihood: the one that the last round's student finds likeliest"),
    ] = "first_correct"
    retries: Annotated[Whole, Key("further tries after a rejected one", _NOT_NEGATIVE)] = 2
    policy: Annotated[
        Literal["replace", "accumulate", "best_version"] | None,
        Key("what earlier rounds leave in the data", "null, replace, accumulate or best_version"),
    ] = None
    carry: Annotated[
        Literal["none", "previous_accepted"] | None,
        Key("a question without an accepted rewriting", "null, none or previous_accepted"),
    ] = None
    student_correct: Annotated[
        Part | None, Key("largest share of the student's own right answers", "null, or a number from 0 to 1")
    ] = None
    restart: Annotated[
        Literal["base", "continue"] | None, Key("what a round's training starts from", "null, base or continue")
    ] = None
    length_factor: Annotated[
        Positive | None, Key("longest rewriting, times the previous median", "null, or a number above 0")
    ] = 1.5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TokenMatchSection:
    """Token-level distillation from a local teacher on the rationales, beside the cross-entropy."""

    teacher: Annotated[Name, Key("a local model with the student's vocabulary", "a model's name or folder")]
    weight: Annotated[Positive, Key("of the divergence; the cross-entropy has 1", "a number above 0")] = 1.0
    divergence: Annotated[Name, Key("what is matched", "the name of a divergence")] = "forward-kl"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainingSection:
    """How the student learns in a round. Every round of every arm learns from the same number of tokens."""

    epochs: Annotated[
        Positive, Key("passes over the first round's rows: the tokens of every round", "a number above 0")
    ] = 1.0
    batch_rows: Annotated[Count, Key("rows a step", _WHOLE)] = 16
    micro_rows: Annotated[Literal["auto"] | Count, Key("rows at once", "auto, or " + _WHOLE)] = "auto"
    learning_rate: Annotated[Positive, Key("highest learning rate", "a number above 0")] = 2e-5
    schedule: Annotated[Literal["cosine", "constant", "linear"], Key("after the warm-up")] = "cosine"
    warmup: Annotated[
        Whole | Decay, Key("steps, or a fraction of a round", _NOT_NEGATIVE + ", or a fraction below 1")
    ] = 0.03
    weight_decay: Annotated[NotNegative, Key("AdamW's decay", "a number of at least 0")] = 0.01
    clip_norm: Annotated[Positive | None, Key("gradient norm limit; null = off", "null, or a number above 0")] = 1.0
    precision: Annotated[Literal["auto", "fp32", "bf16-mixed", "bf16"], Key("weights and computation")] = "auto"
    token_match: Annotated[TokenMatchSection | None, Key("null = cross-entropy alone", "null, or {teacher, …}")] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StopSection:
    """What ends the loop before its last round; the best round is kept whatever ends it."""

    patience: Annotated[Count, Key("rounds without a gain", _WHOLE)] = 1
    min_gain: Annotated[
        NotNegative, Key("smallest gain, in points; one standard error at least", "a number of at least 0")
    ] = 0.5
    ood_errors: Annotated[Positive, Key("loss on an ood task, in standard errors", "a number above 0")] = 2.0
    min_accepted: Annotated[Part, Key("smallest share of accepted rationales", "a number from 0 to 1")] = 0.2


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BudgetSection:
    """What the teacher's calls of the whole run may come to, all arms together; minutes are the loop's own."""

    calls: Annotated[Whole | None, Key("calls", "null, or " + _NOT_NEGATIVE)] = None
    tokens: Annotated[Whole | None, Key("tokens of prompts and answers", "null, or " + _NOT_NEGATIVE)] = None
    money: Annotated[NotNegative | None, Key("in the price list's money", "null, or a number of at least 0")] = None
    minutes: Annotated[Positive | None, Key("of one start of the command", "null, or a number above 0")] = None

    def of_calls(self) -> Budget:
        """The limits that a teacher keeps to."""
        return Budget(calls=self.calls, tokens=self.tokens, money=self.money)


SECTIONS: dict[str, type[Any]] = {
    "task": TaskSection,
    "student": StudentSection,
    "method": MethodSection,
    "train": TrainingSection,
    "stop": StopSection,
    "budget": BudgetSection,
}
