"""DAC-KL against the plain-Python reference, its identities, and where its gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from clip_kit import built, scores_of, with_bounds
from hypothesis import given
from hypothesis import strategies as st

from limbeck.losses.clip_networks import MLP, FixedBounds
from limbeck.losses.dac import DACKL
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import TokenScores
from reference import mgsr


@given(
    seed=st.integers(0, 10_000),
    V=st.integers(2, 24),
    top=st.integers(1, 30),
    upper=st.floats(-6, 8),
    width=st.floats(0, 14),
    sharp=st.floats(0.1, 6),
)
def test_the_clip_is_that_of_the_equations(
    seed: int, V: int, top: int, upper: float, width: float, sharp: float
) -> None:
    scores = scores_of(3, V, seed=seed, sharp=sharp)
    found = with_bounds(DACKL(top=top), V, lower=upper - width, upper=upper)(scores)
    for n in range(3):
        p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
        expected = mgsr.dac_kl(p, q, lower=upper - width, upper=upper, top=min(top, V))
        assert found[n].item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("normalise", ["teacher", "none"])
def test_the_full_sort_gives_what_the_top_gives_where_the_top_is_all(normalise: str) -> None:
    scores = scores_of(5, 19)
    top, full = (
        with_bounds(DACKL(features=features, normalise=normalise), 19, lower=-2.0, upper=1.5)
        for features in ("topk", "full")
    )
    torch.testing.assert_close(top(scores), full(scores), rtol=1e-12, atol=1e-12)


def test_the_literal_reading_is_that_of_the_reference() -> None:
    scores = scores_of(4, 9)
    term = with_bounds(
        DACKL(features="full", coordinate="value", normalise="none"), 9, lower=mgsr.logit(0.05), upper=mgsr.logit(0.6)
    )
    for n, value in enumerate(term(scores).tolist()):
        p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
        assert value == pytest.approx(mgsr.literal_dac_kl(p, q, l=0.05, u=0.6), rel=1e-9)


@pytest.mark.parametrize("V", [7, 300])
@pytest.mark.parametrize("features", ["topk", "full"])
def test_open_gates_are_forward_kl(V: int, features: str) -> None:
    scores = scores_of(6, V)
    term = built(DACKL(clip=FixedBounds(), features=features, **({"top": 40} if features == "topk" else {})), V)
    expected = ForwardKL()(target_logp=scores.target_logp, student_logp=scores.student_logp)
    torch.testing.assert_close(term(scores), expected, rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(term(scores).sum(), scores.student_logp)
    (theirs,) = torch.autograd.grad(expected.sum(), scores.student_logp)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("top", [1, 5, 512])
def test_shut_gates_leave_the_target_alone(top: int) -> None:
    scores = scores_of(6, 30)
    found = with_bounds(DACKL(top=top), 30, lower=60.0, upper=70.0).measured(scores)
    target = scores.target_logp.argmax(-1, keepdim=True)
    torch.testing.assert_close(found.loss, -scores.student_logp.gather(1, target).squeeze(1), rtol=1e-12, atol=1e-12)
    assert found.values["only_target"].tolist() == [1.0] * 6
    torch.testing.assert_close(found.values["kept_mass"], scores.target_logp.amax(-1).exp())


@given(seed=st.integers(0, 1000), upper=st.floats(-4, 8), width=st.floats(0, 14))
def test_it_is_never_negative_and_keeps_at_most_everything(seed: int, upper: float, width: float) -> None:
    found = with_bounds(DACKL(top=6), 20, lower=upper - width, upper=upper).measured(scores_of(4, 20, seed=seed))
    assert found.loss.min() > -1e-12
    assert found.values["kept_mass"].min() > 0
    assert found.values["kept_mass"].max() <= 1 + 1e-12
    assert 1 <= found.values["kept_classes"].min() <= found.values["kept_classes"].max() <= 20


def test_normalising_obeys_the_identity_of_hard_sets() -> None:
    """R0 = P_S · (R3 + log P_S) for a set S."""
    scores = scores_of(8, 12)
    softly = {"lower": mgsr.logit(0.1), "upper": mgsr.logit(0.8)}
    hard = {"softness": 1e-6, "features": "full"}
    r3 = with_bounds(DACKL(**hard), 12, **softly).measured(scores)
    r0 = with_bounds(DACKL(**hard, normalise="none"), 12, **softly)(scores)
    mass = r3.values["kept_mass"]
    torch.testing.assert_close(r0, mass * (r3.loss + mass.log()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "part",
    [
        DACKL(top=8),
        DACKL(features="full"),
        DACKL(features="full", coordinate="value", normalise="none"),
        DACKL(top=8, coordinate="value"),
    ],
)
def test_the_gradient_reaches_student_and_network_and_nothing_else(part: DACKL) -> None:
    scores = scores_of(6, 30)
    scores.target_logp.requires_grad_()
    term = built(part, 30)
    with torch.no_grad():
        term.network.second_weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    term(scores).sum().backward()
    assert scores.target_logp.grad is None
    assert scores.student_logp.grad.abs().max() > 0
    for name, parameter in term.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_the_thresholds_give_the_student_no_gradient() -> None:
    """Its gradient is −p̃, the same as under bounds that are no function of it."""
    scores = scores_of(5, 30)
    term = built(DACKL(top=8), 30)
    with torch.no_grad():
        term.network.second_weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    found = term.measured(scores)
    (ours,) = torch.autograd.grad(found.loss.sum(), scores.student_logp)
    for n in range(5):
        one = TokenScores(
            student_logp=scores.student_logp[n : n + 1],
            target_logp=scores.target_logp[n : n + 1],
            tokens=scores.tokens[n : n + 1],
        )
        told = {key: math.log(x / (1 - x)) for key in ("lower", "upper") for x in [found.values[key][n].item()]}
        (alone,) = torch.autograd.grad(with_bounds(DACKL(top=8), 30, **told)(one).sum(), one.student_logp)
        torch.testing.assert_close(ours[n : n + 1], alone, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(ours.sum(-1), -torch.ones(5, dtype=torch.float64))


def test_value_and_gradient_agree_with_finite_differences() -> None:
    scores = scores_of(2, 11)
    term = built(DACKL(top=4, clip=MLP(hidden=3)), 11)
    with torch.no_grad():
        term.network.second_weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    detached = term.network(torch.zeros(1, 12, dtype=torch.float64))

    def loss(student: torch.Tensor) -> torch.Tensor:
        fixed = with_bounds(DACKL(top=4), 11, lower=detached.lower.item(), upper=detached.upper.item())
        return fixed(TokenScores(student_logp=student, target_logp=scores.target_logp, tokens=scores.tokens)).sum()

    assert torch.autograd.gradcheck(loss, scores.student_logp.detach().requires_grad_())

    def by_network(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(term, {"network.second_weight": weight}, (scores,)).sum()

    assert torch.autograd.gradcheck(by_network, term.network.second_weight.detach().requires_grad_())


@pytest.mark.parametrize("features", ["topk", "full"])
def test_classes_in_another_order_change_nothing_but_the_first_layers_columns(features: str) -> None:
    scores = scores_of(4, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    moved = TokenScores(
        student_logp=scores.student_logp[:, order], target_logp=scores.target_logp[:, order], tokens=scores.tokens
    )
    part = DACKL(features=features, **({"top": 5} if features == "topk" else {}))
    ours, theirs = (with_bounds(part, 16, lower=-2.0, upper=1.0)(each) for each in (scores, moved))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "part",
    [
        DACKL(top=4),
        DACKL(top=40),
        DACKL(features="full"),
        DACKL(coordinate="value"),
        DACKL(features="full", coordinate="value"),
    ],
)
def test_the_gates_to_look_at_are_those_of_the_loss(part: DACKL) -> None:
    scores, bounds = scores_of(5, 20), {"lower": -2.0, "upper": 1.0}
    term = with_bounds(part, 20, **bounds)
    found, gates = term.measured(scores), term.gates(scores)
    torch.testing.assert_close((gates * scores.target_logp.exp()).sum(-1), found.values["kept_mass"])
    torch.testing.assert_close(gates.sum(-1), found.values["kept_classes"])
    for n in range(5):
        p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
        assert found.loss[n].item() == pytest.approx(mgsr.clipped_kl(p, q, gates[n].tolist()), rel=1e-9)


@pytest.mark.parametrize("features", ["topk", "full"])
@pytest.mark.parametrize("top", [3, 30])
def test_ids_that_are_not_shared_count_for_nothing(features: str, top: int) -> None:
    scores = scores_of(4, 10)
    inf = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    wider = TokenScores(
        student_logp=torch.cat([scores.student_logp, inf], dim=1).detach().requires_grad_(),
        target_logp=torch.cat([scores.target_logp, inf], dim=1),
        tokens=scores.tokens,
    )
    part = DACKL(features=features, **({"top": top} if features == "topk" else {}))
    ours = with_bounds(part, 13, lower=-2.0, upper=1.0)(wider)
    torch.testing.assert_close(ours, with_bounds(part, 10, lower=-2.0, upper=1.0)(scores), rtol=1e-10, atol=1e-10)
    ours.sum().backward()
    assert wider.student_logp.grad.isfinite().all()


def test_it_starts_wide_open_and_from_its_seed_alone() -> None:
    scores = scores_of(3, 600)
    found = built(DACKL(), 600).measured(scores)
    torch.testing.assert_close(found.values["upper"], torch.full((3,), 1 / (1 + math.exp(-6)), dtype=torch.float64))
    torch.testing.assert_close(
        found.values["lower"], torch.full((3,), 1 / (1 + math.exp(6)), dtype=torch.float64), rtol=1e-4, atol=0
    )
    before = torch.get_rng_state()
    one, other = (DACKL().build(vocabulary_size=600, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_bounds_keep_their_order_for_any_output() -> None:
    network = MLP(hidden=4).build(3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.second_weight.normal_(std=30.0, generator=torch.Generator().manual_seed(1))
    bounds = network(torch.randn(200, 3, generator=torch.Generator().manual_seed(2)) * 5)
    assert (bounds.lower <= bounds.upper).all()
    assert bounds.lower.isfinite().all()


@pytest.mark.parametrize("values", [{"lower": 0.6, "upper": 0.5}, {"lower": -0.1}, {"upper": 1.2}, {"lower": 1.0}])
def test_fixed_bounds_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        FixedBounds(**values)
