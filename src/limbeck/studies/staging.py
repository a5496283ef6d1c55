"""Building what arms start from and learn from: stages, each once, from its recipe where it is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.studies.definition import Stage, Study
from limbeck.studies.places import Places
from limbeck.studies.resolving import stage_key, stage_recipe, stages_of

Say = Callable[[str], None]


def build_stage(study: Study, stage: Stage, places: Places, *, say: Say = print) -> Path:
    """The folder of a stage's model, built from its recipe where it is not there."""
    key = stage_key(study, stage)
    folder = places.stage(key)
    with places.claimed(f"stage-{key}"):
        if stage.recipe is None:
            _shrink(study, stage, folder / "student", say=say)
            return folder / "student"
        recipe = stage_recipe(study, stage)
        for inner in stages_of(study, replace(recipe, models=_without_shrunk(recipe, stage))):
            build_stage(study, inner, places, say=say)
        if stage.shrink is not None:
            shrunk = places.stage(f"{key}-shrunk")
            _shrink(study, stage, shrunk, say=say)
            recipe = replace(recipe, models=_with_student(recipe, str(shrunk)))
        if not (folder / "recipe.yaml").is_file() or not _is_finished(folder):
            say(f"stage {stage.name} (run {key})")
        train_or_resume(places.local(study, recipe, run=folder)).drop_checkpoints()
    return folder / "student"


def is_built(study: Study, stage: Stage, places: Places) -> bool:
    """Whether a stage's model is there, trained to its end where it is trained."""
    folder = places.stage(stage_key(study, stage))
    is_there = (folder / "student" / "config.json").is_file()
    return is_there and (stage.recipe is None or _is_finished(folder))


def _shrink(study: Study, stage: Stage, folder: Path, *, say: Say) -> None:
    from limbeck.models.loading import load_model, load_tokenizer
    from limbeck.models.packaged import PACKAGED
    from limbeck.models.saving import save_student
    from limbeck.models.shrinking import measured_layers, shrink

    if (folder / "config.json").is_file():
        return
    assert stage.shrink is not None
    name, layers = str(stage.shrink["model"]), stage.shrink["layers"]
    say(f"stage {stage.name}: {name} cut to {layers} layers")
    kept = measured_layers(name, layers) if name in PACKAGED and isinstance(layers, int) else layers
    model = load_model(name, device="cpu")
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    stops = [ends] if isinstance(ends, int) else list(ends or ())
    save_student(shrink(model, layers=kept), load_tokenizer(name), folder, stop_ids=stops)


def _with_student(recipe: Recipe, student: str) -> Any:
    return replace(recipe.models, student=student)


def _without_shrunk(recipe: Recipe, stage: Stage) -> Any:
    return _with_student(recipe, "shrunk") if stage.shrink is not None else recipe.models


def _is_finished(folder: Path) -> bool:
    from limbeck.training.rundir import Run

    return Run(folder).is_finished


def train_or_resume(recipe: Recipe) -> Any:
    """Take a run, go on with it, or find it done."""
    from limbeck.training.loop import train
    from limbeck.training.rundir import Run

    folder = Path(recipe.run)
    run = Run(folder)
    has_begun = (folder / "recipe.yaml").is_file()
    # A shorter run's directory that was handed on is finished, and still has steps to take.
    is_done = has_begun and run.is_finished and Recipe.recorded(folder).train.steps == recipe.train.steps
    return run if is_done else train(recipe, resume=has_begun)


def build_teacher(study: Study, places: Places, *, say: Say) -> str | None:
    """The model that every arm is compared with: the study's teacher."""
    name = study.recipe.get("models", {}).get("teacher")
    if name is None:
        return None
    if str(name).startswith("@"):
        build_stage(study, study.stage(str(name)[1:]), places, say=say)
    return places.model(study, str(name))
