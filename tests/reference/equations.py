"""One function per equation: loops and `math`, nothing else, written from the papers and not from the library.

p is the target's (teacher's) distribution, q the student's; both are lists of V probabilities. 0 · log 0 = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p‖q) = Σ_v p_v · log(p_v / q_v), nats."""
    total = 0.0
    for p_v, q_v in zip(p, q, strict=True):
        if p_v == 0.0:
            continue
        if q_v == 0.0:
            return math.inf
        total += p_v * (math.log(p_v) - math.log(q_v))
    return total


def mixture(p: Sequence[float], q: Sequence[float], share: float) -> list[float]:
    """share · p + (1 − share) · q."""
    return [share * p_v + (1.0 - share) * q_v for p_v, q_v in zip(p, q, strict=True)]


def forward_kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p‖q): the summand of Eq. 1 of MGSR, arXiv 2407.10068."""
    return kl(p, q)


def reverse_kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(q‖p)."""
    return kl(q, p)


def symmetric_kl(p: Sequence[float], q: Sequence[float], reverse_share: float) -> float:
    """(1 − ρ) · KL(p‖q) + ρ · KL(q‖p)."""
    if reverse_share == 0.0:
        return kl(p, q)
    if reverse_share == 1.0:
        return kl(q, p)
    return (1.0 - reverse_share) * kl(p, q) + reverse_share * kl(q, p)


def jsd(p: Sequence[float], q: Sequence[float], beta: float) -> float:
    """β · KL(p‖m) + (1 − β) · KL(q‖m), m = β · p + (1 − β) · q (GKD, arXiv 2306.13649, Eq. 1); 0 and 1 are the KLs."""
    if beta == 0.0:
        return kl(p, q)
    if beta == 1.0:
        return kl(q, p)
    m = mixture(p, q, beta)
    return beta * kl(p, m) + (1.0 - beta) * kl(q, m)


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
    """½ · Σ_v |p_v − q_v|."""
    total = 0.0
    for p_v, q_v in zip(p, q, strict=True):
        total += abs(p_v - q_v)
    return 0.5 * total


def skew_forward_kl(p: Sequence[float], q: Sequence[float], alpha: float) -> float:
    """KL(p‖α · p + (1 − α) · q) (DistiLLM, arXiv 2402.03898)."""
    return kl(p, mixture(p, q, alpha))


def skew_reverse_kl(p: Sequence[float], q: Sequence[float], alpha: float) -> float:
    """KL(q‖α · q + (1 − α) · p) (DistiLLM, arXiv 2402.03898)."""
    return kl(q, mixture(q, p, alpha))


def likelihood(q: Sequence[float], token: int) -> float:
    """−log q(token): the summand of Eq. 2 of MGSR."""
    return -math.log(q[token]) if q[token] > 0.0 else math.inf


def distillation_loss(
    teacher: Sequence[Sequence[Sequence[float]]], student: Sequence[Sequence[Sequence[float]]], *, reduction: str
) -> float:
    """Eq. 1 of MGSR over several rows: rows × response tokens × V probabilities; see `reduced`."""
    losses = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        losses.append([forward_kl(p, q) for p, q in zip(teacher_row, student_row, strict=True)])
    return reduced(losses, reduction=reduction)


def likelihood_loss(
    student: Sequence[Sequence[Sequence[float]]], tokens: Sequence[Sequence[int]], *, reduction: str
) -> float:
    """Eq. 2 of MGSR over several rows: rows × response tokens × V probabilities; see `reduced`."""
    losses = []
    for student_row, row_tokens in zip(student, tokens, strict=True):
        losses.append([likelihood(q, token) for q, token in zip(student_row, row_tokens, strict=True)])
    return reduced(losses, reduction=reduction)


def reduced(losses: Sequence[Sequence[float]], *, reduction: str) -> float:
    """`token`: the mean over all tokens of all rows. `sequence`: the mean over rows of each row's mean.

    Rows without a token count in neither. A whole step without a token has no value.
    """
    rows = [row for row in losses if len(row) > 0]
    if not rows:
        raise ZeroDivisionError("no token to learn from")
    if reduction == "token":
        return sum(sum(row) for row in rows) / sum(len(row) for row in rows)
    if reduction == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    raise ValueError(reduction)


def longest_common_subsequence(a: Sequence[object], b: Sequence[object]) -> int:
    """The length of the longest sequence that is found in both, in order, with gaps."""
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                lengths[i + 1][j + 1] = lengths[i][j] + 1
            else:
                lengths[i + 1][j + 1] = max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[len(a)][len(b)]


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F = 2·P·R / (P + R), P = LCS / |prediction|, R = LCS / |reference| (Lin 2004, β = 1), on stemmed words."""
    if not prediction or not reference:
        return 0.0
    common = longest_common_subsequence(prediction, reference)
    precision = common / len(prediction)
    recall = common / len(reference)
    if precision + recall == 0.0:
        return 0.0
    return 2.0 * precision * recall / (precision + recall)


def rouge_l_best(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The largest `rouge_l` over the references."""
    return max(rouge_l(prediction, reference) for reference in references)


def clipped(gradients: Sequence[float], *, limit: float) -> list[float]:
    """Gradients scaled so that their Euclidean norm is at most `limit` (Pascanu et al. 2013)."""
    norm = math.sqrt(sum(gradient * gradient for gradient in gradients))
    scale = min(1.0, limit / norm) if norm > 0.0 else 1.0
    return [gradient * scale for gradient in gradients]


def adamw(
    parameter: float,
    gradients: Sequence[float],
    rates: Sequence[float],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> float:
    """One number after a step for each gradient and learning rate (Loshchilov & Hutter, arXiv 1711.05101, Alg. 2).

    θ ← θ − η·λ·θ;  m ← β1·m + (1 − β1)·g;  v ← β2·v + (1 − β2)·g²;  θ ← θ − η·m̂ / (√v̂ + ε)
    with m̂ = m / (1 − β1^k), v̂ = v / (1 − β2^k) at step k = 1, 2, … The decay is decoupled: it never enters m or v.
    """
    first_moment = 0.0
    second_moment = 0.0
    for k, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        parameter -= rate * weight_decay * parameter
        first_moment = betas[0] * first_moment + (1.0 - betas[0]) * gradient
        second_moment = betas[1] * second_moment + (1.0 - betas[1]) * gradient * gradient
        mean = first_moment / (1.0 - betas[0] ** k)
        variance = second_moment / (1.0 - betas[1] ** k)
        parameter -= rate * mean / (math.sqrt(variance) + epsilon)
    return parameter


def learning_rate(step: int, *, schedule: str, peak: float, steps: int, warmup: int = 0, final: float = 0.0) -> float:
    """The rate of step `step` = 0 … steps − 1.

    Warm-up: peak · (step + 1) / warmup for step < warmup, so that the first step already learns and step warmup − 1 has
    the peak. After it, with f = (step − warmup) / (steps − warmup) in [0, 1):
    constant: peak;  linear: final + (peak − final) · (1 − f);  cosine: final + (peak − final) · ½(1 + cos πf)
    (Loshchilov & Hutter, arXiv 1608.03983, Eq. 5, one period).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    fraction = (step - warmup) / max(1, steps - warmup)
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return final + (peak - final) * (1.0 - fraction)
    if schedule == "cosine":
        return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * fraction))
    raise ValueError(schedule)
