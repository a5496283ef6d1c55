"""From an arm to the recipe that is run and to the hash that names it.

The hash is of the resolved recipe without what cannot move a result on purpose: the run's folder, where the data lies,
devices, memory, checkpoints and logging. A file counts by its content, a stage by its own hash, anything else by name:
the hash is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.config.placing import PLACING
from limbeck.config.uses import matches_teacher, needs_teacher, student_draws
from limbeck.errors import ConfigError
from limbeck.files import file_hash
from limbeck.slots import own_code
from limbeck.studies.definition import Arm, Stage, Study

STAGE, DATA = "@", "@data/"
# Where a run is, what of the machine it takes, what it writes beside its result.
_MACHINE: dict[str, tuple[str, ...]] = {
    "models": ("device", "teacher_device", "teacher_offload", "attention", "gradient_checkpointing"),
    "data": ("root",),
    "train": ("micro_rows", "chunk", "strategy", "checkpoint_minutes", "deterministic"),
}
_WITHOUT_TEACHER = ("models.teacher", *(f"models.{key}" for key in PLACING), "watch.rows")
# Every arm asks for those of its teacher and start. Files do not change while a study runs.
_STAGE_KEYS: dict[tuple[str, str], str] = {}
_WITHOUT_DRAWING = ("sampling.temperature", "sampling.top_p", "sampling.top_k")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a study: an arm with a training seed, or a stage that is scored as it is (seed None).

    `recipe` still names stages and data with "@"; None where nothing is trained.
    """

    arm: str
    seed: int | None
    key: str
    recipe: Recipe | None
    stage: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.arm if self.seed is None else f"{self.arm}, seed {self.seed}"


def planned_runs(study: Study, *, only: tuple[str, ...] = ()) -> tuple[Planned, ...]:
    """Every run of a study, all arms of the first seed first; `only` keeps these arms. Raises `ConfigError`."""
    arms = [study.arm(name) for name in only] if only else list(study.arms)
    fixed = [
        Planned(arm=arm.name, seed=None, key=stage_key(study, study.stage(arm.stage)), recipe=None, stage=arm.stage)
        for arm in arms
        if arm.stage
    ]
    trained = []
    for seed in study.seeds:
        for arm in arms:
            if not arm.stage:
                recipe = arm_recipe(study, arm, seed=seed)
                trained.append(Planned(arm=arm.name, seed=seed, key=recipe_key(study, recipe), recipe=recipe))
    return (*fixed, *trained)


def arm_recipe(study: Study, arm: Arm, *, seed: int) -> Recipe:
    """The resolved recipe of an arm. Of the study's own settings those that this arm's method would not read are left
    out. Raises `ConfigError` with the arm's name."""
    changes = [f"{key}={json.dumps(value)}" for key, value in arm.changes.items()]
    changes += [] if "train.seed" in arm.changes else [f"train.seed={seed}"]
    shared = {**study.recipe, "run": "unused"}
    try:
        return Recipe.load(_readable(shared, arm), changes)
    except ConfigError as error:
        told = str(error).replace("set on the command line:", "set as")
        raise type(error)(f"{told}\n  in the arm '{arm.name}' of the study {study.name}") from error


def stage_recipe(study: Study, stage: Stage) -> Recipe:
    """The resolved recipe of a stage that is trained. Raises `ConfigError` with the stage's name."""
    assert stage.recipe is not None
    values = {**stage.recipe, "run": "unused"}
    if stage.shrink is not None:
        # The shrunk model is the student, whatever it is called on this machine.
        values["models"] = {**values.get("models", {}), "student": _shrunk(study, stage)}
    try:
        return Recipe.load(values)
    except ConfigError as error:
        raise type(error)(f"{error}\n  in the stage '{stage.name}' of the study {study.name}") from error


def stage_key(study: Study, stage: Stage) -> str:
    """The hash of what a stage builds."""
    stages = json.dumps([dataclasses.asdict(each) for each in study.stages], sort_keys=True)
    if (stages, stage.name) not in _STAGE_KEYS:
        _STAGE_KEYS[stages, stage.name] = _stage_key(study, stage)
    return _STAGE_KEYS[stages, stage.name]


def _stage_key(study: Study, stage: Stage) -> str:
    if stage.recipe is None:
        return _hash({"shrunk": _shrunk(study, stage)})
    return recipe_key(study, stage_recipe(study, stage))


def recipe_key(study: Study, recipe: Recipe) -> str:
    """The hash of a resolved recipe: 16 hexadecimal digits."""
    return _hash(identity_of(study, recipe))


def identity_of(study: Study, recipe: Recipe) -> dict[str, Any]:
    """The part of a resolved recipe that its hash is of, stages and files by their own hashes."""
    values = {name: value for name, value in recipe.values().items() if name not in ("run", "watch")}
    for section, keys in _MACHINE.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    models, data = values["models"], values["data"]
    for key in ("teacher", "student"):
        models[key] = _named(study, models[key])
    if isinstance(data["corpus"], list):
        data["corpus"] = [{**share, "corpus": _named(study, share["corpus"])} for share in data["corpus"]]
    else:
        data["corpus"] = _named(study, data["corpus"])
    data["valid"], data["plain_text"] = _named(study, data["valid"]), _named(study, data["plain_text"])
    code = own_code(values["method"])
    return {**values, "code": code} if code else values


def stages_of(study: Study, recipe: Recipe) -> tuple[Stage, ...]:
    """The stages that a recipe names, teacher first."""
    named = [name for name in (recipe.models.teacher, recipe.models.student) if name and name.startswith(STAGE)]
    return tuple(study.stage(name.removeprefix(STAGE)) for name in dict.fromkeys(named))


def _shrunk(study: Study, stage: Stage) -> str:
    assert stage.shrink is not None
    return f"{_named(study, stage.shrink['model'])} of {json.dumps(stage.shrink['layers'])} layers"


def _readable(shared: Mapping[str, Any], arm: Arm) -> dict[str, Any]:
    """The shared settings without those that the arm's method would not read; what the arm states itself stays."""
    from limbeck.config.reading import Draft, Override, overridden
    from limbeck.methods import from_config

    draft = Draft(values={"method": shared.get("method", {})})
    overrides = [Override.parse(f"{key}={json.dumps(value)}") for key, value in arm.changes.items()]
    for override in sorted(overrides, key=lambda each: each.path != ("method", "base")):
        if override.path[0] == "method":
            draft = overridden(draft, override)
    method = from_config(draft.values["method"], allow_import=True)
    unread = [] if needs_teacher(method) else list(_WITHOUT_TEACHER)
    unread += [] if matches_teacher(method) else ["watch.rows"]
    unread += [] if student_draws(method.sequences) else list(_WITHOUT_DRAWING)
    values = {name: dict(value) if isinstance(value, Mapping) else value for name, value in shared.items()}
    for dotted in unread:
        section, _, key = dotted.partition(".")
        values.get(section, {}).pop(key, None)
    return values


def _named(study: Study, text: Any) -> Any:
    if not isinstance(text, str) or text.startswith(DATA):
        return text
    if text.startswith(STAGE):
        return f"stage {stage_key(study, study.stage(text.removeprefix(STAGE)))}"
    path = Path(text).expanduser()
    if path.is_dir():
        return f"model {_model_hash(path)}"
    return f"file {file_hash(path)}" if path.is_file() else text


def weights_hash(folder: Path) -> str:
    """A hash of a model's weights and configuration: 16 hexadecimal digits, alike wherever the folder lies."""
    files = sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return _hash([[file.name, file_hash(file)] for file in files if file.is_file()])


def _model_hash(folder: Path) -> str:
    """A hash of all that a model's folder says, its tokenizer and chat template too: they decide what it reads."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix != ".md"]
    return _hash([[file.name, file_hash(file)] for file in files if not file.name.startswith(".")])


def scoring_key(study: Study) -> str:
    """The hash of what arms are scored on and how, and of the teacher that they are compared with: the recipe of an arm
    may have another one, or none. How many rows are decoded at a time is a matter of speed."""
    plain = dataclasses.asdict(study.scoring)
    del plain["batch_rows"]
    if plain["dtype"] == "auto":
        del plain["dtype"]
    plain["teacher"] = _named(study, study.recipe.get("models", {}).get("teacher"))
    for corpus in plain["corpora"]:
        corpus["corpus"] = _named(study, corpus["corpus"])
    return _hash(plain)[:8]


def _hash(plain: Any) -> str:
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
