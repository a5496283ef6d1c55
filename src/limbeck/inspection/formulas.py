"""The formula of each component, as lines, with the source of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from limbeck.losses.clip_networks import MLP, FixedBounds
from limbeck.losses.correlation import Correlation
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import (
    JSD,
    TVD,
    ForwardKL,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    SymmetricKL,
)
from limbeck.losses.match import Likelihood, Match, TeacherTarget, UniformWeight
from limbeck.losses.objective import Reduction
from limbeck.revision import SCRG, KLDArgmax
from limbeck.sequences import Adaptive, Constant, Fixed, Linear, Mixture, Replay, Student, TeacherWritten
from limbeck.spans import Phrases

MGSR = "MGSR, arXiv 2407.10068"
_GKD = "GKD, arXiv 2306.13649"
_DISTILLM = "DistiLLM, arXiv 2402.03898"


class Formula(NamedTuple):
    """One line, and where it is from: paper and equation, or "" where it is Limbeck's own."""

    text: str
    source: str = ""


def formulas_of(component: object) -> tuple[Formula, ...]:
    """The lines of a component; none for a class that Limbeck does not know.

    p or t is the teacher's distribution, q or s the student's, y a response to x, all logarithms natural.

    >>> formulas_of(ForwardKL())
    (Formula(text='KL(t‖s) = Σ_v t_v · log(t_v / s_v)', source='MGSR, arXiv 2407.10068, Eq. 1'),)
    """
    found = FORMULAS.get(type(component), ())
    return found(component) if callable(found) else found


def loss_formula(scales: Mapping[str, float]) -> Formula:
    """The sum of the terms that have a weight.

    >>> loss_formula({"supervised": 1.0, "token": 0.5, "span": 0.0}).text
    '1 · supervised + 0.5 · token'
    """
    terms = [f"{scale:g} · {name}" for name, scale in scales.items() if scale]
    return Formula(" + ".join(terms) or "0", f"{MGSR}, Eq. 11" if len(terms) > 1 else "")


def reduction_formulas(reduction: Reduction, *, has_spans: bool) -> tuple[Formula, ...]:
    """What a term is a mean over."""
    if reduction == "token":
        lines = [Formula("token: 1/N · Σ over the step's N response tokens")]
        lines += [Formula("pair of span i: 1 / (M · n_si), M spans in the step")] if has_spans else []
    else:
        lines = [Formula("token: 1/R · Σ_rows 1/L_row · Σ_tokens", f"{MGSR}, Eq. 1 and Eq. 8")]
        lines += [Formula("pair: 1/R′ · Σ_rows 1/n_s · Σ_i 1/n_si · Σ_pairs", f"{MGSR}, Eq. 10")] if has_spans else []
    return tuple(lines)


def _replay(part: Replay) -> tuple[Formula, ...]:
    if part.replay_on_mixed:
        return (
            Formula("u(step) < φ → fresh rows into the buffer, learned from: rows of it", _DISTILLM),
            Formula("otherwise → fixed"),
        )
    shares = {"decreasing": "φ·(1 − t/T)", "constant": "φ/2", "increasing": "φ·t/T"}
    return (
        Formula("u(step) < s, or u(step) < φ while the buffer is not full → fresh", _DISTILLM),
        Formula("u(step) < φ → replayed, otherwise → fixed"),
        Formula(f"s(t) = {shares[part.fresh]}", _DISTILLM),
    )


def _scrg(part: SCRG) -> tuple[Formula, ...]:
    teacher = (
        Formula("y^t_i = argmax p(·|y_<i, x)") if part.greedy else Formula("y^t_i ~ p(·|y_<i, x)", f"{MGSR}, §4.1")
    )
    error = Formula("j = argmax { score_i : y_i ≠ y^t_i }", f"{MGSR}, Eq. 3")
    return (teacher, error, Formula("y ← y_1 … y_{j−1}, y^t_j, y_{j+1} ~ q_θ, …", f"{MGSR}, Eq. 4"))


def _kld(part: KLDArgmax) -> tuple[Formula, ...]:
    if part.direction == "student-teacher":
        return (Formula("score_i = KL(q_i‖p_i)", f"{MGSR}, Eq. 3"),)
    return (Formula("score_i = KL(p_i‖q_i)"),)


def _dac_kl(part: DACKL) -> tuple[Formula, ...]:
    features = "p, sort(p), q" if part.features == "full" else f"log p and log q of the {part.top} likeliest classes"
    is_learned = not isinstance(part.clip, FixedBounds)
    lines = [Formula(f"u, l = σ(f_sub({features}))", f"{MGSR}, Eq. 6")] if is_learned else []
    if part.coordinate == "mass":
        lines += [
            Formula("c_v = 1 − (mass of likelier classes) − p_v/2"),
            Formula("m_v = σ((logit c_v − logit l)/τ) · σ((logit u − logit c_v)/τ)", f"{MGSR}, Eq. 7"),
        ]
    else:
        lines += [Formula("m_v = σ((log p_v − log l)/τ) · σ((log u − log p_v)/τ)", f"{MGSR}, Eq. 7")]
    lines += [Formula("m_v = 1 for the teacher's likeliest class", f"{MGSR}, Eq. 7")]
    if part.normalise == "teacher":
        lines += [Formula("p̃_v = m_v·p_v / Σ m·p"), Formula("Σ_v p̃_v · log(p̃_v / q_v)", f"{MGSR}, Eq. 8")]
    else:
        lines += [Formula("Σ_v m_v·p_v · log(p_v / q_v)", f"{MGSR}, Eq. 8")]
    return tuple(lines)


FORMULAS: Mapping[type, tuple[Formula, ...] | Callable[[Any], tuple[Formula, ...]]] = {
    Fixed: (Formula("y as the corpus has it: (x, y) ~ (X, Y)"),),
    Student: (Formula("y ~ q_θ(·|x)", f"{_GKD}, λ = 1"),),
    TeacherWritten: (Formula("y ~ p(·|x), once for each prompt", "SeqKD, arXiv 1606.07947"),),
    Replay: _replay,
    Constant: (Formula("φ(t) = share", f"{_GKD}, λ"),),
    Linear: (Formula("φ(t) = first + (last − first)·t/T"),),
    Adaptive: (
        Formula("φ = min(1, initial + increase · rises)", _DISTILLM),
        Formula("L ≥ L_prev + rise → rises + 1, L_prev ← L", _DISTILLM),
    ),
    Mixture: (Formula("u(step) < share → first, else second", f"{_GKD}, Algorithm 1"),),
    SCRG: _scrg,
    KLDArgmax: _kld,
    Likelihood: (Formula("−log q_θ(y_i|y_<i, x)", f"{MGSR}, Eq. 2"),),
    Match: (Formula("weight · divergence(target‖student)"),),
    TeacherTarget: (Formula("t = p(·|y_<i, x)"),),
    UniformWeight: (Formula("1"),),
    ForwardKL: (Formula("KL(t‖s) = Σ_v t_v · log(t_v / s_v)", f"{MGSR}, Eq. 1"),),
    ReverseKL: (Formula("KL(s‖t)", "MiniLLM, arXiv 2306.08543, Eq. 1"),),
    SymmetricKL: (Formula("(1 − ρ)·KL(t‖s) + ρ·KL(s‖t), ρ = reverse_share", f"{MGSR}, Table 3c"),),
    JSD: (Formula("β·KL(t‖m) + (1 − β)·KL(s‖m), m = β·t + (1 − β)·s", f"{_GKD}, Eq. 1"),),
    TVD: (Formula("½ · Σ_v |t_v − s_v|", "f-distill, arXiv 2307.15190"),),
    SkewForwardKL: (Formula("KL(t‖α·t + (1 − α)·s)", _DISTILLM),),
    SkewReverseKL: (Formula("KL(s‖α·s + (1 − α)·t)", _DISTILLM),),
    DACKL: _dac_kl,
    MLP: (
        Formula("a, b = two layers of the features"),
        Formula("logit u = a + 6, logit l = logit u − softplus(b + 12)", f"{MGSR}, Eq. 6"),
    ),
    FixedBounds: (Formula("l = lower, u = upper for every token"),),
    Correlation: (Formula("‖q_j ∘ q_{j+1} − p_j ∘ p_{j+1}‖₂ per pair", f"{MGSR}, Eq. 10"),),
    Phrases: (Formula("s_i: the tokens j … j + n_si − 1 of phrase i", f"{MGSR}, Eq. 9"),),
}
