"""Sequence correction and re-generation of one row in loops, from MGSR, arXiv 2407.10068, Eq. 3 and Eq. 4.

A model is a function from a prefix to a list of V probabilities. A row is a list of tokens whose response begins at
`begins`; noise is a function from (round, position) to a number in [0, 1), or None where the teacher is greedy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from reference.equations import kl

Model = Callable[[tuple[int, ...]], Sequence[float]]
Noise = Callable[[int, int], float]


@dataclass(frozen=True)
class Corrected:
    """The row after revision, and (round, position, teacher's token) of each correction."""

    row: list[int]
    steps: list[tuple[int, int, int]]


def token_of(probabilities: Sequence[float], uniform: float) -> int:
    """The first class whose cumulative probability is above u times the sum of all."""
    target, running = uniform * math.fsum(probabilities), 0.0
    for token, probability in enumerate(probabilities):
        running += probability
        if running > target:
            return token
    raise AssertionError("a uniform is below 1")


def teacher_token(probabilities: Sequence[float], uniform: float | None) -> int:
    """y^t ~ p, or its argmax."""
    if uniform is None:
        return max(range(len(probabilities)), key=lambda token: probabilities[token])
    return token_of(probabilities, uniform)


def error(
    row: Sequence[int],
    *,
    begins: int,
    student: Model,
    teacher: Model,
    uniform: Callable[[int], float | None],
    stop_ids: Collection[int],
    corrected: Collection[int] = (),
) -> tuple[int, int] | None:
    """j = argmax { KL(q_i‖p_i) : y_i ≠ y^t_i } and y^t_j; None where no token may be corrected (Eq. 3)."""
    found, largest = None, -math.inf
    for i in range(max(begins, 1), len(row)):
        prefix = tuple(row[:i])
        p, q = teacher(prefix), student(prefix)
        said = teacher_token(p, uniform(i))
        would_be_empty = i == begins and said in stop_ids
        if said != row[i] and i not in corrected and not would_be_empty and kl(q, p) > largest:
            found, largest = (i, said), kl(q, p)
        if row[i] in stop_ids:
            break
    return found


def scrg(
    row: Sequence[int],
    *,
    begins: int,
    limit: int,
    student: Model,
    teacher: Model,
    teacher_noise: Noise | None,
    redraw_noise: Noise,
    stop_ids: Collection[int],
    rounds: int = 1,
) -> Corrected:
    """y_<j kept, y^t_j put at j, what follows drawn from the student up to a stop token or the limit (Eq. 4)."""
    now, steps = list(row), list[tuple[int, int, int]]()
    for number in range(1, rounds + 1):
        found = error(
            now,
            begins=begins,
            student=student,
            teacher=teacher,
            uniform=lambda i, number=number: None if teacher_noise is None else teacher_noise(number, i),
            stop_ids=stop_ids,
            corrected={position for _, position, _ in steps},
        )
        if found is None:
            continue
        j, said = found
        steps.append((number, j, said))
        now = [*now[:j], said]
        while now[-1] not in stop_ids and len(now) < limit:
            now.append(token_of(student(tuple(now)), redraw_noise(number, len(now))))
    return Corrected(now, steps)
