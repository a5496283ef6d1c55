"""MiniLLM (arXiv 2306.08543) with loops and `math`, written from the paper and not from the library.

A response is a list of tokens y_1 … y_T; p are the teacher's distributions at them, q the student's: lists of T lists
of V probabilities. `old` are the student's distributions at the time of the draw, `drawn` those that were drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.equations import kl, mixture

Distributions = Sequence[Sequence[float]]


def rewards(p: Distributions, old: Distributions, tokens: Sequence[int]) -> list[float]:
    """r_t = log p(y_t) − log q(y_t)."""
    return [math.log(p_t[y]) - math.log(q_t[y]) for p_t, q_t, y in zip(p, old, tokens, strict=True)]


def returns_of_what_follows(r: Sequence[float], *, gamma: float = 1.0, normalised: bool = True) -> list[float]:
    """R_{t+1} = Σ_{t' = t+1}^T γ^{t'−t−1}·r_t', over the number of its rewards; 0 behind the last token."""
    found = []
    for t in range(len(r)):
        rest = [gamma ** (s - t - 1) * r[s] for s in range(t + 1, len(r))]
        found.append(sum(rest) / len(rest) if normalised and rest else sum(rest))
    return found


def returns_with_the_own_reward(r: Sequence[float], *, gamma: float = 1.0, normalised: bool = True) -> list[float]:
    """G_t = Σ_{t' = t}^T γ^{t'−t}·r_t', over the number of its rewards: what the authors' code has."""
    found = []
    for t in range(len(r)):
        rest = [gamma ** (s - t) * r[s] for s in range(t, len(r))]
        found.append(sum(rest) / len(rest) if normalised else sum(rest))
    return found


def whitened(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """(x − mean) / √(variance + 1e-8) over all numbers of all rows."""
    values = [value for row in rows for value in row]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [[(value - mean) / math.sqrt(variance + 1e-8) for value in row] for row in rows]


def drawn_from(p_t: Sequence[float], q_t: Sequence[float], share: float) -> list[float]:
    """p̃ = a·p + (1 − a)·q."""
    return mixture(p_t, q_t, share)


def token_loss(
    *,
    p_t: Sequence[float],
    q_t: Sequence[float],
    old_t: Sequence[float],
    token: int,
    share: float,
    advantage: float,
    clip: float,
) -> float:
    """KL(q‖p) − min(ρ·A, clip(ρ)·A), ρ = w·q(y)/q_old(y), w = q_old(y)/p̃(y)."""
    weight = old_t[token] / drawn_from(p_t, old_t, share)[token]
    ratio = weight * q_t[token] / old_t[token]
    bounded = min(max(ratio, 1 - clip), 1 + clip)
    return kl(q_t, p_t) - min(ratio * advantage, bounded * advantage)
