"""The teacher cache of a run: opened from the recipe, kept in step with the source, and part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from limbeck.config import Recipe
from limbeck.errors import CheckpointError, ConfigError
from limbeck.methods import Method
from limbeck.models.scoring import Scorer
from limbeck.models.state_stores import FileStore, MemoryStore, StateStore
from limbeck.models.teacher_cache import TeacherCache
from limbeck.sequences.building import Holding
from limbeck.training.progress import Progress
from limbeck.training.rows import Rows
from limbeck.training.world import World

FOLDER = "teacher_cache"


def open_cache(
    recipe: Recipe, method: Method, *, teacher: Scorer | None, rows: Rows, world: World
) -> tuple[TeacherCache | None, list[str]]:
    """The cache that the recipe asks for, and a line to print at the start. Each rank has its own, of its own rows.

    Raises `ConfigError` for a teacher whose logits are not its head applied to hidden states.
    """
    section = recipe.cache
    if teacher is None or section.kind not in ("memory", "disk"):
        return None, []
    weight = teacher.head.weight
    if weight is None:
        raise ConfigError(
            f"cache.kind is {section.kind}, but the teacher's logits are not its head applied to its hidden states, so "
            "that only whole distributions could be kept.\n  Set cache.kind to off, or build a topk cache: limbeck "
            "cache build RECIPE --out DIR --kind topk"
        )
    # Under autocast hidden states are of the products' dtype, whatever the weights are held in.
    width, dtype = int(weight.shape[1]), teacher.autocast or next(teacher.model.parameters()).dtype
    store: StateStore = MemoryStore()
    if section.kind == "disk":
        store = FileStore(Path(recipe.run) / FOLDER / f"rank-{world.rank}.bin", width=width, dtype=dtype)
    cache = TeacherCache(
        teacher,
        store=store,
        most_bytes=int(section.max_gb * 1e9),
        keeps_passing=isinstance(method.sequences, Holding),
        note=Progress(steps=1, is_main=world.is_main).note,
    )
    tokens = rows.scored_tokens()
    needed = tokens * width * torch.empty(0, dtype=dtype).element_size() / 1e9
    kept = min(1.0, section.max_gb / needed) if needed else 1.0
    line = f"teacher cache: {section.kind}, at most {section.max_gb:g} GB; {tokens:,} response tokens of fixed rows "
    line += f"need {needed:.3g} GB" + ("" if kept == 1 else f", about {kept:.0%} fit, the rest is computed each time")
    return cache, [line if world.size == 1 else f"{line}; each process keeps the rows that it has read itself"]


def cache_state(cache: TeacherCache | None, world: World) -> dict[str, Any]:
    """What a checkpoint holds of the caches of all ranks, by rank; every rank must call it."""
    if cache is None:
        return {}
    states = world.gather([cache.state()])
    return {"teacher_cache": {str(rank): state for rank, state in enumerate(states)}}


def restore_cache(cache: TeacherCache | None, state: Mapping[str, Any], world: World) -> None:
    """The inverse of `cache_state`, from a whole checkpoint's state."""
    if cache is None:
        return
    own = state.get("teacher_cache", {}).get(str(world.rank))
    if own is None:
        raise CheckpointError("the checkpoint was written without a teacher cache; set cache.kind as it was then")
    cache.restore(own)


def let_go(cache: TeacherCache | None, source: object) -> None:
    """Forget the rows that the source does not give again any more."""
    if cache is not None and isinstance(source, Holding):
        cache.keep_only(source.held())
