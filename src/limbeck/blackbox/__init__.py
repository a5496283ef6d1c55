"""Distillation from teachers that can only be talked to: tasks whose answers can be checked, and what checks them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.blackbox.checkers import CHECKERS, Checker, Verdict
    from limbeck.blackbox.diagnosing import diagnose
    from limbeck.blackbox.facts import facts_teacher
    from limbeck.blackbox.failures import ERROR_CLASSES, Diagnosis
    from limbeck.blackbox.generating import generate_items
    from limbeck.blackbox.items import Choice, Item, read_items
    from limbeck.blackbox.local_teacher import LocalTeacher
    from limbeck.blackbox.rule_teacher import Rule, RuleTeacher
    from limbeck.blackbox.solver import solver_teacher
    from limbeck.blackbox.tasks import TASKS, load_task

_HOME = {
    "CHECKERS": "checkers",
    "Checker": "checkers",
    "Choice": "items",
    "Diagnosis": "failures",
    "ERROR_CLASSES": "failures",
    "Item": "items",
    "LocalTeacher": "local_teacher",
    "Rule": "rule_teacher",
    "RuleTeacher": "rule_teacher",
    "TASKS": "tasks",
    "Verdict": "checkers",
    "diagnose": "diagnosing",
    "facts_teacher": "facts",
    "generate_items": "generating",
    "load_task": "tasks",
    "read_items": "items",
    "solver_teacher": "solver",
}

__all__ = [
    "CHECKERS",
    "ERROR_CLASSES",
    "TASKS",
    "Checker",
    "Choice",
    "Diagnosis",
    "Item",
    "LocalTeacher",
    "Rule",
    "RuleTeacher",
    "Verdict",
    "diagnose",
    "facts_teacher",
    "generate_items",
    "load_task",
    "read_items",
    "solver_teacher",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
