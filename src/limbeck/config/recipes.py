"""The recipe: one frozen value that says everything a run does, except for the code."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from limbeck.config.checks import check_keys, check_text, draft_of, method_error, plain, value_error
from limbeck.config.reading import RECORDED, Draft, Override, overridden, read_recipe, to_yaml
from limbeck.config.sections import (
    CacheSection,
    DataSection,
    ModelsSection,
    SamplingSection,
    TrackSection,
    TrainSection,
    ValidateSection,
    WatchSection,
)
from limbeck.config.uses import check_uses
from limbeck.errors import ConfigError

LENGTHENING = (
    "train.epochs",
    "train.steps",
    "train.checkpoint_minutes",
    "train.stop_after",
    "validate.",
    "watch.",
    "track.",
)
"""What may change when a run goes on: keys, and sections with a dot at their end."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """A key whose value differs between two recipes; None where a recipe does not have the key."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """What a run does. Made by `Recipe.load`, which also refuses settings that nothing would read.

    `method` is the plain dictionary of a method with every part stated; `built_method()` makes it. `train.steps`, where
    given, decides how long the run is, else `train.epochs`. `data.corpus` is None only where Python code passes rows.
    """

    method: dict[str, Any]
    models: ModelsSection
    data: DataSection = Field(default_factory=DataSection)
    sampling: SamplingSection = Field(default_factory=SamplingSection)
    train: TrainSection = Field(default_factory=TrainSection)
    cache: CacheSection = Field(default_factory=CacheSection)
    validate: ValidateSection = Field(default_factory=ValidateSection)
    watch: WatchSection = Field(default_factory=WatchSection)
    track: TrackSection = Field(default_factory=TrackSection)
    run: Annotated[str, Field(min_length=1)]

    @classmethod
    def load(
        cls,
        source: Recipe | Mapping[str, Any] | Path | str,
        overrides: Sequence[str] = (),
        *,
        allow_import: bool = True,
    ) -> Recipe:
        """The recipe of a YAML file, a run's folder, a mapping or another recipe, with `section.key=value` on top.

        `run` defaults to runs/<name of the file, or of the method>; of a run's folder it is that folder; "~" before it
        is the home folder. A part of the method written "module:Class" is imported only with `allow_import`, and never
        from a run's own recipe. An override of `method.base` on a method of which every part is stated replaces the
        whole method. Raises `UnknownName` and `ConfigError`.
        """
        draft, name = _draft(source)
        for override in _base_first([Override.parse(text) for text in overrides]):
            if override.path == ("method", "base"):
                draft = _without_parts(draft, override.value)
            draft = overridden(draft, override)
        check_keys(draft)
        method, stated = _method(draft, allow_import=allow_import and not draft.is_recorded)
        run = name or str(stated["base"]).replace(":", "-")
        recipe = cls._validated({"run": f"runs/{run}", **draft.values, "method": stated}, draft)
        recipe = dataclasses.replace(recipe, run=os.path.expanduser(recipe.run))
        check_uses(
            models=recipe.models,
            data=recipe.data,
            sampling=recipe.sampling,
            train=recipe.train,
            cache=recipe.cache,
            validate=recipe.validate,
            watch=recipe.watch,
            track=recipe.track,
            method=method,
            draft=draft,
        )
        return recipe

    @classmethod
    def recorded(cls, folder: Path) -> Recipe:
        """The recipe that a run's folder holds, to be compared: its method is neither built nor checked."""
        draft = read_recipe(folder / "recipe.yaml")
        check_keys(draft)
        return cls._validated(draft.values, draft)

    @classmethod
    def _validated(cls, values: Mapping[str, Any], draft: Draft) -> Recipe:
        # Through JSON: there pydantic's strict mode tells 1 from "1" and true, and still takes lists and mappings.
        values = {"models": {}, **values}
        check_text(values, draft)
        try:
            found: Recipe = _adapter().validate_json(json.dumps(values), strict=True)
            return found
        except ValidationError as error:
            raise value_error(error, draft) from error

    def built_method(self) -> Any:
        """The `limbeck.methods.Method` of this recipe."""
        from limbeck.methods import from_config

        return from_config(self.method, allow_import=True)

    def values(self) -> dict[str, Any]:
        """All keys as plain values, as `Recipe.load` takes them."""
        plain_values: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return plain_values

    def dump(self) -> str:
        """The resolved recipe as YAML; `Recipe.load` reads an equal recipe back from it."""
        return to_yaml(self.values(), header=RECORDED)

    def difference(self, other: Recipe) -> list[Difference]:
        """The dotted keys whose values differ, `old` from this recipe and `new` from the other."""
        old, new = dict(_flat(self.values())), dict(_flat(other.values()))
        return [
            Difference(key, old.get(key), new.get(key))
            for key in dict.fromkeys([*old, *new])
            if old.get(key) != new.get(key)
        ]


@functools.cache
def _adapter() -> Any:
    """Made once: a study reads hundreds of recipes."""
    return TypeAdapter(Recipe)


def resumable_difference(old: Recipe, new: Recipe) -> list[str]:
    """What a resumed run may not change but would: "train.learning_rate: 0.0005 -> 0.001". Empty where it may go on.

    Length, validation, watching and checkpoint times may change (`LENGTHENING`), and so may the folder of the run.
    """
    found = old.difference(new)
    may_change = ("run", *LENGTHENING)
    return [
        str(each)
        for each in found
        if not any(each.key == key or (key.endswith(".") and each.key.startswith(key)) for key in may_change)
    ]


def _draft(source: Recipe | Mapping[str, Any] | Path | str) -> tuple[Draft, str]:
    """The unchecked values, and the name that the run gets from their file."""
    if isinstance(source, Recipe):
        return Draft(values=source.values()), ""
    return draft_of(source)


def _base_first(overrides: Sequence[Override]) -> list[Override]:
    return sorted(overrides, key=lambda override: override.path != ("method", "base"))


def _without_parts(draft: Draft, base: object) -> Draft:
    """Where every part is stated, `base` has no say; so a new base takes the old one's parts away."""
    from limbeck.methods import Method

    method = draft.values.get("method")
    parts = {part.name for part in dataclasses.fields(Method)}
    if not isinstance(method, dict) or not parts <= set(method) or method.get("base") == base:
        return draft
    return dataclasses.replace(draft, values={**draft.values, "method": {}})


def _method(draft: Draft, *, allow_import: bool) -> tuple[Any, dict[str, Any]]:
    from limbeck.methods import from_config, to_config

    values = draft.values.get("method", {})
    try:
        built = from_config(values, allow_import=allow_import)
    except ConfigError as error:
        raise method_error(error, draft) from error
    return built, {"base": values["base"], **plain(to_config(built), ("method",))}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
