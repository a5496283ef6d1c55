"""The data source of each step in a loop, from DistiLLM, arXiv 2402.03898, as its released code has it.

A coin is a number in [0, 1) a step. Rows are any values; those that are drawn at a step are given for every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Course:
    """What happened: each step's turn and φ, and the buffer after each step, oldest first."""

    turns: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    buffers: list[list[Any]] = field(default_factory=list)


def course(
    coins: Sequence[float],
    *,
    drawn: Callable[[int], Sequence[Any]],
    losses: Mapping[int, float],
    capacity: int,
    initial: float,
    increase: float,
    rise: float,
    replay_ratio: str,
) -> Course:
    """All steps of a run; `losses` are the validation losses by the step that they are taken after, 0 among them."""
    total, found, buffer = len(coins), Course(), list[Any]()
    phi, previous = initial, losses[0]
    for t in range(1, total + 1):
        if replay_ratio == "decreasing":
            s = phi * (1 - t / total)
        elif replay_ratio == "constant":
            s = phi * 0.5
        else:
            s = phi * t / total
        r = coins[t - 1]
        if r < s or (r < phi and len(buffer) < capacity):
            turn = "fresh"
            for row in drawn(t):
                buffer.append(row)
                if len(buffer) > capacity:
                    buffer.pop(0)
        elif r < phi:
            turn = "replayed"
        else:
            turn = "fixed"
        found.turns.append(turn)
        found.thresholds.append(phi)
        found.buffers.append(list(buffer))
        if t in losses and losses[t] >= previous + rise:
            phi = min(phi + increase, 1.0)
            previous = losses[t]
    return found
