"""Answers of models as rows on disk, and their scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.evaluation.rouge import RougeL, rouge_l

__all__ = ["RougeL", "rouge_l"]

_HOME = {"RougeL": "rouge", "rouge_l": "rouge"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
