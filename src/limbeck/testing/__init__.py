"""A public kit for testing methods without network and without real weights: tiny pairs, a byte tokenizer, toy rows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.testing.byte_level import CHAT_TEMPLATE, byte_tokenizer
    from limbeck.testing.tiny import ARCHITECTURES, save_tiny, tiny_model, tiny_pair
    from limbeck.testing.toys import save_toy, toy_examples

__all__ = [
    "ARCHITECTURES",
    "CHAT_TEMPLATE",
    "byte_tokenizer",
    "save_tiny",
    "save_toy",
    "tiny_model",
    "tiny_pair",
    "toy_examples",
]

_HOME = {
    "ARCHITECTURES": "tiny",
    "CHAT_TEMPLATE": "byte_level",
    "byte_tokenizer": "byte_level",
    "save_tiny": "tiny",
    "save_toy": "toys",
    "tiny_model": "tiny",
    "tiny_pair": "tiny",
    "toy_examples": "toys",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
