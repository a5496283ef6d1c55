"""Training: from a recipe to a run directory, exactly resumable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.training.distiller import Distiller
    from limbeck.training.loop import train
    from limbeck.training.rundir import Run

_HOME = {"Distiller": "distiller", "Run": "rundir", "train": "loop"}

__all__ = ["Distiller", "Run", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
