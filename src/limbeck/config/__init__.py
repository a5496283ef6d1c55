"""The recipe: what a run does, read from YAML and overrides, checked, and frozen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.config.recipes import LENGTHENING, Difference, Recipe, resumable_difference
    from limbeck.config.sections import (
        CacheSection,
        CorpusShare,
        DataSection,
        LoraSection,
        ModelsSection,
        SamplingSection,
        TrackSection,
        TrainSection,
        ValidateSection,
        WatchSection,
    )

__all__ = [
    "LENGTHENING",
    "CacheSection",
    "CorpusShare",
    "DataSection",
    "Difference",
    "LoraSection",
    "ModelsSection",
    "Recipe",
    "SamplingSection",
    "TrackSection",
    "TrainSection",
    "ValidateSection",
    "WatchSection",
    "resumable_difference",
]

_HOME = {
    "LENGTHENING": "recipes",
    "CacheSection": "sections",
    "CorpusShare": "sections",
    "DataSection": "sections",
    "Difference": "recipes",
    "LoraSection": "sections",
    "ModelsSection": "sections",
    "Recipe": "recipes",
    "SamplingSection": "sections",
    "TrackSection": "sections",
    "TrainSection": "sections",
    "ValidateSection": "sections",
    "WatchSection": "sections",
    "resumable_difference": "recipes",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
