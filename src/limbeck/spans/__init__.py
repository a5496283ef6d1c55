"""What is matched span by span: extractors find spans in a text or among tokens, packing makes them runs of tokens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.registry import Registry
    from limbeck.spans.collocations import Collocations, Learned
    from limbeck.spans.extractors import (
        Extractor,
        ExtractorToFit,
        FittedExtractor,
        Phrases,
        TextExtractor,
        TokenExtractor,
    )
    from limbeck.spans.packing import SpanFinder, align
    from limbeck.spans.pieces import Interval, TokenPieces
    from limbeck.spans.sentences import Sentences
    from limbeck.spans.spacy_phrases import SpacyPhrases
    from limbeck.spans.tokenwise import Whole, Window

    EXTRACTORS: Registry[Callable[..., Extractor]]

__all__ = [
    "EXTRACTORS",
    "Collocations",
    "Extractor",
    "ExtractorToFit",
    "FittedExtractor",
    "Interval",
    "Learned",
    "Phrases",
    "Sentences",
    "SpacyPhrases",
    "SpanFinder",
    "TextExtractor",
    "TokenExtractor",
    "TokenPieces",
    "Whole",
    "Window",
    "align",
]

_HOME = {
    "Collocations": "collocations",
    "Extractor": "extractors",
    "ExtractorToFit": "extractors",
    "FittedExtractor": "extractors",
    "Interval": "pieces",
    "Learned": "collocations",
    "Phrases": "extractors",
    "Sentences": "sentences",
    "SpacyPhrases": "spacy_phrases",
    "SpanFinder": "packing",
    "TextExtractor": "extractors",
    "TokenExtractor": "extractors",
    "TokenPieces": "pieces",
    "Whole": "tokenwise",
    "Window": "tokenwise",
    "align": "packing",
}


def __getattr__(name: str) -> object:
    if name == "EXTRACTORS":
        from limbeck.registry import Registry
        from limbeck.spans.collocations import Learned
        from limbeck.spans.extractors import Phrases
        from limbeck.spans.sentences import Sentences
        from limbeck.spans.spacy_phrases import SpacyPhrases
        from limbeck.spans.tokenwise import Whole, Window

        # Kept, so that an entry which a user adds is there at the next look.
        extractors = Registry[Any](
            "extractor of spans",
            {
                "phrases": Phrases,
                "spacy": SpacyPhrases,
                "sentences": Sentences,
                "window": Window,
                "whole": Whole,
                "learned": Learned,
            },
        )
        globals()["EXTRACTORS"] = extractors
        return extractors
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
