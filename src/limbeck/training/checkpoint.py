"""Checkpoints that a killed run goes on from, bit for bit: safetensors and JSON, no pickle.

A checkpoint is written into a sibling folder, flushed to disk, renamed, and only then named in `latest`. Whatever
moment the process dies at, `latest` names a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
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

FORMAT = 2
_BLOCK = 1 << 24
_LATEST = "latest"
_WEIGHTS, _OPTIMIZER, _STATE, _RECIPE = "trainable.safetensors", "optimizer.safetensors", "state.json", "recipe.yaml"
_SOURCE = "source.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was read back: tensors by name, and the state of everything else; its folder holds `recipe.yaml`.

    Tensors that the state held are where they were.
    """

    path: Path
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
        # The fused kernel counts its steps where the parameter is, the others on the CPU.
        counter = parameter.device if optimizer.defaults["fused"] else torch.device("cpu")
        optimizer.state[parameter] = {
            # A copy: the file's own memory goes away with the file.
            key: value.clone().to(counter) if value.dim() == 0 else placed_like(value, parameter).clone()
            for key, value in state.items()
        }


def write(
    folder: Path,
    *,
    step: int,
    recipe: str,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Write `folder/step-NNNNNN` atomically, point `latest` at it, and remove all but the last two.

    `state` holds JSON values, and tensors in mappings of any depth, which get a file of their own. A step that `latest`
    names already is left as it is: replacing a folder would leave a moment without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step:06d}"
    target = folder / name
    if _named(folder) == target and target.is_dir():
        return target
    draft = folder / f".{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, draft / _WEIGHTS)
        save_file({key: value.contiguous() for key, value in optimizer.items()}, draft / _OPTIMIZER)
        (draft / _RECIPE).write_text(recipe, encoding="utf-8")
        plain, tensors = _apart(state)
        if tensors:
            save_file({key: value.contiguous() for key, value in tensors.items()}, draft / _SOURCE)
        parts = (_WEIGHTS, _OPTIMIZER, _RECIPE, *([_SOURCE] if tensors else []))
        sums = {part: _sum(draft / part) for part in parts}
        # Through JSON once, so that the sum is taken of what will be read back.
        body = json.loads(json.dumps({"format": FORMAT, "step": step, "sums": sums, "state": plain}))
        (draft / _STATE).write_text(json.dumps({"sum": _text_sum(body), **body}, indent=1), encoding="utf-8")
        for part in draft.iterdir():
            _flush(part)
        _flush(draft)
    except (OSError, SafetensorError):
        shutil.rmtree(draft, ignore_errors=True)
        raise
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
    for old in _steps(folder)[:-last]:
        shutil.rmtree(old, ignore_errors=True)


def tidy(folder: Path, *, after: int) -> None:
    """Remove what a kill left behind: half-written checkpoints, and those after the step that the run goes on from."""
    if not folder.is_dir():
        return
    for path in [*folder.glob(".step-*"), *(path for path in _steps(folder) if _step_of(path) > after)]:
        shutil.rmtree(path, ignore_errors=True)
    (folder / f".{_LATEST}.draft").unlink(missing_ok=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None if the run was stopped before its first. Raises `CheckpointError`.

    A checkpoint folder appears whole or not at all, so that without `latest` the newest folder is it.
    """
    path = _named(folder) or next(reversed(_steps(folder)), None)
    if path is None:
        return None
    older = ", ".join(each.name for each in _steps(folder) if each != path)
    way_out = f"\n  Write the name of another one ({older}) into {folder / _LATEST}, or start" if older else "\n  Start"
    way_out += " again in another directory: run=runs/NAME"
    if not path.is_dir():
        raise CheckpointError(f"{folder / _LATEST} names '{path.name}', which is no checkpoint there.{way_out}")
    try:
        body = json.loads((path / _STATE).read_text(encoding="utf-8"))
        expected = body.pop("sum")
        if body["format"] != FORMAT:
            raise CheckpointError(f"checkpoint {path} has format {body['format']}, this Limbeck reads {FORMAT}")
        sums = {_STATE: expected, **body["sums"]}
        found = {_STATE: _text_sum(body)} | {part: _sum(path / part) for part in body["sums"]}
        changed = [part for part in sums if sums[part] != found[part]]
        if changed:
            raise CheckpointError(
                f"checkpoint {path} is corrupt: {changed[0]} does not have the sum that was written with it.{way_out}"
            )
        tensors = load_file(path / _SOURCE) if _SOURCE in body["sums"] else {}
        return Checkpoint(
            path=path,
            weights=load_file(path / _WEIGHTS),
            optimizer=load_file(path / _OPTIMIZER),
            state=_together(body["state"], tensors),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"checkpoint {path} cannot be read: {type(error).__name__}: {error}{way_out}") from error


def _apart(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state without its tensors, and these by their path: "source/first/tokens"."""
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif isinstance(value, Mapping):
            plain[key], inner = _apart(value)
            tensors |= {f"{key}/{name}": tensor for name, tensor in inner.items()}
        else:
            plain[key] = value
    return plain, tensors


def _together(plain: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `_apart`."""
    for path, tensor in tensors.items():
        *folders, name = path.split("/")
        inside = plain
        for folder in folders:
            inside = inside[folder]
        inside[name] = tensor
    return plain


def _named(folder: Path) -> Path | None:
    """The checkpoint that `latest` names, whether it is there or not."""
    pointer = folder / _LATEST
    return folder / (pointer.read_text(errors="replace").strip() or "-") if pointer.is_file() else None


def _steps(folder: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdigit()), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _text_sum(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


def _sum(path: Path) -> str:
    """CRC-32: it tells damage, not forgery, and reads a gigabyte in a third of a second."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
