"""Exposure bias: how much further from its teacher a student is on its own text than on the teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from limbeck.errors import DataError
from limbeck.reporting.reduce import Interval, statistic_interval

Prefix = Literal["student", "teacher"]
LENGTH = 16
"""Tokens that the accumulation is taken over, unless told otherwise: index 15 of the reference code."""


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """KL(t‖s) per token on both kinds of prefix, and the excess of the student's own, in per cent.

    `excess` is None where the student does not differ from its teacher on the teacher's answers.
    """

    length: int
    own: float
    teachers: float
    excess: Interval | None


def exposure_bias(rows: Iterable[Mapping[str, Any]], *, length: int = LENGTH, seed: int = 0) -> Exposure:
    """The excess accumulated error at a length l, in per cent, from `exposure` rows of one corpus.

        R(l) = mean of KL(t‖s) over the first l tokens of the student's answers
        ε(l) = the same over the teacher's answers to the same prompts
        ExAccErr(l) = (R(l) − ε(l)) / ε(l) · 100

    Both are token means: an answer that ends before l counts with the tokens that it has. The interval resamples
    examples, each with both its answers. Source: Arora et al. 2022, as MiniLLM's evaluation computes it. It says
    nothing about quality: a student that is equally wrong everywhere has none. Raises `DataError` where an example
    lacks one of its answers, or there is no token.

    >>> rows = [{"id": "a", "prefix": "student", "kl": [0.1, 0.5]}, {"id": "a", "prefix": "teacher", "kl": [0.1, 0.3]}]
    >>> found = exposure_bias(rows)
    >>> round(found.own, 3), round(found.teachers, 3), found.excess and round(found.excess.mean, 1)
    (0.3, 0.2, 50.0)
    """
    kept: dict[str, dict[str, list[float]]] = {"student": {}, "teacher": {}}
    for row in rows:
        kept[row["prefix"]][str(row["id"])] = list(row["kl"])[:length]
    if kept["student"].keys() != kept["teacher"].keys():
        lone = sorted(kept["student"].keys() ^ kept["teacher"].keys())
        raise DataError(f"example '{lone[0]}' has an answer of one model only; exposure bias compares two")
    ids = sorted(kept["student"])
    sums = np.array(
        [[part for who in ("student", "teacher") for part in (sum(kept[who][id]), len(kept[who][id]))] for id in ids],
        dtype=np.float64,
    ).reshape(-1, 4)
    if not len(ids) or not (sums[:, 1].sum() and sums[:, 3].sum()):
        raise DataError("no token to take exposure bias on: all answers are empty")
    own, teachers = (float(sums[:, k].sum() / sums[:, k + 1].sum()) for k in (0, 2))
    if teachers == 0.0:
        return Exposure(length=length, own=own, teachers=teachers, excess=None)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = statistic_interval(
            sums, lambda m: 100.0 * ((m[:, 0] * m[:, 3]) / (m[:, 1] * m[:, 2]) - 1.0), seed=seed
        )
    return Exposure(length=length, own=own, teachers=teachers, excess=excess)
