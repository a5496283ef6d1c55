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


def rank_coordinates(p: Sequence[float]) -> list[float]:
    """c_v = 1 − (number of likelier classes + 1/2) / V, over the V classes that have a probability."""
    order = sorted(range(len(p)), key=lambda v: -p[v])
    shared = sum(1 for p_v in p if p_v > 0.0)
    found = [0.0] * len(p)
    for place, v in enumerate(order):
        found[v] = 1.0 - (place + 0.5) / shared if place < shared else 0.0
    return found


def gates(
    places: Sequence[float], *, lower: float, upper: float, softness: float, is_hard: bool = False
) -> list[float]:
    """σ((place − lower) / τ) · σ((upper − place) / τ), or 1 from lower to upper and 0 elsewhere."""
    if is_hard:
        return [1.0 if lower <= place <= upper else 0.0 for place in places]
    return [sigmoid((place - lower) / softness) * sigmoid((upper - place) / softness) for place in places]


def clipped_kl(p: Sequence[float], q: Sequence[float], m: Sequence[float], *, normalise: str = "teacher") -> float:
    """What is kept, in the four readings of Eq. 8: none (R0), both (R1), rest (R2), teacher (R3)."""
    classes = [(p_v, q_v, m_v) for p_v, q_v, m_v in zip(p, q, m, strict=True) if p_v > 0.0]
    in_teacher = sum(m_v * p_v for p_v, _, m_v in classes)
    in_student = sum(m_v * q_v for _, q_v, m_v in classes)
    if in_teacher == 0.0 and normalise in ("teacher", "both"):
        return 0.0
    total = 0.0
    for p_v, q_v, m_v in classes:
        if m_v == 0.0:
            continue
        if normalise == "teacher":
            kept = m_v * p_v / in_teacher
            total += kept * math.log(kept / q_v)
        elif normalise == "both":
            kept = m_v * p_v / in_teacher
            total += kept * math.log(kept / (m_v * q_v / in_student))
        else:
            total += m_v * p_v * math.log(p_v / q_v)
    if normalise == "rest":
        teacher_left = sum((1.0 - m_v) * p_v for p_v, _, m_v in classes)
        student_left = sum((1.0 - m_v) * q_v for _, q_v, m_v in classes)
        total += teacher_left * math.log(teacher_left / student_left) if teacher_left > 0.0 else 0.0
    return total


def dac_kl(
    p: Sequence[float],
    q: Sequence[float],
    *,
    lower: float,
    upper: float,
    top: int,
    softness: float = 0.5,
    coordinate: str = "mass",
    is_hard: bool = False,
    parts: str = "both",
    normalise: str = "teacher",
) -> float:
    """Eq. 7-8 by mass or by rank; classes after the `top` likeliest share the gate in the middle of their mass, or of
    their ranks. `parts`: the dense classes, the target class, or both (Table 3b)."""
    order = sorted(range(len(p)), key=lambda v: -p[v])
    coordinates = mass_coordinates(p) if coordinate == "mass" else rank_coordinates(p)
    rest = [v for v in order[top:] if p[v] > 0.0]
    if rest:
        by_mass, by_rank = sum(p[v] for v in rest) / 2.0, sum(coordinates[v] for v in rest) / len(rest)
    for v in rest:
        coordinates[v] = by_mass if coordinate == "mass" else by_rank
    m = gates([logit(c) for c in coordinates], lower=lower, upper=upper, softness=softness, is_hard=is_hard)
    if parts == "target":
        m = [0.0] * len(p)
    if parts != "dense":
        m[order[0]] = 1.0
    return clipped_kl(p, q, m, normalise=normalise)


def literal_dac_kl(p: Sequence[float], q: Sequence[float], *, l: float, u: float, softness: float = 0.5) -> float:  # noqa: E741
    """Eq. 7-8 with thresholds on the probabilities themselves, nothing renormalised."""
    places = [math.log(p_v) for p_v in p]
    m = gates(places, lower=math.log(l), upper=math.log(u), softness=softness)
    m[max(range(len(p)), key=lambda v: p[v])] = 1.0
    return clipped_kl(p, q, m, normalise="none")


def top_k(p: Sequence[float], k: int) -> list[float]:
    """The k largest, renormalised."""
    kept = sorted(range(len(p)), key=lambda v: -p[v])[:k]
    mass = sum(p[v] for v in kept)
    return [p[v] / mass if v in kept else 0.0 for v in range(len(p))]


def nucleus(p: Sequence[float], least: float) -> list[float]:
    """The fewest classes, from the largest on, whose mass is `least` or more, renormalised."""
    kept: list[int] = []
    for v in sorted(range(len(p)), key=lambda v: -p[v]):
        kept.append(v)
        if sum(p[w] for w in kept) >= least:
            break
    mass = sum(p[v] for v in kept)
    return [p[v] / mass if v in kept else 0.0 for v in range(len(p))]


def tempered(p: Sequence[float], temperature: float) -> list[float]:
    """p^(1/T), renormalised: softmax(z / T)."""
    powers = [p_v ** (1.0 / temperature) for p_v in p]
    return [power / sum(powers) for power in powers]


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
