"""A finished student for others: a model card written from its run, a plain folder, a repository on the hub."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.publishing.card import model_card
    from limbeck.publishing.exporting import conversion_command, export
    from limbeck.publishing.hub import Pushed, push

__all__ = ["Pushed", "conversion_command", "export", "model_card", "push"]

_HOME = {
    "Pushed": "hub",
    "conversion_command": "exporting",
    "export": "exporting",
    "model_card": "card",
    "push": "hub",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
