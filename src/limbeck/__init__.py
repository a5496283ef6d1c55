"""Limbeck distils large language models: a big teacher makes a small student better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck import methods
    from limbeck.config import Recipe
    from limbeck.evaluation import evaluate
    from limbeck.models import Pair
    from limbeck.training import train

    __version__: str

__all__ = ["Pair", "Recipe", "__version__", "evaluate", "methods", "train"]

_HOME = {
    "Pair": "models",
    "Recipe": "config",
    "evaluate": "evaluation",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("limbeck")
    if name == "methods":
        return importlib.import_module("limbeck.methods")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
