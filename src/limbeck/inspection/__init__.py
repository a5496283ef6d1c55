"""Looking at what is there: what a method is made of, how two runs differ, what a student says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.inspection.composition import Explanation, explain
    from limbeck.inspection.difference import RunDifference, compare
    from limbeck.inspection.talk import Talk, chat, open_talk

__all__ = ["Explanation", "RunDifference", "Talk", "chat", "compare", "explain", "open_talk"]

_HOME = {
    "Explanation": "composition",
    "RunDifference": "difference",
    "Talk": "talk",
    "chat": "talk",
    "compare": "difference",
    "explain": "composition",
    "open_talk": "talk",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
