"""What is matched span by span: extractors find phrases in a text, packing turns them into runs of tokens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from limbeck.registry import Registry
    from limbeck.spans.extractors import Extractor, Phrases
    from limbeck.spans.packing import SpanFinder, align
    from limbeck.spans.pieces import Interval, TokenPieces

    EXTRACTORS: Registry[Callable[..., Extractor]]

__all__ = ["EXTRACTORS", "Extractor", "Interval", "Phrases", "SpanFinder", "TokenPieces", "align"]

_HOME = {
    "Extractor": "extractors",
    "Interval": "pieces",
    "Phrases": "extractors",
    "SpanFinder": "packing",
    "TokenPieces": "pieces",
    "align": "packing",
}


def __getattr__(name: str) -> object:
    if name == "EXTRACTORS":
        from limbeck.registry import Registry
        from limbeck.spans.extractors import Phrases

        # Kept, so that an entry which a user adds is there at the next look.
        extractors = Registry[Any]("extractor of spans", {"phrases": Phrases})
        globals()["EXTRACTORS"] = extractors
        return extractors
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
