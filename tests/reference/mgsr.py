"""MGSR's token and span losses (arXiv 2407.10068, Eq. 5-11): loops and `math`, written from the paper.

p is the teacher's distribution, q the student's; both are lists of V probabilities. Where the paper leaves something
open, the reading is the one that docs/methods.md gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def logit(c: float) -> float:
    c = min(max(c, 1e-6), 1.0 - 1e-6)
    return math.log(c / (1.0 - c))


def bounds(a: float, b: float) -> tuple[float, float]:
    """The logits of l and u from the network's two outputs: υ = a + 6, λ = υ − softplus(b + 12)."""
    upper = a + 6.0
    return upper - math.log1p(math.exp(b + 12.0)), upper


def mass_coordinates(p: Sequence[float]) -> list[float]:
    """c_v = 1 − (mass of the likelier classes) − p_v / 2."""
    order = sorted(range(len(p)), key=lambda v: -p[v])
    found, above = [0.0] * len(p), 0.0
    for v in order:
        found[v] = 1.0 - above - p[v] / 2.0
        above += p[v]
    return found


def gates(places: Sequence[float], *, lower: float, upper: float, softness: float) -> list[float]:
    """σ((place − lower) / τ) · σ((upper − place) / τ)."""
    return [sigmoid((place - lower) / softness) * sigmoid((upper - place) / softness) for place in places]


def clipped_kl(p: Sequence[float], q: Sequence[float], m: Sequence[float], *, normalise: bool = True) -> float:
    """Σ p̃ log(p̃ / q), p̃ = m·p / Σ m·p; without normalising Σ m·p·log(p / q)."""
    mass = sum(m_v * p_v for m_v, p_v in zip(m, p, strict=True))
    total = 0.0
    for p_v, q_v, m_v in zip(p, q, m, strict=True):
        kept = m_v * p_v
        if kept == 0.0:
            continue
        total += kept / mass * math.log(kept / mass / q_v) if normalise else kept * math.log(p_v / q_v)
    return total


def dac_kl(
    p: Sequence[float], q: Sequence[float], *, lower: float, upper: float, top: int, softness: float = 0.5
) -> float:
    """Eq. 7-8 in the mass coordinate; classes after the `top` likeliest share the gate at half of their mass."""
    order = sorted(range(len(p)), key=lambda v: -p[v])
    coordinates = mass_coordinates(p)
    rest = order[top:]
    for v in rest:
        coordinates[v] = sum(p[w] for w in rest) / 2.0
    m = gates([logit(c) for c in coordinates], lower=lower, upper=upper, softness=softness)
    m[order[0]] = 1.0
    return clipped_kl(p, q, m)


def literal_dac_kl(p: Sequence[float], q: Sequence[float], *, l: float, u: float, softness: float = 0.5) -> float:  # noqa: E741
    """Eq. 7-8 with thresholds on the probabilities themselves, nothing renormalised."""
    places = [math.log(p_v) for p_v in p]
    m = gates(places, lower=math.log(l), upper=math.log(u), softness=softness)
    m[max(range(len(p)), key=lambda v: p[v])] = 1.0
    return clipped_kl(p, q, m, normalise=False)


def pair_distance(
    student: tuple[Sequence[float], Sequence[float]], teacher: tuple[Sequence[float], Sequence[float]]
) -> float:
    """‖s_j ∘ s_{j+1} − t_j ∘ t_{j+1}‖₂: the summand of Eq. 10."""
    rows = zip(*student, *teacher, strict=True)
    return math.sqrt(sum((a * b - c * d) ** 2 for a, b, c, d in rows) + 1e-12)


def span_loss(
    student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]], spans: Sequence[tuple[int, int]]
) -> float:
    """Eq. 10 of one sequence: 1/n_s Σ_i 1/n_si Σ_pairs; spans of one token are none."""
    kept = [(first, end) for first, end in spans if end - first > 1]
    if not kept:
        return 0.0
    total = 0.0
    for first, end in kept:
        inner = 0.0
        for j in range(first, end - 1):
            inner += pair_distance((student[j], student[j + 1]), (teacher[j], teacher[j + 1]))
        total += inner / (end - first)
    return total / len(kept)
