"""Where sequences come from: the corpus, the teacher, the student, both together, a buffer, or a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.registry import Registry
    from limbeck.sequences.best_of import BestOf
    from limbeck.sequences.building import Ground, SourceToBuild
    from limbeck.sequences.collecting import CollectedRollouts
    from limbeck.sequences.fixed import Fixed
    from limbeck.sequences.mixed import Mixture
    from limbeck.sequences.replay import Replay
    from limbeck.sequences.schedules import Adaptive, Constant, Linear, Schedule
    from limbeck.sequences.source import Collecting, Rollouts, Source
    from limbeck.sequences.teacher import TeacherWritten
    from limbeck.sequences.written import Student

    SOURCES: Registry[type[Source | SourceToBuild]]
    SCHEDULES: Registry[type[Schedule]]

__all__ = [
    "SCHEDULES",
    "SOURCES",
    "Adaptive",
    "BestOf",
    "CollectedRollouts",
    "Collecting",
    "Constant",
    "Fixed",
    "Ground",
    "Linear",
    "Mixture",
    "Replay",
    "Rollouts",
    "Schedule",
    "Source",
    "SourceToBuild",
    "Student",
    "TeacherWritten",
]

_HOMES = {
    "Adaptive": "schedules",
    "BestOf": "best_of",
    "CollectedRollouts": "collecting",
    "Collecting": "source",
    "Constant": "schedules",
    "Fixed": "fixed",
    "Ground": "building",
    "Linear": "schedules",
    "Mixture": "mixed",
    "Replay": "replay",
    "Rollouts": "source",
    "Schedule": "schedules",
    "Source": "source",
    "SourceToBuild": "building",
    "Student": "written",
    "TeacherWritten": "teacher",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("SCHEDULES", "SOURCES"):
        globals().update(_registries())
        return globals()[name]
    if name in _HOMES:
        return getattr(importlib.import_module(f"limbeck.sequences.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck.sequences' has no attribute '{name}'")


def _registries() -> dict[str, Any]:
    from limbeck.registry import Registry
    from limbeck.sequences.best_of import BestOf
    from limbeck.sequences.collecting import CollectedRollouts
    from limbeck.sequences.fixed import Fixed
    from limbeck.sequences.mixed import Mixture
    from limbeck.sequences.replay import Replay
    from limbeck.sequences.schedules import Adaptive, Constant, Linear
    from limbeck.sequences.teacher import TeacherWritten
    from limbeck.sequences.written import Student

    sources: Registry[Any] = Registry(
        "source of sequences",
        {
            "fixed": Fixed,
            "teacher": TeacherWritten,
            "student": Student,
            "best-of": BestOf,
            "rollouts": CollectedRollouts,
            "mixture": Mixture,
            "replay": Replay,
        },
    )
    schedules: Registry[Any] = Registry("schedule", {"constant": Constant, "linear": Linear, "adaptive": Adaptive})
    return {"SOURCES": sources, "SCHEDULES": schedules}
