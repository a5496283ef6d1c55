"""What holds for every divergence, whatever the distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.losses import DIVERGENCES, Divergence

ALL: dict[str, Divergence] = {
    "forward-kl": DIVERGENCES["forward-kl"](),
    "reverse-kl": DIVERGENCES["reverse-kl"](),
    "symmetric-kl": DIVERGENCES["symmetric-kl"](),
    "symmetric-kl 0": DIVERGENCES["symmetric-kl"](reverse_share=0),
    "symmetric-kl 1": DIVERGENCES["symmetric-kl"](reverse_share=1),
    "jsd 0": DIVERGENCES["jsd"](beta=0),
    "jsd 0.1": DIVERGENCES["jsd"](beta=0.1),
    "jsd 0.5": DIVERGENCES["jsd"](beta=0.5),
    "jsd 1": DIVERGENCES["jsd"](beta=1),
    "tvd": DIVERGENCES["tvd"](),
    "skew-forward-kl": DIVERGENCES["skew-forward-kl"](),
    "skew-reverse-kl": DIVERGENCES["skew-reverse-kl"](),
}
every = pytest.mark.parametrize("divergence", ALL.values(), ids=ALL.keys())
BOUNDED = ("jsd 0.1", "jsd 0.5", "tvd", "skew-forward-kl", "skew-reverse-kl")
seeds = st.integers(0, 2**31)
vocabularies = st.sampled_from([2, 3, 17, 64])
scales = st.sampled_from([0.01, 1.0, 6.0, 30.0, 200.0])


def draw(seed: int, vocabulary: int, scale: float, *, rows: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, vocabulary, generator=noise, dtype=torch.float64)).log_softmax(-1).to(dtype)


def drop(logp: Tensor, ids: slice) -> Tensor:
    """The row without these ids: −inf there, the rest normalised again."""
    kept = logp.clone()
    kept[:, ids] = -math.inf
    return kept.log_softmax(-1)


def slope(divergence: Divergence, *, target_logp: Tensor, student_logp: Tensor) -> Tensor:
    student = student_logp.clone().requires_grad_()
    value = divergence(target_logp=target_logp, student_logp=student).sum()
    return torch.autograd.grad(value, student)[0]


def composed(name: str, target: Tensor, student: Tensor) -> Tensor:
    """The formulas spelt out for autograd, for rows without zeros."""
    p, q = target.exp(), student.exp()

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a.log() - b.log())).sum(-1)

    def jsd(beta: float) -> Tensor:
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)

    formulas: dict[str, Callable[[], Tensor]] = {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "symmetric-kl": lambda: 0.5 * kl(p, q) + 0.5 * kl(q, p),
        "symmetric-kl 0": lambda: kl(p, q),
        "symmetric-kl 1": lambda: kl(q, p),
        "jsd 0": lambda: kl(p, q),
        "jsd 0.1": lambda: jsd(0.1),
        "jsd 0.5": lambda: jsd(0.5),
        "jsd 1": lambda: kl(q, p),
        "tvd": lambda: 0.5 * (p - q).abs().sum(-1),
        "skew-forward-kl": lambda: kl(p, 0.1 * p + 0.9 * q),
        "skew-reverse-kl": lambda: kl(q, 0.1 * q + 0.9 * p),
    }
    return formulas[name]()


@every
@given(seed=seeds, vocabulary=vocabularies, scale=scales, dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=25, deadline=None)
def test_nothing_separates_a_distribution_from_itself(
    divergence: Divergence, seed: int, vocabulary: int, scale: float, dtype: torch.dtype
) -> None:
    p = drop(draw(seed, vocabulary + 1, scale, dtype=dtype), slice(vocabulary, None))
    assert torch.equal(divergence(target_logp=p, student_logp=p.clone()), torch.zeros(3, dtype=dtype))


@every
@given(seed=seeds, vocabulary=vocabularies, scale=scales, other=scales)
@settings(max_examples=25, deadline=None)
def test_never_negative(divergence: Divergence, seed: int, vocabulary: int, scale: float, other: float) -> None:
    p, q = draw(seed, vocabulary, scale), draw(seed + 1, vocabulary, other)
    assert (divergence(target_logp=p, student_logp=q) >= -1e-14).all()


@given(seed=seeds, vocabulary=vocabularies, scale=scales, other=scales, beta=st.floats(0.001, 0.999))
@settings(max_examples=50, deadline=None)
def test_jsd_is_bounded_and_turns_round_with_beta(
    seed: int, vocabulary: int, scale: float, other: float, beta: float
) -> None:
    p, q = draw(seed, vocabulary, scale), draw(seed + 1, vocabulary, other)
    value = DIVERGENCES["jsd"](beta=beta)(target_logp=p, student_logp=q)
    turned = DIVERGENCES["jsd"](beta=1 - beta)(target_logp=q, student_logp=p)
    torch.testing.assert_close(value, turned, rtol=1e-9, atol=1e-14)
    assert (value <= -beta * math.log(beta) - (1 - beta) * math.log(1 - beta) + 1e-12).all()


@given(seed=seeds, vocabulary=vocabularies, scale=scales)
@settings(max_examples=25, deadline=None)
def test_the_even_jsd_is_symmetric_and_at_most_log_2(seed: int, vocabulary: int, scale: float) -> None:
    p, q = draw(seed, vocabulary, scale), draw(seed + 1, vocabulary, scale)
    jsd = DIVERGENCES["jsd"]()
    value = jsd(target_logp=p, student_logp=q)
    torch.testing.assert_close(value, jsd(target_logp=q, student_logp=p), rtol=1e-9, atol=1e-14)
    assert (value <= math.log(2) + 1e-14).all()


@given(seed=seeds, vocabulary=vocabularies)
@settings(max_examples=25, deadline=None)
def test_end_points(seed: int, vocabulary: int) -> None:
    pair = {"target_logp": draw(seed, vocabulary, 2.0), "student_logp": draw(seed + 1, vocabulary, 2.0)}
    forward, backward = ALL["forward-kl"](**pair), ALL["reverse-kl"](**pair)
    assert torch.equal(ALL["jsd 0"](**pair), forward)
    assert torch.equal(ALL["jsd 1"](**pair), backward)
    assert torch.equal(ALL["symmetric-kl 0"](**pair), forward)
    assert torch.equal(ALL["symmetric-kl 1"](**pair), backward)
    tiny = 1e-7
    for name, limit in (("skew-forward-kl", forward), ("skew-reverse-kl", backward)):
        assert torch.equal(DIVERGENCES[name](alpha=0)(**pair), limit)
        torch.testing.assert_close(DIVERGENCES[name](alpha=tiny)(**pair), limit, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(DIVERGENCES["jsd"](beta=tiny)(**pair) / tiny, forward, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(DIVERGENCES["jsd"](beta=1 - tiny)(**pair) / tiny, backward, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 0.1])
def test_a_skew_kl_of_strangers_is_minus_log_alpha(alpha: float) -> None:
    p, q = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
    for name in ("skew-forward-kl", "skew-reverse-kl"):
        value = DIVERGENCES[name](alpha=alpha)(target_logp=p, student_logp=q)
        assert value.item() == pytest.approx(-math.log(alpha), rel=1e-5)


@every
@given(seed=seeds, vocabulary=vocabularies, scale=st.sampled_from([0.1, 1.0, 6.0]))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_vocabulary_is_nothing(
    divergence: Divergence, seed: int, vocabulary: int, scale: float
) -> None:
    p, q = draw(seed, vocabulary, scale), draw(seed + 1, vocabulary, scale)
    order = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
    value = divergence(target_logp=p, student_logp=q)
    permuted = divergence(target_logp=p[:, order], student_logp=q[:, order])
    torch.testing.assert_close(value, permuted, rtol=1e-10, atol=1e-14)


@every
@given(seed=seeds, scale=scales, dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=15, deadline=None)
def test_dropped_ids_change_nothing(divergence: Divergence, seed: int, scale: float, dtype: torch.dtype) -> None:
    p, q = (drop(draw(seed + i, 20, scale, dtype=dtype), slice(15, 20)) for i in range(2))
    value = divergence(target_logp=p, student_logp=q)
    without = divergence(target_logp=p[:, :15], student_logp=q[:, :15])
    torch.testing.assert_close(value, without, rtol=1e-5, atol=1e-6)
    gradient = slope(divergence, target_logp=p, student_logp=q)
    assert gradient.isfinite().all()
    assert (gradient[:, 15:] == 0).all()
    torch.testing.assert_close(
        gradient[:, :15], slope(divergence, target_logp=p[:, :15], student_logp=q[:, :15]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ALL)
@given(seed=seeds, vocabulary=vocabularies, scale=st.sampled_from([0.1, 1.0, 6.0]))
@settings(max_examples=15, deadline=None)
def test_the_gradient_is_that_of_autograd(name: str, seed: int, vocabulary: int, scale: float) -> None:
    p, q = draw(seed, vocabulary, scale), draw(seed + 1, vocabulary, scale)
    by_logits = q.clone().requires_grad_()
    expected_value = composed(name, p, by_logits)
    (expected,) = torch.autograd.grad(expected_value.sum(), by_logits)
    torch.testing.assert_close(ALL[name](target_logp=p, student_logp=q), expected_value.detach(), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(slope(ALL[name], target_logp=p, student_logp=q), expected, rtol=1e-8, atol=1e-12)


@every
def test_gradcheck_through_log_softmax(divergence: Divergence) -> None:
    target = draw(1, 7, 1.5)
    logits = draw(2, 7, 1.5).requires_grad_()
    weight = torch.tensor([0.3, 0.0, 1.7], dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        return weight * divergence(target_logp=target, student_logp=logits.log_softmax(-1))

    assert torch.autograd.gradcheck(loss, (logits,))


@every
@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_float32_follows_float64(divergence: Divergence, scale: float) -> None:
    # At 200 the far classes are below the smallest float32, and every exponential of a gap would overflow.
    p, q = draw(5, 300, scale, rows=6, dtype=torch.float32), draw(6, 300, scale, rows=6, dtype=torch.float32)
    value = divergence(target_logp=p, student_logp=q)
    exact = divergence(target_logp=p.double(), student_logp=q.double())
    torch.testing.assert_close(value.double(), exact, rtol=2e-4, atol=2e-5)
    gradient = slope(divergence, target_logp=p, student_logp=q)
    exact_gradient = slope(divergence, target_logp=p.double(), student_logp=q.double())
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_divergences_stay_finite_when_only_one_side_is_absent(name: str) -> None:
    p, q = drop(draw(1, 9, 1.0), slice(0, 3)), drop(draw(2, 9, 1.0), slice(6, 9))
    assert ALL[name](target_logp=p, student_logp=q).isfinite().all()
    assert slope(ALL[name], target_logp=p, student_logp=q).isfinite().all()


def test_a_true_infinity_is_not_hidden() -> None:
    full, part = draw(1, 9, 1.0), drop(draw(2, 9, 1.0), slice(6, 9))
    assert (ALL["forward-kl"](target_logp=full, student_logp=part) == math.inf).all()
    assert (ALL["reverse-kl"](target_logp=part, student_logp=full) == math.inf).all()
    assert (ALL["symmetric-kl"](target_logp=full, student_logp=part) == math.inf).all()
    assert ALL["forward-kl"](target_logp=part, student_logp=full).isfinite().all()


@every
@pytest.mark.parametrize("side", ["target_logp", "student_logp"])
def test_a_nan_is_not_hidden(divergence: Divergence, side: str) -> None:
    pair = {"target_logp": drop(draw(1, 9, 1.0), slice(8, 9)), "student_logp": drop(draw(2, 9, 1.0), slice(8, 9))}
    pair[side][1, 3] = math.nan
    assert divergence(**pair).isnan().tolist() == [False, True, False]


@every
def test_half_precision_is_raised_and_the_target_is_a_constant(divergence: Divergence) -> None:
    p, q = draw(1, 9, 1.0).bfloat16(), draw(2, 9, 1.0).to(torch.bfloat16)
    target, student = p.clone().requires_grad_(), q.clone().requires_grad_()
    value = divergence(target_logp=target, student_logp=student)
    assert value.dtype == torch.float32
    assert torch.equal(value, divergence(target_logp=p.float(), student_logp=q.float()))
    value.sum().backward()
    assert target.grad is None
    assert not divergence(target_logp=target, student_logp=q).requires_grad
    assert student.grad is not None
    assert student.grad.dtype == torch.bfloat16


@every
def test_inputs_are_left_alone_and_a_graph_can_be_walked_twice(divergence: Divergence) -> None:
    p, q = draw(1, 9, 1.0), draw(2, 9, 1.0)
    before = p.clone(), q.clone()
    student = q.requires_grad_()
    value = divergence(target_logp=p, student_logp=student).sum()
    first = torch.autograd.grad(value, student, retain_graph=True)[0]
    second = torch.autograd.grad(value, student)[0]
    assert torch.equal(first, second)
    assert torch.equal(p, before[0])
    assert torch.equal(student.detach(), before[1])
    empty = divergence(target_logp=p[:0], student_logp=q[:0])
    assert empty.shape == (0,)


@every
def test_many_rows_are_each_what_they_are_alone(divergence: Divergence) -> None:
    # 40 rows of 9,001 are walked in several tiles, the last of them not full.
    p, q = (draw(seed, 9001, 1.0, rows=40, dtype=torch.float32) for seed in (1, 2))
    together = divergence(target_logp=p, student_logp=q)
    gradient = slope(divergence, target_logp=p, student_logp=q)
    for row in (0, 13, 14, 39):
        alone = {"target_logp": p[row : row + 1], "student_logp": q[row : row + 1]}
        torch.testing.assert_close(together[row : row + 1], divergence(**alone), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient[row : row + 1], slope(divergence, **alone), rtol=1e-6, atol=1e-9)
