"""Writing a student as a plain Hugging Face folder that anyone can load without Limbeck."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from limbeck.errors import ModelError
from limbeck.files import read_json, scratch_beside
from limbeck.models.bars import without_bars
from limbeck.models.loading import has_lora, merged

_SETTINGS = "limbeck.json"


def save_student(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dropped_ids: Collection[int] = (),
    stop_ids: Collection[int] = (),
    pad_id: int | None = None,
    settings: Mapping[str, Any] | None = None,
    fingerprint: Callable[[PreTrainedModel], str] | None = None,
) -> Path:
    """Write model, tokenizer, chat template and generation_config; returns the folder.

    LoRA is merged into the weights, and the adapter itself lies beside them in `adapter/`, with the same
    generation_config. That lists `stop_ids` as end tokens (default: the tokenizer's EOS) and suppresses `dropped_ids`,
    which were never trained. `settings`, if given, go into limbeck.json: how rows became text in training
    (`training_settings` reads them); as its `weights` what `fingerprint`, if given, makes of the model that is written.
    The folder appears whole or not at all: it is written beside its place and renamed; a model folder that is already
    there is replaced. `AutoModelForCausalLM.from_pretrained(folder)` reads it. Raises `ModelError` if the place is
    taken by something else. Does not write in a smaller precision than the model has.
    """
    if folder.exists() and not _may_replace(folder):
        raise ModelError(f"'{folder}' exists and is not a model folder; choose another place or remove it")
    whole = merged(model)
    generation = _generation(model, tokenizer, dropped_ids=dropped_ids, stop_ids=stop_ids, pad_id=pad_id)
    with scratch_beside(folder) as scratch:
        made = scratch / "student"
        with without_bars():
            _write(whole, into=made, generation=generation)
            tokenizer.save_pretrained(made)
        told = {**(settings or {}), **({} if fingerprint is None else {"weights": fingerprint(whole)})}
        if told:
            (made / _SETTINGS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        if has_lora(model):
            with without_bars():
                _write(model, into=made / "adapter", generation=generation)
        for weights in made.rglob("*.safetensors"):
            # safetensors writes into a temporary file, which nobody but its owner may read, whatever the umask says.
            weights.chmod((made / "config.json").stat().st_mode)
        _sync(made)
        if folder.exists():
            folder.rename(scratch / "replaced")
        made.rename(folder)
    return folder


def training_settings(folder: str) -> dict[str, Any]:
    """What `save_student` was given as settings; empty for a model that Limbeck did not train."""
    path = Path(folder) / _SETTINGS
    return dict(read_json(path, error=ModelError)) if path.is_file() else {}


def _may_replace(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "config.json").is_file() or not any(folder.iterdir()))


def _generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dropped_ids: Collection[int],
    stop_ids: Collection[int],
    pad_id: int | None,
) -> GenerationConfig:
    ends = sorted(stop_ids) or [id for id in [tokenizer.eos_token_id] if id is not None]
    pad = pad_id if pad_id is not None else tokenizer.pad_token_id
    return GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None or not ends else ends[0],
        suppress_tokens=sorted(dropped_ids) or None,
    )


def _write(model: PreTrainedModel, *, into: Path, generation: GenerationConfig) -> None:
    own = model.generation_config
    model.generation_config = generation
    try:
        model.save_pretrained(into)
    finally:
        model.generation_config = own


def _sync(folder: Path) -> None:
    """Force the files to the disk, so that the rename is never seen before their contents."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
