"""The built-in studies by name, and a user's own by file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from limbeck.config.reading import Override
from limbeck.errors import ConfigError, UnknownName
from limbeck.studies import ablations
from limbeck.studies.controls import with_controls
from limbeck.studies.definition import Arm, Study, read_study
from limbeck.studies.protocol import (
    DECODING_SEEDS,
    FIVE,
    TRAIN_SEEDS,
    methods_recipe,
    small_recipe,
    small_scoring,
    small_stages,
)

_ABLATION_CORPORA = ("dolly-valid", "dolly", "self-instruct")


def _small(name: str, title: str, arms: Sequence[Arm], *, baseline: str = "mgsr") -> Study:
    """A study in the protocol `small`, with the columns of the paper's ablations."""
    study = Study(
        name=name,
        title=title,
        arms=tuple(arms),
        recipe=small_recipe(),
        stages=small_stages(),
        seeds=TRAIN_SEEDS,
        scoring=small_scoring(),
        baseline=baseline,
        corpora=_ABLATION_CORPORA,
        average=_ABLATION_CORPORA,
    )
    return with_controls(study)


def _table1() -> Study:
    study = _small("table1", "Table 1: eight methods", ablations.table1(), baseline="sft")
    return dataclasses.replace(study, corpora=FIVE, average=FIVE)


def _methods() -> Study:
    # Judged by the distance from the teacher, for which one corpus is enough.
    study = Study(
        name="methods",
        title="Eight methods against the start they share",
        arms=ablations.methods(),
        recipe=methods_recipe(),
        stages=small_stages(),
        seeds=(0,),
        scoring=dataclasses.replace(small_scoring(("dolly-valid",)), seeds=DECODING_SEEDS[:2]),
        baseline="start",
    )
    return with_controls(study)


def _spans() -> Study:
    study = _small("spans", "What finds the spans", ablations.spans())
    return dataclasses.replace(study, corpora=FIVE, average=FIVE)


def _generation() -> Study:
    study = _small("generation", "Ways to get sequences", ablations.generation(), baseline="mixed")
    return dataclasses.replace(study, corpora=FIVE, average=FIVE)


def _clip_ranges() -> Study:
    names = ("dolly", "gsm8k", "sni")
    study = _small("clip-ranges", "Ranges of the clip", ablations.clip_ranges(), baseline="all @ dolly @ 100 %")
    return dataclasses.replace(study, scoring=small_scoring(names), corpora=names, average=names)


def _limits() -> Study:
    names = ("dolly", "self-instruct", "gsm8k")
    study = _small("limits", "Limits of the protocol", ablations.limits(), baseline="gkd, 64 tokens")
    return dataclasses.replace(
        study, scoring=small_scoring(names), stages=small_stages(20, 15, 10), corpora=names, average=names
    )


STUDIES: Mapping[str, Callable[[], Study]] = {
    "methods": _methods,
    "table1": _table1,
    "table2": lambda: _small("table2", "Table 2: component by component", ablations.table2(), baseline="base"),
    "table3a": lambda: _small("table3a", "Table 3a: ways to get sequences", ablations.table3a(), baseline="mixed"),
    "table3b": lambda: _small("table3b", "Table 3b: parts of DAC-KL", ablations.table3b()),
    "table3c": lambda: _small("table3c", "Table 3c: eight losses", ablations.table3c(), baseline="forward-kl"),
    "detectors": lambda: _small("detectors", "What finds the error token", ablations.detectors()),
    "clip-networks": lambda: _small("clip-networks", "What finds the bounds", ablations.clip_networks()),
    "clip-ranges": _clip_ranges,
    "spans": _spans,
    "rounds": lambda: _small("rounds", "How often a sequence is corrected", ablations.rounds(), baseline="mixed"),
    "generation": _generation,
    "limits": _limits,
}

INJECTED_ERRORS = "injected-errors"
"""A study without arms: it has a road of its own (`limbeck.studies.injected`)."""


def find_study(name: str, *, settings: Sequence[str] = (), seeds: tuple[int, ...] | None = None) -> Study:
    """A built-in study, or that of a YAML file, with settings ("train.steps=64") laid over what its arms share.

    An arm's own changes win. Raises `UnknownName` and `ConfigError`.
    """
    if name.endswith((".yaml", ".yml")):
        study = read_study(Path(name))
    elif name in STUDIES:
        study = STUDIES[name]()
    else:
        known = [*STUDIES, INJECTED_ERRORS, "FILE.yaml"]
        raise UnknownName.among("study", name, known)
    given = {".".join(each.path): each.value for each in map(Override.parse, settings)}
    for key in given:
        if key == "train.seed" or key.partition(".")[0] in ("run", "method"):
            raise ConfigError(f"{key} is what the arms of a study differ in; use --seeds, or a study of your own")
    recipe = {name: dict(value) if isinstance(value, Mapping) else value for name, value in study.recipe.items()}
    for dotted, value in given.items():
        section, _, key = dotted.partition(".")
        recipe.setdefault(section, {})[key] = value
    study = dataclasses.replace(study, recipe=recipe)
    return study if seeds is None else dataclasses.replace(study, seeds=seeds)
