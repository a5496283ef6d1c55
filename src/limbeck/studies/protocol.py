"""The protocol `small`: what the built-in studies train and are scored on, so that a laptop can repeat them.

SmolLM2-135M-Instruct, fine-tuned once on Dolly, teaches its own 15 measured layers after one warm start that all arms
share: 32 steps of 16 rows, prompts of at most 128 tokens, rows of 192, 48 new tokens, matrix products and the teacher's
weights in bfloat16; 64 fixed prompts of each test set, three decoding seeds. It is a small thing: what does not show
here may show in a larger one, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from limbeck.studies.definition import ScoredCorpus, Scoring, Stage

TEACHER = "smollm2-135m-instruct"
STEPS, BATCH_ROWS, NEW_TOKENS = 32, 16, 48
METHODS_STEPS = 100
TRAIN_SEEDS, DECODING_SEEDS = (0, 1, 2), (10, 20, 30)
MAX_PROMPT, MAX_LENGTH = 128, 192
_ANSWERS_AT_A_TIME = 64
LAYERS = 15
FIVE = ("dolly", "self-instruct", "vicuna", "sni", "unnatural")
GSM8K_COLUMNS = {"prompt": "question", "completion": "rationale"}
_TEACHER_STEPS, _WARM_STEPS = 96, 48
_TEACHER_RATE, _WARM_RATE, _RATE = 5e-5, 5e-4, 3e-4
_SPLITS = {"dolly-valid": ("dolly", "valid"), **{name: (name, "test") for name in FIVE}}
_SEED_OF_STAGES = 100


@cache
def small_ids() -> Mapping[str, tuple[str, ...]]:
    """Corpus → the ids of its 64 fixed prompts, drawn once from all of them."""
    text = resources.files("limbeck.studies").joinpath("small_ids.json").read_text(encoding="utf-8")
    return {name: tuple(ids) for name, ids in json.loads(text).items()}


def scored(name: str) -> ScoredCorpus:
    """A test set with its fixed prompts."""
    if name == "gsm8k":
        return ScoredCorpus(name=name, corpus="@data/gsm8k/test.jsonl", columns=GSM8K_COLUMNS, ids=small_ids()["gsm8k"])
    corpus, split = _SPLITS[name]
    return ScoredCorpus(name=name, corpus=corpus, split=split, ids=small_ids()[name])


def small_scoring(names: tuple[str, ...] = tuple(_SPLITS)) -> Scoring:
    """What every arm answers: the same rows everywhere, so that an arm of several tables is scored once."""
    return Scoring(
        corpora=tuple(scored(name) for name in names),
        seeds=DECODING_SEEDS,
        max_new_tokens=NEW_TOKENS,
        max_prompt=MAX_PROMPT,
        batch_rows=_ANSWERS_AT_A_TIME,
    )


def data(**changes: Any) -> dict[str, Any]:
    """The rows that are learned from."""
    return {
        "corpus": "dolly",
        "max_prompt": MAX_PROMPT,
        "max_length": MAX_LENGTH,
        "long_prompt": "cut",
        **changes,
    }


def small_recipe() -> dict[str, Any]:
    """The settings that all arms share."""
    return {
        "method": {"base": "mgsr"},
        "models": {"teacher": "@teacher", "student": "@start", "teacher_dtype": "bf16"},
        "data": data(),
        "sampling": {"max_new_tokens": NEW_TOKENS},
        "train": {"steps": STEPS, "batch_rows": BATCH_ROWS, "learning_rate": _RATE, "precision": "bf16-mixed"},
        # Once, at the end: the last step is what is scored. DistiLLM's schedule looks at them at steps of its own.
        "validate": {"every": STEPS, "rows": 64, "metric": "loss"},
        "watch": {"rows": 0},
    }


def methods_recipe() -> dict[str, Any]:
    """The settings of the study `methods`: 100 steps, on rows short enough that a laptop core takes them."""
    recipe = small_recipe()
    recipe["data"] = data(max_prompt=64, max_length=64 + NEW_TOKENS, long_prompt="drop")
    recipe["train"] = {**recipe["train"], "steps": METHODS_STEPS}
    recipe["validate"] = {**recipe["validate"], "every": METHODS_STEPS}
    return recipe


def small_stages(*layers: int) -> tuple[Stage, ...]:
    """The tuned teacher, and a warm start of 15 layers named "start", or of each other number named "start-N"."""
    teacher = _tuned({"student": TEACHER}, steps=_TEACHER_STEPS, rate=_TEACHER_RATE)
    starts = [
        Stage(
            name=start_name(count),
            shrink={"model": TEACHER, "layers": count},
            recipe=_tuned({}, steps=_WARM_STEPS, rate=_WARM_RATE),
        )
        for count in layers or (LAYERS,)
    ]
    return (Stage(name="teacher", recipe=teacher), *starts)


def start_name(layers: int) -> str:
    """What a warm start of so many layers is called."""
    return "start" if layers == LAYERS else f"start-{layers}"


def _tuned(models: dict[str, Any], *, steps: int, rate: float) -> dict[str, Any]:
    return {
        "method": {"base": "sft"},
        "models": models,
        "data": data(),
        "train": {
            "steps": steps,
            "batch_rows": BATCH_ROWS,
            "learning_rate": rate,
            "seed": _SEED_OF_STAGES,
            "precision": "bf16-mixed",
        },
        "validate": {"every": None},
    }
