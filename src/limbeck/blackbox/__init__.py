"""Distillation from teachers that can only be talked to: tasks whose answers can be checked, and what checks them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.blackbox.checkers import CHECKERS, Checker, Verdict
    from limbeck.blackbox.items import Choice, Item, read_items

_HOME = {
    "CHECKERS": "checkers",
    "Checker": "checkers",
    "Choice": "items",
    "Item": "items",
    "Verdict": "checkers",
    "read_items": "items",
}

__all__ = ["CHECKERS", "Checker", "Choice", "Item", "Verdict", "read_items"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
