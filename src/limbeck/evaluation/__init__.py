"""Answers of models as rows on disk, and their scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.evaluation.answers import DECODINGS, Decoding
    from limbeck.evaluation.measuring import evaluate
    from limbeck.evaluation.results import Results
    from limbeck.evaluation.rouge import RougeL, rouge_l
    from limbeck.evaluation.scorers import Scorer

_HOME = {
    "DECODINGS": "answers",
    "Decoding": "answers",
    "Results": "results",
    "RougeL": "rouge",
    "Scorer": "scorers",
    "evaluate": "measuring",
    "rouge_l": "rouge",
}

__all__ = ["DECODINGS", "Decoding", "Results", "RougeL", "Scorer", "evaluate", "rouge_l"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
