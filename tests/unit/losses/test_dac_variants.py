"""DAC-KL's other coordinates, gates, normalisations and parts, against the plain-Python reference and each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from clip_kit import built, scores_of, with_bounds
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.losses.clip_networks import FixedBounds
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import TokenScores
from reference import mgsr

NORMALISE = ("none", "both", "rest", "teacher")
VARIANTS = [
    {"coordinate": coordinate, "gates": gates, "parts": parts, "normalise": normalise}
    for coordinate, gates, parts, normalise in itertools.product(
        ("mass", "rank"), ("soft", "hard"), ("both", "dense"), NORMALISE
    )
]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))


def fixed(**fields: Any) -> DACKL:
    return DACKL(clip=FixedBounds(), **fields)


def top_or_all(top: int | None) -> dict[str, Any]:
    return {"features": "full"} if top is None else {"top": top}


@variants
@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    V=st.integers(2, 24),
    top=st.none() | st.integers(1, 30),
    upper=st.floats(-6, 8),
    width=st.floats(0, 14),
    sharp=st.floats(0.1, 6),
)
def test_every_variant_is_that_of_the_equations(
    variant: dict[str, Any], seed: int, V: int, top: int | None, upper: float, width: float, sharp: float
) -> None:
    scores = scores_of(3, V, seed=seed, sharp=sharp)
    found = with_bounds(fixed(**variant, **top_or_all(top)), V, lower=upper - width, upper=upper)(scores)
    expected = {
        **{key: variant[key] for key in ("coordinate", "parts", "normalise")},
        "is_hard": variant["gates"] == "hard",
        "top": min(top or V, V),
    }
    for n in range(3):
        p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
        whole = mgsr.dac_kl(p, q, lower=upper - width, upper=upper, **expected)
        assert found[n].item() == pytest.approx(whole, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("gates", ["soft", "straight-through", "hard"])
@pytest.mark.parametrize("coordinate", ["mass", "rank", "value"])
@pytest.mark.parametrize("parts", ["both", "dense"])
@pytest.mark.parametrize("top", [None, 5])
def test_open_gates_are_forward_kl_in_every_variant(
    normalise: str, gates: str, coordinate: str, parts: str, top: int | None
) -> None:
    scores = scores_of(2, 60)
    part = fixed(normalise=normalise, gates=gates, coordinate=coordinate, parts=parts, **top_or_all(top))
    expected = ForwardKL()(target_logp=scores.target_logp, student_logp=scores.student_logp)
    found = built(part, 60).measured(scores)
    torch.testing.assert_close(found.loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.values["kept_mass"], torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0)
    # Through log_softmax, where the entries are no longer free.
    logits = scores.student_logp.detach().requires_grad_()
    student_logp = logits.log_softmax(-1)
    again = TokenScores(student_logp=student_logp, target_logp=scores.target_logp, tokens=scores.tokens)
    (ours,) = torch.autograd.grad(built(part, 60)(again).sum(), logits, retain_graph=True)
    whole = ForwardKL()(target_logp=scores.target_logp, student_logp=student_logp)
    (theirs,) = torch.autograd.grad(whole.sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gates", ["soft", "straight-through", "hard"])
@pytest.mark.parametrize("coordinate", ["mass", "rank", "value"])
@pytest.mark.parametrize("bounds", [FixedBounds(), FixedBounds(0.0, 0.9), FixedBounds(0.1, 0.9)])
def test_ids_that_are_not_shared_change_nothing(gates: str, coordinate: str, bounds: FixedBounds) -> None:
    scores = scores_of(3, 20)
    part = DACKL(clip=bounds, gates=gates, coordinate=coordinate)
    shared = [id for id in range(24) if id not in (3, 7, 8, 23)]

    def among(logp_nV: torch.Tensor) -> torch.Tensor:
        return torch.full((3, 24), -torch.inf, dtype=logp_nV.dtype).index_copy(1, torch.tensor(shared), logp_nV)

    student_logp = among(scores.student_logp.detach()).requires_grad_()
    wide = TokenScores(student_logp=student_logp, target_logp=among(scores.target_logp), tokens=scores.tokens)
    found, expected = built(part, 24)(wide), built(part, 20)(scores)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), student_logp)
    assert slope[:, shared].isfinite().all()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    coordinate=st.sampled_from(["mass", "rank", "value"]),
    top=st.none() | st.integers(1, 30),
    upper=st.floats(-4, 8),
    width=st.floats(0, 10),
)
def test_the_four_losses_of_a_hard_set_are_tied_to_each_other(
    seed: int, coordinate: str, top: int | None, upper: float, width: float
) -> None:
    """R0 = P·(R3 + log P),  R1 = R3 + log Q,  R2 = R0 + (1 − P)·log((1 − P)/(1 − Q))."""
    scores = scores_of(5, 20, seed=seed)
    r0, r1, r2, r3 = (
        with_bounds(
            fixed(normalise=normalise, gates="hard", coordinate=coordinate, **top_or_all(top)),
            20,
            lower=upper - width,
            upper=upper,
        ).measured(scores)
        for normalise in NORMALISE
    )
    term = with_bounds(
        fixed(gates="hard", coordinate=coordinate, **top_or_all(top)), 20, lower=upper - width, upper=upper
    )
    gates = term.gates(scores)
    assert set(gates.unique().tolist()) <= {0.0, 1.0}
    in_teacher, in_student = r3.values["kept_mass"], (gates * scores.student_logp.exp()).sum(-1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(r0.loss, in_teacher * (r3.loss + in_teacher.log()), **close)
    torch.testing.assert_close(r1.loss, r3.loss + in_student.log(), **close)
    left, student_left = 1 - in_teacher, 1 - in_student
    rest = torch.where(left > 1e-12, left * (left / student_left.clamp(min=1e-300)).log(), 0.0)
    torch.testing.assert_close(r2.loss, r0.loss + rest, **close)
    assert (r3.loss >= -in_student.log() - 1e-9).all()
    assert min(each.loss.min() for each in (r1, r2, r3)) > -1e-9
    whole = ForwardKL()(target_logp=scores.target_logp, student_logp=scores.student_logp)
    assert (r2.loss <= whole + 1e-9).all(), "a coarser partition is never farther"


def test_one_class_is_free_where_both_are_renormalised_and_costs_its_likelihood_where_the_teacher_is() -> None:
    scores = scores_of(6, 30)
    likelihood = -scores.student_logp.gather(1, scores.target_logp.argmax(-1, keepdim=True)).squeeze(1)
    bounds = {"lower": 60.0, "upper": 70.0}
    alone = with_bounds(fixed(normalise="both"), 30, **bounds)(scores)
    torch.testing.assert_close(alone, torch.zeros_like(alone), rtol=0, atol=1e-12)
    torch.testing.assert_close(with_bounds(fixed(), 30, **bounds)(scores), likelihood)
    torch.testing.assert_close(built(fixed(parts="target"), 30)(scores), likelihood)
    assert built(fixed(parts="target"), 30).gates(scores).sum(-1).tolist() == [1.0] * 6


def test_the_printed_sum_may_be_negative_and_the_others_are_not() -> None:
    p, q = torch.tensor([[0.4, 0.35, 0.25]], dtype=torch.float64), torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    scores = TokenScores(student_logp=q.log(), target_logp=p.log(), tokens=torch.tensor([0]))
    found = {
        normalise: built(fixed(normalise=normalise, parts="target"), 3)(scores).item()
        for normalise in ("none", "rest", "teacher")
    }
    assert found["none"] == pytest.approx(0.4 * math.log(0.4 / 0.7))
    assert found["rest"] == pytest.approx(0.4 * math.log(0.4 / 0.7) + 0.6 * math.log(0.6 / 0.3))
    assert found["teacher"] == pytest.approx(-math.log(0.7))
    assert found["none"] < 0 < found["rest"] < found["teacher"]


@pytest.mark.parametrize("top", [None, 4])
def test_the_dense_region_alone_may_leave_the_likeliest_class_out(top: int | None) -> None:
    """u below the head: the likeliest class has next to no gate; the smaller u, the less, but the loss stays finite."""
    scores = scores_of(5, 30, sharp=4.0)
    target = scores.target_logp.argmax(-1, keepdim=True)
    for upper in (-3.0, -60.0, -4000.0):
        dense, whole = (
            with_bounds(fixed(parts=parts, **top_or_all(top)), 30, lower=upper - 8, upper=upper)
            for parts in ("dense", "both")
        )
        assert dense.gates(scores).gather(1, target).max() < 0.02
        assert torch.equal(whole.gates(scores).gather(1, target), torch.ones(5, 1, dtype=torch.float64))
        loss = dense(scores)
        assert loss.isfinite().all()
        (gradient,) = torch.autograd.grad(loss.sum(), scores.student_logp)
        # p̃ sums to 1 even where Σ m·p underflows.
        torch.testing.assert_close(gradient.sum(-1), -torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("gates", ["soft", "straight-through", "hard"])
@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_token_of_which_nothing_is_kept_costs_nothing(gates: str, normalise: str) -> None:
    scores = scores_of(3, 12)
    far = 1e6 if gates == "soft" else 60.0
    term = with_bounds(fixed(gates=gates, parts="dense", normalise=normalise), 12, lower=far, upper=far + 1)
    found = term.measured(scores)
    everything_is_rest = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(found.loss, everything_is_rest, rtol=0, atol=1e-12)
    assert found.values["kept_mass"].tolist() == [0.0] * 3
    found.loss.sum().backward()
    assert scores.student_logp.grad is None or scores.student_logp.grad.isfinite().all()


def test_by_rank_each_class_lies_at_its_share_of_the_classes() -> None:
    scores = scores_of(2, 8)
    order = scores.target_logp.argsort(-1, descending=True)
    for lower, upper, kept in ((0.0, 0.5, [0, 4, 5, 6, 7]), (0.5, 1.0, [0, 1, 2, 3]), (0.35, 0.65, [0, 3, 4])):
        part = DACKL(clip=FixedBounds(lower, upper), coordinate="rank", gates="hard", features="full")
        gates = built(part, 8).gates(scores).gather(1, order)
        assert [row.nonzero().flatten().tolist() for row in gates] == [kept, kept]


def test_by_rank_the_classes_beside_the_top_share_the_gate_of_their_middle() -> None:
    """V = 8, K = 2: the six others lie at c = (8 − 2)/16 = 3/8."""
    scores = scores_of(2, 8)
    order = scores.target_logp.argsort(-1, descending=True)
    for upper, shared in ((0.37, 0.0), (0.38, 1.0)):
        part = DACKL(clip=FixedBounds(0.0, upper), coordinate="rank", gates="hard", top=2)
        gates = built(part, 8).gates(scores).gather(1, order)
        assert gates.tolist() == [[1.0, 0.0, *[shared] * 6]] * 2


@pytest.mark.parametrize("coordinate", ["mass", "rank"])
def test_a_learned_clip_starts_open_by_mass_and_by_rank(coordinate: str) -> None:
    scores = scores_of(3, 3000, sharp=1.0)
    found = built(DACKL(coordinate=coordinate, features="full"), 3000).measured(scores)
    assert found.values["kept_mass"].min() > 0.98
    whole = ForwardKL()(target_logp=scores.target_logp, student_logp=scores.student_logp)
    torch.testing.assert_close(found.loss, whole, rtol=0.05, atol=0.02)


@variants
@pytest.mark.parametrize("top", [None, 3])
def test_ids_that_are_not_shared_count_for_nothing_in_any_variant(variant: dict[str, Any], top: int | None) -> None:
    scores = scores_of(4, 10)
    inf = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    wider = TokenScores(
        student_logp=torch.cat([inf, scores.student_logp], dim=1).detach().requires_grad_(),
        target_logp=torch.cat([inf, scores.target_logp], dim=1),
        tokens=scores.tokens,
    )
    bounds = {"lower": -1.0, "upper": 0.8}
    part = fixed(**variant, **top_or_all(top))
    ours = with_bounds(part, 13, **bounds)(wider)
    torch.testing.assert_close(ours, with_bounds(part, 10, **bounds)(scores), rtol=1e-10, atol=1e-10)
    if ours.requires_grad:
        ours.sum().backward()
        assert wider.student_logp.grad.isfinite().all()


@pytest.mark.parametrize("gates", ["soft", "hard"])
@pytest.mark.parametrize("coordinate", ["mass", "rank", "value"])
@pytest.mark.parametrize("top", [None, 4])
@pytest.mark.parametrize(("parts", "normalise"), [("both", "rest"), ("dense", "both"), ("target", "teacher")])
def test_the_gates_to_look_at_are_those_of_the_loss(
    gates: str, coordinate: str, top: int | None, parts: str, normalise: str
) -> None:
    scores = scores_of(2, 20)
    part = fixed(gates=gates, coordinate=coordinate, parts=parts, normalise=normalise, **top_or_all(top))
    term = with_bounds(part, 20, lower=-2.0, upper=1.0)
    found, shown = term.measured(scores), term.gates(scores)
    torch.testing.assert_close((shown * scores.target_logp.exp()).sum(-1), found.values["kept_mass"])
    torch.testing.assert_close(shown.sum(-1), found.values["kept_classes"])
    for n in range(2):
        p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
        expected = mgsr.clipped_kl(p, q, shown[n].tolist(), normalise=normalise)
        assert found.loss[n].item() == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("top", [6, 512])
def test_in_float32_the_losses_follow_float64(normalise: str, top: int) -> None:
    exact = scores_of(8, 2000, sharp=5.0)
    rough = TokenScores(
        student_logp=exact.student_logp.detach().float(), target_logp=exact.target_logp.float(), tokens=exact.tokens
    )
    ours = with_bounds(fixed(normalise=normalise, top=top), 2000, lower=-6.0, upper=6.0).float()(rough)
    theirs = with_bounds(fixed(normalise=normalise, top=top), 2000, lower=-6.0, upper=6.0)(exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=2e-5)
