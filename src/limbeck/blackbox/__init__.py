"""Distillation from teachers that can only be talked to: tasks whose answers can be checked, and what checks them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.blackbox.checkers import CHECKERS, Checker, Verdict
    from limbeck.blackbox.diagnosing import diagnose
    from limbeck.blackbox.facts import FactsTeacher
    from limbeck.blackbox.failures import ERROR_CLASSES, Diagnosis
    from limbeck.blackbox.generating import generate_items
    from limbeck.blackbox.items import Choice, Item, read_items
    from limbeck.blackbox.local_teacher import LocalTeacher
    from limbeck.blackbox.solver import SolverTeacher
    from limbeck.blackbox.tasks import TASKS, load_task

_HOME = {
    "CHECKERS": "checkers",
    "Checker": "checkers",
    "Choice": "items",
    "Diagnosis": "failures",
    "ERROR_CLASSES": "failures",
    "FactsTeacher": "facts",
    "Item": "items",
    "LocalTeacher": "local_teacher",
    "SolverTeacher": "solver",
    "TASKS": "tasks",
    "Verdict": "checkers",
    "diagnose": "diagnosing",
    "generate_items": "generating",
    "load_task": "tasks",
    "read_items": "items",
}

__all__ = [
    "CHECKERS",
    "ERROR_CLASSES",
    "TASKS",
    "Checker",
    "Choice",
    "Diagnosis",
    "FactsTeacher",
    "Item",
    "LocalTeacher",
    "SolverTeacher",
    "Verdict",
    "diagnose",
    "generate_items",
    "load_task",
    "read_items",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
