"""Rows of tokens.jsonl, written by hand: what a student says of lacrosse, an error, and what follows its correction."""

from __future__ import annotations

import math
from typing import Any

import pytest

_DRAWN = ("Men", "'s", " lac", "rosse", " is", " a", " limited", " game", ".\n", "\t", " ", "")
_TEACHER = ("Men", "'s", " lac", "rosse", " has", " a", " larger", " number", " of", "\n", "The", "")
_KL = (0.01, 0.0, 0.06, 0.3, 2.38, 0.7, 1.5, 4.2, 0.2, 0.05, 3.0, 0.1)


def _token(place: int, *, gates: bool) -> dict[str, Any]:
    token: dict[str, Any] = {
        "token": _DRAWN[place],
        "teacher": _TEACHER[place],
        "kl_student_teacher": _KL[place],
        "kl_teacher_student": 2 * _KL[place],
        "rank": place,
    }
    if gates:
        token |= {"lower": 0.05, "upper": 0.95, "kept_mass": 0.6, "kept_classes": 2.25, "only_target": 0.0}
    return token


def _distribution(*, gates: bool) -> dict[str, Any]:
    held: dict[str, Any] = {
        "classes": [" has", " is", "\n"],
        "teacher_logp": [math.log(p) for p in (0.5, 0.3, 0.1, 0.05)],
        "student_logp": [math.log(p) for p in (0.2, 0.4, 0.2, 0.1)],
    }
    return held | ({"gates": [1.0, 0.25, 0.25, 0.0]} if gates else {})


@pytest.fixture
def revised_rows() -> list[dict[str, Any]]:
    """Two rows at two steps of a method that corrects and clips; at the last step one row has nothing in error."""
    rows = []
    for step in (3, 6):
        for name in ("first", "second"):
            tokens = [_token(place, gates=True) for place in range(len(_DRAWN))]
            tokens[4]["distribution"] = _distribution(gates=True)
            row: dict[str, Any] = {"step": step, "id": name, "prompt": "What is lacrosse?", "tokens": tokens}
            if (step, name) != (6, "second"):
                revised = [*_DRAWN[:4], " has", " a", " limited", " number", " of", " players", ".", ""]
                row |= {"corrected": [4], "revised": revised}
            rows.append(row)
    return rows


@pytest.fixture
def plain_rows() -> list[dict[str, Any]]:
    """One row of a method that corrects nothing and clips nothing."""
    tokens = [_token(place, gates=False) for place in range(len(_DRAWN))]
    tokens[4]["distribution"] = _distribution(gates=False)
    return [{"step": 6, "id": "first", "prompt": "What is lacrosse?", "tokens": tokens}]
