"""Data: rows from files, names and the hub; templates; token ids; and which rows a step reads."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.data.assembling import TrainingData, load_training
    from limbeck.data.corpora import cut_validation, load_corpus
    from limbeck.data.examples import Dataset, from_rows, read_examples
    from limbeck.data.loader import Loader, Mix, batch, prompts
    from limbeck.data.named import CORPORA, Corpus
    from limbeck.data.shares import CorpusShare
    from limbeck.data.templates import (
        ChatTemplate,
        PaperTemplate,
        PlainTemplate,
        Template,
        choose_template,
        end_of_turn,
    )
    from limbeck.data.tokenizing import Encoder

_HOMES = {
    "assembling": ("TrainingData", "load_training"),
    "corpora": ("cut_validation", "load_corpus"),
    "named": ("CORPORA", "Corpus"),
    "examples": ("Dataset", "from_rows", "read_examples"),
    "loader": ("Loader", "Mix", "batch", "prompts"),
    "shares": ("CorpusShare",),
    "templates": (
        "ChatTemplate",
        "PaperTemplate",
        "PlainTemplate",
        "Template",
        "choose_template",
        "end_of_turn",
    ),
    "encoding_report": ("EncodingReport",),
    "tokenizing": ("Encoder",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CORPORA",
    "ChatTemplate",
    "Corpus",
    "CorpusShare",
    "Dataset",
    "Encoder",
    "EncodingReport",
    "Loader",
    "Mix",
    "PaperTemplate",
    "PlainTemplate",
    "Template",
    "TrainingData",
    "batch",
    "choose_template",
    "cut_validation",
    "end_of_turn",
    "from_rows",
    "load_corpus",
    "load_training",
    "prompts",
    "read_examples",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
