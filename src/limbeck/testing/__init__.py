"""A public kit for testing methods without network and without real weights: tiny pairs, scripted models, a byte
tokenizer, toy rows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.testing.byte_level import CHAT_TEMPLATE, byte_tokenizer
    from limbeck.testing.scripted import (
        Script,
        ScriptedModel,
        peaked,
        random_script,
        scripted_rollouts,
        toy_evidence,
    )
    from limbeck.testing.scripted_server import ScriptedServer
    from limbeck.testing.scripted_teachers import ScriptedTeacher, ScriptedWriter
    from limbeck.testing.tiny import ARCHITECTURES, save_tiny, tiny_model, tiny_pair
    from limbeck.testing.toys import save_toy, toy_examples

__all__ = [
    "ARCHITECTURES",
    "CHAT_TEMPLATE",
    "Script",
    "ScriptedModel",
    "ScriptedServer",
    "ScriptedTeacher",
    "ScriptedWriter",
    "byte_tokenizer",
    "peaked",
    "random_script",
    "save_tiny",
    "save_toy",
    "scripted_rollouts",
    "tiny_model",
    "tiny_pair",
    "toy_evidence",
    "toy_examples",
]

_HOME = {
    "ARCHITECTURES": "tiny",
    "CHAT_TEMPLATE": "byte_level",
    "Script": "scripted",
    "ScriptedModel": "scripted",
    "ScriptedServer": "scripted_server",
    "ScriptedTeacher": "scripted_teachers",
    "ScriptedWriter": "scripted_teachers",
    "byte_tokenizer": "byte_level",
    "peaked": "scripted",
    "random_script": "scripted",
    "save_tiny": "tiny",
    "save_toy": "toys",
    "scripted_rollouts": "scripted",
    "tiny_model": "tiny",
    "tiny_pair": "tiny",
    "toy_evidence": "scripted",
    "toy_examples": "toys",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
