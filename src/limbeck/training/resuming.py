"""Going on with a run: what may differ from the recipe that it was started with, and what must be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limbeck.config import Recipe, resumable_difference
from limbeck.errors import CheckpointError
from limbeck.files import alone_in
from limbeck.slots import own_code
from limbeck.training.rundir import RECIPE, Run, RunDirectory, environment
from limbeck.training.world import World


def recorded_settings(path: Path, settings: Recipe) -> dict[str, Any]:
    """What `auto` became in the run that these settings go on with.

    Raises `CheckpointError` if they may not, or while another process trains there.
    """
    if not (path / RECIPE).is_file():
        told = f"'{path}' is not the directory of a run: it has no {RECIPE}"
        raise CheckpointError(f"{told}\n  leave out --resume to start a run there")
    directory = RunDirectory.existing(path)
    with alone_in(path, shared=True):
        pass
    if Run(path).is_finished and not (path / "checkpoints").is_dir():
        raise CheckpointError(
            f"{path} is finished and its checkpoints were removed; nothing is left to go on from.\n"
            f"  Its student is in {directory.student}. To train it further, name it as the student of another run:\n"
            f"  models.student={directory.student} run=runs/NAME"
        )
    check_same(Recipe.recorded(path), settings, what=str(path))
    return directory.auto()


def check_same(old: Recipe, new: Recipe, *, what: str) -> None:
    """Raise `CheckpointError` if the recipes differ in more than length, validation and logging."""
    different = resumable_difference(old, new)
    if different:
        raise CheckpointError(
            f"{what} is the run of another recipe; it differs in:\n  "
            + "\n  ".join(different)
            + "\n  On resume only length, validation and logging may change. Take another directory: run=runs/NAME"
        )


def described_environment(world: World, recipe: Recipe) -> dict[str, Any]:
    """Versions and machine of this process, with its ranks and threads, and the code of the method's own parts."""
    found = environment(device=str(world.device), ranks=world.size, threads=torch.get_num_threads())
    if world.device.type == "cuda":
        found |= {"accelerator": torch.cuda.get_device_name(world.device), "cuda": torch.version.cuda}
    code = own_code(recipe.method)
    return {**found, "code": code} if code else found
