"""The cells of a study's tables: means with their standard errors, over examples. No torch."""

from __future__ import annotations

import math

from limbeck.reporting.tables import Cell, Number
from limbeck.studies.measured import ArmRows


def score_cell(
    arm: ArmRows | None, corpora: tuple[str, ...], measure: str, score: str, *, scale: float = 100.0, digits: int = 1
) -> Cell:
    """Mean and standard error over examples, over all runs of the arm."""
    if arm is None:
        return None
    means, errors = list[float](), list[float | None]()
    for corpus in corpora:
        values = arm.values(list(arm.runs), measure=measure, score=score, corpora=(corpus,))
        cell = mean_cell(list(values.values()), scale=scale, digits=digits)
        if not isinstance(cell, Number):
            return None
        means.append(cell.value)
        errors.append(cell.error)
    # A corpus of one example has a mean and no error, and so has an average with it.
    known = [each for each in errors if each is not None]
    error = math.sqrt(math.fsum(each**2 for each in known)) / len(known) if len(known) == len(errors) else None
    return Number(value=math.fsum(means) / len(means), error=error, digits=digits)


def mean_cell(values: list[float], *, scale: float, digits: int) -> Cell:
    """The mean of some values with its standard error, which one value has none of; None where there are none."""
    if not values:
        return None
    count, mean = len(values), math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    error = math.sqrt(spread / (count - 1) / count) if count > 1 else None
    return Number(value=scale * mean, error=None if error is None else scale * error, digits=digits)
