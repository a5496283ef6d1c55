"""Models: where they come from, how two of them make a pair, how a student is shrunk and saved."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.models.loading import (
        LoraSettings,
        add_lora,
        load_model,
        load_tokenizer,
        merged,
        resolve_device,
        resolve_dtype,
    )
    from limbeck.models.packaged import PACKAGED, PackagedModel, fetch
    from limbeck.models.pair import Pair, Vocabulary, compare_vocabularies
    from limbeck.models.saving import save_student
    from limbeck.models.shrinking import drop_importance, drop_order, measured_layers, shrink

_HOME = {
    "PACKAGED": "packaged",
    "LoraSettings": "loading",
    "PackagedModel": "packaged",
    "Pair": "pair",
    "Vocabulary": "pair",
    "add_lora": "loading",
    "compare_vocabularies": "pair",
    "drop_importance": "shrinking",
    "drop_order": "shrinking",
    "fetch": "packaged",
    "load_model": "loading",
    "load_tokenizer": "loading",
    "measured_layers": "shrinking",
    "merged": "loading",
    "resolve_device": "loading",
    "resolve_dtype": "loading",
    "save_student": "saving",
    "shrink": "shrinking",
}

__all__ = [
    "PACKAGED",
    "LoraSettings",
    "PackagedModel",
    "Pair",
    "Vocabulary",
    "add_lora",
    "compare_vocabularies",
    "drop_importance",
    "drop_order",
    "fetch",
    "load_model",
    "load_tokenizer",
    "measured_layers",
    "merged",
    "resolve_device",
    "resolve_dtype",
    "save_student",
    "shrink",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
