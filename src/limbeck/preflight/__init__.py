"""Before a run: a recipe for one's own data, what a recipe would run into, and what it would take."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.preflight.checks import doctor
    from limbeck.preflight.estimate import Plan, plan
    from limbeck.preflight.findings import Diagnosis, Finding
    from limbeck.preflight.starting import write_recipe

__all__ = ["Diagnosis", "Finding", "Plan", "doctor", "plan", "write_recipe"]

_HOME = {
    "Diagnosis": "findings",
    "Finding": "findings",
    "Plan": "estimate",
    "doctor": "checks",
    "plan": "estimate",
    "write_recipe": "starting",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
