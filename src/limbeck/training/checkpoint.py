"""Checkpoints that a killed run goes on from, bit for bit: safetensors and JSON, no pickle.

A checkpoint is written into a sibling folder, flushed to disk, renamed, and only then named in `latest`. Whatever
moment the process dies at, `latest` names a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from limbeck.errors import CheckpointError
from limbeck.training.world import placed_like, whole

FORMAT = 1
_LATEST = "latest"
_WEIGHTS, _OPTIMIZER, _STATE = "trainable.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was read back: tensors by name, and the JSON state of everything else."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name, tied ones once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def collect(module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and optimizer state as whole CPU tensors; every rank must call it."""
    parameters = trainable(module)
    weights = {name: whole(parameter) for name, parameter in parameters.items()}
    moments: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            moments[f"{key}/{name}"] = whole(value)
    return weights, moments


def install(module: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's tensors where `collect` took them from. Raises `CheckpointError` if they do not fit."""
    parameters = trainable(module)
    if set(parameters) != set(checkpoint.weights):
        different = sorted(set(parameters) ^ set(checkpoint.weights))[:4]
        raise CheckpointError(
            f"the checkpoint is of another model: its parameters differ, for instance {', '.join(different)}"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            saved = checkpoint.weights[name]
            if saved.shape != parameter.shape:
                raise CheckpointError(
                    f"the checkpoint is of another model: {name} is {list(saved.shape)} there, "
                    f"{list(parameter.shape)} here"
                )
            parameter.copy_(placed_like(saved, parameter))
    by_name: dict[str, dict[str, Tensor]] = {}
    for full_name, value in checkpoint.optimizer.items():
        key, _, name = full_name.partition("/")
        by_name.setdefault(name, {})[key] = value
    for name, state in by_name.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: value if value.dim() == 0 else placed_like(value, parameter) for key, value in state.items()
        }


def write(
    folder: Path, *, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write `folder/step-NNNNNN` atomically, point `latest` at it, and remove all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step:06d}"
    draft = folder / f".{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, draft / _WEIGHTS)
        save_file({key: value.contiguous() for key, value in optimizer.items()}, draft / _OPTIMIZER)
        sums = {part: _sum(draft / part) for part in (_WEIGHTS, _OPTIMIZER)}
        text = json.dumps({"format": FORMAT, "step": step, "sums": sums, **state}, indent=1)
        (draft / _STATE).write_text(text)
        for part in draft.iterdir():
            _flush(part)
        _flush(draft)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    os.replace(draft, target)
    _flush(folder)
    pointer = folder / f".{_LATEST}.draft"
    pointer.write_text(name)
    _flush(pointer)
    os.replace(pointer, folder / _LATEST)
    _flush(folder)
    keep(folder, last=2)
    return target


def keep(folder: Path, *, last: int) -> None:
    """Remove all checkpoints but the `last` newest."""
    for old in sorted(folder.glob("step-*"))[:-last]:
        shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None if the run was stopped before its first. Raises `CheckpointError`."""
    pointer = folder / _LATEST
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text().strip()
    try:
        state = json.loads((path / _STATE).read_text())
        for part, expected in state["sums"].items():
            if _sum(path / part) != expected:
                raise CheckpointError(
                    f"checkpoint {path} is corrupt: {part} does not have the sum that was written with it.\n"
                    f"  Write the name of an older checkpoint in {folder} into {pointer}, or start again."
                )
        if state["format"] != FORMAT:
            raise CheckpointError(f"checkpoint {path} has format {state['format']}, this Limbeck reads {FORMAT}")
        return Checkpoint(weights=load_file(path / _WEIGHTS), optimizer=load_file(path / _OPTIMIZER), state=state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"checkpoint {path} cannot be read: {type(error).__name__}: {error}") from error


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
