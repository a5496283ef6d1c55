"""What a method is made of, in words: its formulas, its values, and how it stands to its paper."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.inspection.composition import Explanation, explain

__all__ = ["Explanation", "explain"]

_HOME = {"Explanation": "composition", "explain": "composition"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
