"""Several runs as one result: the quickstart. Questions to a pair of models: which detector finds injected errors."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.studies.detections import Detections
    from limbeck.studies.detector_study import injected_errors
    from limbeck.studies.first_run import quickstart

_HOME = {"Detections": "detections", "injected_errors": "detector_study", "quickstart": "first_run"}

__all__ = ["Detections", "injected_errors", "quickstart"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
