"""The formula of each component, as lines, with the source of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from limbeck.losses.clip_networks import MLP, FixedBounds, RankedClipNetwork
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
from limbeck.losses.objective import PLAIN_TEXT, Reduction
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.losses.ranked_networks import Convolutional, Recurrent
from limbeck.losses.targets import NucleusTarget, OtherRowTarget, PushedDownTarget, TopKTarget
from limbeck.revision import SCRG, AttentionArgmax, Heuristic, KLDArgmax, RandomToken
from limbeck.sequences import (
    Adaptive,
    BestOf,
    CollectedRollouts,
    Constant,
    Fixed,
    Linear,
    Mixture,
    Replay,
    Student,
    TeacherWritten,
)
from limbeck.spans import Learned, Phrases, Sentences, SpacyPhrases, Whole, Window

MGSR = "MGSR, arXiv 2407.10068"
_GKD = "GKD, arXiv 2306.13649"
_DISTILLM = "DistiLLM, arXiv 2402.03898"
_MINILLM = "MiniLLM, arXiv 2306.08543"


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
    is_sum = sum(bool(scale) for name, scale in scales.items() if name != PLAIN_TEXT) > 1
    return Formula(" + ".join(terms) or "0", f"{MGSR}, Eq. 11" if is_sum else "")


PLAIN_TEXT_FORMULA = Formula("−log q_θ(d_i|d_<i), d a text of data.plain_text", f"{_MINILLM}, Algorithm 1")
"""The term beside a method's rows, on texts without a prompt."""


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


def _heuristic(part: Heuristic) -> tuple[Formula, ...]:
    lines = []
    if part.loop_tokens is not None:
        lines += [Formula(f"score_i = 3 where y_i … y_{{i+{part.loop_tokens - 1}}} stood in y before")]
    if part.rise is not None:
        z = f"z = (−log p(y_i) − μ_<i) / max(σ_<i, {part.rise_floor:g})"
        lines += [Formula(f"else 1 + z/(1 + z) where {z} > {part.rise:g}")]
    if part.top_p is not None:
        lines += [Formula(f"else R_i = (mass of classes likelier than y_i) where R_i ≥ {part.top_p:g}")]
    return (*lines, Formula("else −∞: no error"))


def _match(part: Match) -> tuple[Formula, ...]:
    if part.temperature_square_scaled == 1:
        return (Formula("weight · divergence(target‖student)"),)
    softened = f"weight · T² · divergence(target^(1/T)‖student^(1/T)), T = {part.temperature_square_scaled:g}"
    return (Formula(softened, "Hinton et al., arXiv 1503.02531, section 2"),)


def _bounds(outputs: str) -> tuple[Formula, ...]:
    """What a learned clip network makes of its two outputs."""
    bounds = Formula("logit u = a + 6, logit l = logit u − softplus(b + 12)", f"{MGSR}, Eq. 6")
    return (Formula(outputs), bounds)


_KEPT_LOSSES = {
    "teacher": ("p̃_v = m_v·p_v / Σ m·p", "Σ_v p̃_v · log(p̃_v / q_v)"),
    "none": ("Σ_v m_v·p_v · log(p_v / q_v)",),
    "both": ("P = Σ m·p, Q = Σ m·q", "1/P · Σ_v m_v·p_v · log(p_v / q_v) − log(P/Q)"),
    "rest": ("P = Σ m·p, Q = Σ m·q", "Σ_v m_v·p_v · log(p_v / q_v) + (1 − P) · log((1 − P) / (1 − Q))"),
}


def _dac_kl(part: DACKL) -> tuple[Formula, ...]:
    features = f"log p and log q of the {part.top} likeliest classes"
    if part.features == "full":
        features = "p, sort(p), q" if not isinstance(part.clip, RankedClipNetwork) else "p and q by rank of p"
    lines = [Formula(f"u, l = σ(f_sub({features}))", f"{MGSR}, Eq. 6")] if part.clip.learning_rate else []
    if part.parts == "target":
        lines += [Formula("m_v = 1 for the teacher's likeliest class, 0 for all others", f"{MGSR}, Table 3b")]
    else:
        lines += _gates(part)
    *before, loss = _KEPT_LOSSES[part.normalise]
    lines += [*(Formula(line) for line in before), Formula(loss, f"{MGSR}, Eq. 8")]
    own = [
        *([f"{part.size_weight:g} · Σ m / V"] if part.size_weight else []),
        *([f"{part.coverage_weight:g} · max(0, {part.least_mass:g} − Σ m·p)²"] if part.coverage_weight else []),
    ]
    if own:
        whose = "the clip network's own loss" if part.clip_objective == "detached" else "added"
        lines += [Formula(f"{whose}: {' + '.join(own)}")]
    return tuple(lines)


def _gates(part: DACKL) -> list[Formula]:
    lines = {
        "mass": [Formula("c_v = 1 − (mass of likelier classes) − p_v/2")],
        "rank": [Formula("c_v = 1 − (number of likelier classes + ½) / V")],
        "value": [],
    }[part.coordinate]
    if part.gates == "hard":
        inside = "l ≤ p_v ≤ u" if part.coordinate == "value" else "l ≤ c_v ≤ u"
        lines += [Formula(f"m_v = 1 where {inside}, else 0", f"{MGSR}, Eq. 7")]
    elif part.coordinate == "value":
        lines += [Formula("m_v = σ((log p_v − log l)/τ) · σ((log u − log p_v)/τ)", f"{MGSR}, Eq. 7")]
    else:
        lines += [Formula("m_v = σ((logit c_v − logit l)/τ) · σ((logit u − logit c_v)/τ)", f"{MGSR}, Eq. 7")]
    if part.gates == "straight-through":
        lines += [Formula("m_v ← 1 or 0, inside or outside of l and u; the derivative is that of σ · σ")]
    if part.parts == "both":
        lines += [Formula("m_v = 1 for the teacher's likeliest class", f"{MGSR}, Eq. 7")]
    return lines


def _reverse_kl_gradient(part: ReverseKLGradient) -> tuple[Formula, ...]:
    starts_next = part.returns_from == "next" or (part.returns_from == "auto" and part.single_step)
    weight = "w_t · " if part.weigh_long_term else ""
    first, exponent, count = ("t + 1", "t'−t−1", "T − t") if starts_next else ("t", "t'−t", "T − t + 1")
    discount = f"γ^{{{exponent}}} · " if part.gamma != 1 else ""
    mean = f"1/({count}) · " if part.length_normalised else ""
    lines = [Formula(f"{'w_t · ' if part.weigh_single_step else ''}KL(q_t‖p_t)", f"{_MINILLM}, Eq. 3")]
    lines = lines if part.single_step else []
    lines += [
        Formula("− min(ρ_t·A_t, clip(ρ_t, 1 − c, 1 + c)·A_t), c = clip"),
        Formula(f"ρ_t = {weight}q_θ(y_t)/q_old(y_t)"),
    ]
    is_weighed = part.weigh_long_term or part.weigh_single_step
    lines += [Formula("w_t = q_old(y_t)/p̃_t(y_t)", f"{_MINILLM}, Eq. 5")] if is_weighed else []
    lines += [
        Formula(f"R_t = {mean}Σ_{{t' = {first}}}^T {discount}r_t'", f"{_MINILLM}, Eq. 6"),
        Formula("r_t = log p(y_t) − log q_old(y_t)", f"{_MINILLM}, Eq. 2"),
    ]
    made = "(R − mean)/std over the collection's response tokens" if part.whitened else "R"
    return (*lines, Formula(f"A = {made}"))


FORMULAS: Mapping[type, tuple[Formula, ...] | Callable[[Any], tuple[Formula, ...]]] = {
    Fixed: (Formula("y as the corpus has it: (x, y) ~ (X, Y)"),),
    Student: (Formula("y ~ q_θ(·|x)", f"{_GKD}, λ = 1"),),
    BestOf: (Formula("y = argmax_k 1/|y^k| · log p(y^k|x), y^1 … y^count ~ q_θ(·|x)"),),
    TeacherWritten: (Formula("y ~ p(·|x), once for each prompt", "SeqKD, arXiv 1606.07947"),),
    Replay: _replay,
    Constant: (Formula("φ(t) = share", f"{_GKD}, λ"),),
    Linear: (Formula("φ(t) = first + (last − first)·t/T"),),
    Adaptive: (
        Formula("φ = min(1, initial + increase · rises)", _DISTILLM),
        Formula("L ≥ L_prev + rise → rises + 1, L_prev ← L", _DISTILLM),
    ),
    Mixture: (Formula("u(step) < share → first, else second", f"{_GKD}, Algorithm 1"),),
    CollectedRollouts: (
        Formula("y_t ~ p̃_t = a·p_t + (1 − a)·q_t, a = teacher_share", f"{_MINILLM}, Eq. 4"),
        Formula("`rows` responses, then `epochs` passes over them"),
    ),
    SCRG: _scrg,
    KLDArgmax: _kld,
    RandomToken: (Formula("score_i = u_i ~ U[0, 1), by seed, row, round and position"),),
    Heuristic: _heuristic,
    AttentionArgmax: (
        Formula("score_i = mean of A_lh[k, i] over response tokens k > i that see i, heads h, layers l"),
        Formula("l: the last quarter of the teacher's attention layers"),
    ),
    Likelihood: (Formula("−log q_θ(y_i|y_<i, x)", f"{MGSR}, Eq. 2"),),
    Match: _match,
    TeacherTarget: (Formula("t = p(·|y_<i, x)"),),
    TopKTarget: (Formula("t_v = p_v / Σ_top p for the k likeliest classes, else 0"),),
    NucleusTarget: (
        Formula("t_v = p_v / Σ_nucleus p where the mass of likelier classes is < p, else 0", "arXiv 1904.09751, Eq. 2"),
    ),
    OtherRowTarget: (Formula("t_i = p(·|y′_<k, x′), (x′, y′) the next row of the step, k = i mod |y′|"),),
    PushedDownTarget: (Formula("t_v ∝ s_v · e^(−by·[v = y_i]), s the student, detached"),),
    UniformWeight: (Formula("1"),),
    ForwardKL: (Formula("KL(t‖s) = Σ_v t_v · log(t_v / s_v)", f"{MGSR}, Eq. 1"),),
    ReverseKL: (Formula("KL(s‖t)", "MiniLLM, arXiv 2306.08543, Eq. 1"),),
    SymmetricKL: (Formula("(1 − ρ)·KL(t‖s) + ρ·KL(s‖t), ρ = reverse_share", f"{MGSR}, Table 3c"),),
    JSD: (Formula("β·KL(t‖m) + (1 − β)·KL(s‖m), m = β·t + (1 − β)·s", f"{_GKD}, Eq. 1"),),
    TVD: (Formula("½ · Σ_v |t_v − s_v|", "f-distill, arXiv 2307.15190"),),
    SkewForwardKL: (Formula("KL(t‖α·t + (1 − α)·s)", _DISTILLM),),
    SkewReverseKL: (Formula("KL(s‖α·s + (1 − α)·t)", _DISTILLM),),
    DACKL: _dac_kl,
    ReverseKLGradient: _reverse_kl_gradient,
    MLP: _bounds("a, b = two layers of the features"),
    Convolutional: _bounds("a, b = two convolutions along the classes by rank, their mean and maximum, one layer"),
    Recurrent: _bounds("a, b = a GRU along the classes by rank, the likeliest last, one layer"),
    FixedBounds: (Formula("l = lower, u = upper for every token"),),
    Correlation: (Formula("‖q_j ∘ q_{j+1} − p_j ∘ p_{j+1}‖₂ per pair", f"{MGSR}, Eq. 10"),),
    Phrases: (Formula("s_i: the tokens j … j + n_si − 1 of phrase i", f"{MGSR}, Eq. 9"),),
    SpacyPhrases: (Formula("s_i: the tokens j … j + n_si − 1 of phrase i", f"{MGSR}, Eq. 9"),),
    Sentences: (Formula("s_i: the tokens of sentence i, from one mark . ! ? … 。 । to the next"),),
    Window: (Formula("s_i = [i·size, (i + 1)·size), tokens of the response"),),
    Whole: (Formula("s_1 = [0, n), all tokens of the response"),),
    Learned: (
        Formula("s_i: a longest run with NPMI(y_j, y_{j+1}) ≥ threshold"),
        Formula("NPMI(a, b) = log(p(a, b) / (p(a)·p(b))) / −log p(a, b)", "Bouma 2009"),
    ),
}
