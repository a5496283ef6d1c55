"""What each `auto` of a recipe becomes at a run's first start, and what of it holds when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from limbeck.config import Recipe
from limbeck.data.loader import Loader
from limbeck.errors import CheckpointError, ConfigError
from limbeck.losses.heads import auto_chunk
from limbeck.models.pair import Pair
from limbeck.models.room import free_bytes
from limbeck.training.world import World

# Tokens that a micro-batch of `micro_rows: auto` may hold at the longest rows a recipe allows.
_CPU_TOKENS = 4096
_GPU_TOKENS = 16384
# AdamW's, of each number that is trained.
_MOMENTS = 2


def resolve_precision(recipe: Recipe, world: World) -> str:
    """`auto` is bf16 mixed precision on a GPU that computes in bf16, and fp32 elsewhere, where bf16 is slower."""
    if recipe.train.precision != "auto":
        return str(recipe.train.precision)
    fast = world.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if fast else "fp32"


def fitting_rows(max_length: int, device_type: str) -> int:
    """Rows of a micro-batch where `train.micro_rows` is auto, before `train.batch_rows` limits them.

    >>> fitting_rows(512, "cpu"), fitting_rows(512, "cuda")
    (8, 32)
    """
    return max(1, (_CPU_TOKENS if device_type == "cpu" else _GPU_TOKENS) // max_length)


def resolve_auto(
    recipe: Recipe,
    known: Mapping[str, Any],
    *,
    loader: Loader,
    pair: Pair,
    world: World,
    recorded: Mapping[str, Any],
    repeats: int,
) -> tuple[dict[str, Any], list[str]]:
    """Every `auto` as a value, and lines that say why. A recorded value holds; only the number of steps may grow on
    resume.

    `repeats` is how many steps learn from each row.
    """
    train = recipe.train
    if train.batch_rows % world.size:
        raise ConfigError(f"train.batch_rows is {train.batch_rows}, which {world.size} processes cannot share evenly")
    reads_others = getattr(getattr(recipe.built_method().token, "target", None), "reads_other_row", False)
    if reads_others and train.batch_rows // world.size < 2:
        message = f"train.batch_rows is {train.batch_rows}, one row a process, but method.token.target is other-row"
        raise ConfigError(f"{message}: no other row is there to teach it; raise train.batch_rows")
    per_epoch = -(-loader.rows_per_epoch * repeats // train.batch_rows)
    own_rows = train.batch_rows // world.size
    fitting = fitting_rows(recipe.data.max_length, world.device.type)
    chunk, lines = _chunk(train.chunk, pair=pair, world=world, recorded=recorded)
    fresh: dict[str, Any] = {
        **known,
        "attention": str(pair.student.config._attn_implementation),
        "chunk": chunk,
        "micro_rows": min(own_rows, fitting if train.micro_rows == "auto" else train.micro_rows),
        "steps_per_epoch": per_epoch,
        "ranks": world.size,
        "halvings": [],
    }
    resolved = {**fresh, **{key: value for key, value in recorded.items() if key in fresh}}
    resolved["steps"] = train.steps if train.steps is not None else train.epochs * per_epoch
    _check_recorded(resolved, fresh=fresh, steps=int(recorded.get("steps", 0)), recipe=recipe)
    return resolved, lines


def _chunk(asked: int | str, *, pair: Pair, world: World, recorded: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Tokens a chunk by the memory that is free at the first start, before gradients and moments are there."""
    if "chunk" in recorded:
        return int(recorded["chunk"]), []
    if asked != "auto":
        return int(asked), []
    width, kind = pair.vocabulary.width, world.device.type
    trained = sum(p.numel() * p.element_size() for p in pair.student.parameters() if p.requires_grad)
    room = max(0, free_bytes(world.device) - (1 + _MOMENTS) * trained)
    # One for all ranks: it is recorded once.
    chunk, least = min((auto_chunk(width, kind, room=own), own) for own in world.gather([room]))
    most = auto_chunk(width, kind)
    why = "as many as are ever taken" if chunk == most else f"not {most}, which would take more than a quarter of that"
    return chunk, [f"vocabulary layer: {chunk} tokens at a time; {least / 1e9:.3g} GB are free beside training: {why}"]


def _check_recorded(resolved: Mapping[str, Any], *, fresh: Mapping[str, Any], steps: int, recipe: Recipe) -> None:
    """A resumed run needs the ranks, rows, teacher, frozen weights and at least the length that it was started with."""
    if resolved["ranks"] != fresh["ranks"]:
        raise ConfigError(
            f"the run was started on {resolved['ranks']} processes and cannot go on with {fresh['ranks']}"
        )
    if resolved["rows"] != fresh["rows"]:
        raise CheckpointError(
            "the training rows are not those that the run was started with: the data, or how it is cut into training "
            "and validation, has changed.\n  Put the data back (and validate.every, if it was null), or start a new run"
        )
    if resolved["teacher"] != fresh["teacher"]:
        raise CheckpointError(
            f"the teacher in {recipe.cache.path or recipe.models.teacher} is not the one that the run was started with:"
            " what lies there was written anew.\n  Put it back, or start a new run"
        )
    if resolved["base"] != fresh["base"]:
        raise CheckpointError(
            f"the weights of {recipe.models.student} below LoRA are not those that the run was started with.\n"
            "  Put them back, or start a new run"
        )
    if resolved["steps"] < steps:
        raise CheckpointError(
            f"the run is {steps} steps long and cannot be shortened to {resolved['steps']}; give it at least as many.\n"
            "  Its folder holds its recipe with the length that it has now"
        )
