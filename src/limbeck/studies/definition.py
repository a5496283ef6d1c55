"""What a study is: arms × training seeds, what they start from, what they are scored on. No torch."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck.config.reading import Draft, read_recipe
from limbeck.errors import ConfigError, UnknownName
from limbeck.studies.checking import arm_changes, check_keys, named_corpora, one_of, recipe_sections, whole_numbers

KEEPS = ("rows", "students")
_NAME = re.compile(r"[A-Za-z0-9][\w+.=:,@ -]*")
_KEYS = ("title", "recipe", "stages", "arms", "grid", "seeds", "evaluate", "baseline", "controls", "keep")
_EVALUATE_KEYS = ("corpora", "rows", "seeds", "decoding", "max_new_tokens", "max_prompt", "batch_rows", "dtype")
_STAGE_KEYS = ("recipe", "shrink")
# With nothing below them they are as if they were not written.
_SECTIONS = ("stages", "arms", "grid")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one row of a table trains: the study's recipe with these dotted keys changed; or a stage, as it is."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    stage: str = ""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.title or self.name


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model that arms start from or learn from, named "@NAME" in recipes: a shrunk model, then a recipe, or one of
    both. It is built once, and again from here where it is not there any more."""

    name: str
    recipe: Mapping[str, Any] | None = None
    shrink: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredCorpus:
    """Rows that every arm answers: `ids`, where given, or else the first `rows` by seed, or all."""

    name: str
    corpus: str
    split: str = "test"
    columns: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] | None = None
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What every arm is scored on, and how it answers: `batch_rows` at a time, which is a matter of speed."""

    corpora: tuple[ScoredCorpus, ...]
    seeds: tuple[int, ...] = (10, 20, 30)
    decoding: str = "plain"
    max_new_tokens: int = 256
    max_prompt: int = 256
    batch_rows: int = 16
    dtype: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table and how it is made. `corpora`: those of the scored ones that it shows; empty = all.

    `average`: those that its average is over; empty = all that are shown.
    """

    name: str
    arms: tuple[Arm, ...]
    recipe: Mapping[str, Any]
    scoring: Scoring
    title: str = ""
    stages: tuple[Stage, ...] = ()
    seeds: tuple[int, ...] = (0,)
    baseline: str = ""
    controls: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    average: tuple[str, ...] = ()
    keep: str = "rows"

    def arm(self, name: str) -> Arm:
        """The arm of this name. Raises `UnknownName`."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UnknownName.among(f"arm of the study {self.name}", name, [arm.name for arm in self.arms])

    def named(self, text: str) -> tuple[str, ...]:
        """The names of arms in a text with commas between; a name may hold commas. Raises `UnknownName`."""
        parts, names, found = text.split(","), {arm.name for arm in self.arms}, list[str]()
        while parts:
            ends = [end for end in range(len(parts), 0, -1) if ",".join(parts[:end]).strip() in names]
            found.append(self.arm(",".join(parts[: ends[0] if ends else 1]).strip()).name)
            parts = parts[ends[0] :]
        return tuple(found)

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises `UnknownName`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UnknownName.among(f"stage of the study {self.name}", name, [stage.name for stage in self.stages])


def study_name(path: Path) -> str:
    """What the study of a file is called; its rows are listed by it. Raises `ConfigError` for a built-in one's name."""
    from limbeck.studies.builtin import INJECTED_ERRORS, STUDIES

    built_in = (*STUDIES, INJECTED_ERRORS)
    if path.stem in built_in:
        raise ConfigError(
            f"{path}: a built-in study is called '{path.stem}', whose list of rows and verdicts this one would take; "
            f"rename the file\n  names that are taken: {', '.join(sorted(built_in))}"
        )
    return path.stem


def read_study(path: Path) -> Study:
    """The study of a YAML file (docs/studies.md). Raises `ConfigError` with the line of what is wrong."""
    name = study_name(path)
    draft = read_recipe(path)
    values = {key: {} if value is None and key in _SECTIONS else value for key, value in draft.values.items()}
    check_keys(values, _KEYS, "key of a study", (), draft)
    if "recipe" not in values or "evaluate" not in values or not ({"arms", "grid"} & set(values)):
        missing = [key for key in ("recipe", "evaluate") if key not in values] or ["arms, or grid,"]
        raise ConfigError(
            f"{path} has no {missing[0]}; a study needs recipe, evaluate, and arms or grid\n"
            "  an example of ten lines is in docs/studies.md"
        )
    arms = _arms(values, draft)
    names = [arm.name for arm in arms]
    baseline = str(values.get("baseline") or names[0])
    if baseline not in names:
        raise UnknownName.among("arm", baseline, names, draft.where(("baseline",)).removeprefix("set at "))
    recipe = recipe_sections(values["recipe"], draft, ("recipe",))
    stated = whole_numbers([recipe.get("train", {}).get("seed", 0)], draft, ("recipe", "train", "seed"))
    study = Study(
        name=name,
        # It stands in a line of its own: behind "% " in LaTeX, behind "## " in Markdown.
        title=" ".join(str(values.get("title") or name).split()),
        arms=arms,
        recipe=recipe,
        stages=_stages(values.get("stages", {}), draft),
        seeds=whole_numbers(values["seeds"], draft, ("seeds",)) if "seeds" in values else stated,
        scoring=_scoring(values["evaluate"], draft),
        baseline=baseline,
        keep=one_of(values.get("keep", "rows"), KEEPS, draft, ("keep",)),
    )
    wants = values.get("controls", True)
    if not isinstance(wants, bool):
        raise ConfigError(f"controls is {wants!r}; allowed: true, false\n  {draft.where(('controls',))}")
    from limbeck.studies.controls import with_controls

    return with_controls(study) if wants else study


def grid_arms(grid: Mapping[str, Sequence[Any]]) -> tuple[Arm, ...]:
    """Every combination of the values, the last key fastest, named by the last parts of its keys.

    >>> [arm.name for arm in grid_arms({"train.learning_rate": [1e-4, 5e-4], "method.base": ["kd"]})]
    ['learning_rate=0.0001,base=kd', 'learning_rate=0.0005,base=kd']
    """
    arms = []
    for combination in itertools.product(*grid.values()):
        changes = dict(zip(grid, combination, strict=True))
        parts = [f"{_short(key, grid)}={_shown(value)}" for key, value in changes.items()]
        arms.append(Arm(name=",".join(parts), changes=changes))
    return tuple(arms)


def _short(key: str, keys: Mapping[str, Any]) -> str:
    """The last part of a dotted key; all of it where another key ends alike."""
    last = key.rpartition(".")[2]
    return key if sum(each.rpartition(".")[2] == last for each in keys) > 1 else last


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w+.=:@-]+", "-", text).strip("-")


def _arms(values: Mapping[str, Any], draft: Draft) -> tuple[Arm, ...]:
    arms: list[Arm] = []
    written = values.get("arms", {})
    if not isinstance(written, Mapping):
        raise ConfigError(f"arms is {written!r}; write NAME: {{key: value}}\n  {draft.where(('arms',))}")
    for name, changes in written.items():
        where = ("arms", name)
        own = dict(changes) if isinstance(changes, Mapping) else changes
        stage = str(own.pop("stage", "")) if isinstance(own, dict) else ""
        arms.append(Arm(name=_named(name, draft.where(where)), changes=arm_changes(own, draft, where), stage=stage))
    grid = values.get("grid", {})
    is_grid = isinstance(grid, Mapping) and all(isinstance(each, list) and each for each in grid.values())
    if not is_grid:
        raise ConfigError(f"grid is {grid!r}; write KEY: [value, value]\n  {draft.where(('grid',))}")
    for arm in grid_arms(grid) if grid else ():
        arms.append(replace(arm, changes=arm_changes(arm.changes, draft, ("grid",))))
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), "")
        what = f"two arms are called '{twice}'" if twice else "there is no arm"
        raise ConfigError(f"{what}; name each arm once\n  {draft.where(('arms' if 'arms' in values else 'grid',))}")
    return tuple(arms)


def _named(name: object, where: str) -> str:
    text = str(name)
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"'{text}' cannot name an arm or a stage; write letters, digits, spaces and _ + . = : , @ -, and begin "
            f"with a letter from A to Z or a digit\n  {where}"
        )
    return text


def _stages(value: Any, draft: Draft) -> tuple[Stage, ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"stages is {value!r}; write NAME: {{recipe: …}}\n  {draft.where(('stages',))}")
    found = []
    for name, parts in value.items():
        where = ("stages", str(name))
        if not isinstance(parts, Mapping) or not parts:
            raise ConfigError(
                f"the stage '{name}' is {parts!r}; give it a recipe, a shrink or both\n  {draft.where(where)}"
            )
        check_keys(parts, _STAGE_KEYS, "key of a stage", where, draft)
        recipe = recipe_sections(parts["recipe"], draft, (*where, "recipe")) if "recipe" in parts else None
        shrink = parts.get("shrink")
        if shrink is not None:
            is_whole = isinstance(shrink, Mapping) and set(shrink) == {"model", "layers"}
            if not is_whole:
                raise ConfigError(f"shrink is {shrink!r}; write {{model: NAME, layers: 12}}\n  {draft.where(where)}")
        found.append(Stage(name=_named(name, draft.where(where)), recipe=recipe, shrink=shrink))
    return tuple(found)


def _scoring(value: Any, draft: Draft) -> Scoring:
    where = ("evaluate",)
    if not isinstance(value, Mapping):
        raise ConfigError(f"evaluate is {value!r}; write {{corpora: [NAME or FILE], rows: 64}}\n  {draft.where(where)}")
    check_keys(value, _EVALUATE_KEYS, "key of evaluate", where, draft)
    corpora = named_corpora(value.get("corpora"), draft, (*where, "corpora"))
    rows = value.get("rows")
    if rows is not None:
        (rows,) = whole_numbers([rows], draft, (*where, "rows"), least=1)
    sizes = {
        key: whole_numbers([value[key]], draft, (*where, key), least=1)[0]
        for key in ("max_new_tokens", "max_prompt", "batch_rows")
        if key in value
    }
    return Scoring(
        corpora=tuple(ScoredCorpus(name=name, corpus=each, rows=rows) for name, each in corpora.items()),
        seeds=whole_numbers(value.get("seeds", [10, 20, 30]), draft, (*where, "seeds")),
        decoding=one_of(value.get("decoding", "plain"), ("plain", "paper", "greedy"), draft, (*where, "decoding")),
        dtype=one_of(value.get("dtype", "auto"), ("auto", "float32", "bfloat16"), draft, (*where, "dtype")),
        **sizes,
    )
