"""Where sequences come from: the corpus, the student, or a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.registry import Registry
    from limbeck.sequences.collecting import CollectedRollouts
    from limbeck.sequences.fixed import Fixed
    from limbeck.sequences.mixed import Mixture
    from limbeck.sequences.source import Collecting, HoldingTensors, Rollouts, Source
    from limbeck.sequences.written import Student

    SOURCES: Registry[type[Source]]

__all__ = [
    "SOURCES",
    "CollectedRollouts",
    "Collecting",
    "Fixed",
    "HoldingTensors",
    "Mixture",
    "Rollouts",
    "Source",
    "Student",
]

_HOMES = {
    "CollectedRollouts": "collecting",
    "Collecting": "source",
    "Fixed": "fixed",
    "HoldingTensors": "source",
    "Mixture": "mixed",
    "Rollouts": "source",
    "Source": "source",
    "Student": "written",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "SOURCES":
        from limbeck.registry import Registry
        from limbeck.sequences.collecting import CollectedRollouts
        from limbeck.sequences.fixed import Fixed
        from limbeck.sequences.mixed import Mixture
        from limbeck.sequences.written import Student

        sources: Registry[Any] = Registry(
            "source of sequences",
            {"fixed": Fixed, "student": Student, "mixture": Mixture, "rollouts": CollectedRollouts},
        )
        globals()["SOURCES"] = sources
        return sources
    if name in _HOMES:
        return getattr(importlib.import_module(f"limbeck.sequences.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck.sequences' has no attribute '{name}'")
