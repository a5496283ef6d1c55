"""Targets that are a part of the teacher, and the temperature of a match."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from clip_kit import built, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.losses import DIVERGENCES, TARGETS, FixedBounds, ForwardKL, Match, NucleusTarget, TokenScores, TopKTarget
from limbeck.losses.dac import DACKL
from reference import equations, mgsr

PARTIAL = {"top-k": {"k": 3}, "nucleus": {"p": 0.7}}
TAKEN = ("forward-kl", "jsd", "tvd", "skew-forward-kl", "skew-reverse-kl")


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), V=st.integers(2, 30), k=st.integers(1, 40), least=st.floats(0.01, 0.999))
def test_targets_are_those_of_the_reference(seed: int, V: int, k: int, least: float) -> None:
    scores = scores_of(3, V, seed=seed)
    top, nucleus = TopKTarget(k=k)(scores).exp(), NucleusTarget(p=least)(scores).exp()
    for n in range(3):
        p = scores.target_logp[n].exp().tolist()
        assert top[n].tolist() == pytest.approx(mgsr.top_k(p, k), abs=1e-12)
        assert nucleus[n].tolist() == pytest.approx(mgsr.nucleus(p, least), abs=1e-12)


def test_the_forward_kl_of_a_part_is_the_students_whole_softmax_against_it() -> None:
    scores = scores_of(4, 25)
    for target, reference in ((TopKTarget(k=4), lambda p: mgsr.top_k(p, 4)), (NucleusTarget(p=0.8), _nucleus)):
        loss = Match(ForwardKL(), target=target)(scores)
        (gradient,) = torch.autograd.grad(loss.sum(), scores.student_logp)
        for n in range(4):
            kept = reference(scores.target_logp[n].exp().tolist())
            expected = equations.kl(kept, scores.student_logp[n].exp().tolist())
            assert loss[n].item() == pytest.approx(expected, rel=1e-10)
            assert gradient[n].tolist() == pytest.approx([-v for v in kept], abs=1e-12)
        kept_by_student = (target(scores).isfinite() * scores.student_logp.exp()).sum(-1)
        assert (loss >= -kept_by_student.log() - 1e-12).all()


def _nucleus(p: list[float]) -> list[float]:
    return mgsr.nucleus(p, 0.8)


def test_all_classes_are_the_teacher_and_one_is_its_likeliest() -> None:
    scores = scores_of(3, 12)
    assert torch.equal(TopKTarget(k=12)(scores), scores.target_logp)
    assert torch.equal(NucleusTarget(p=1.0)(scores), scores.target_logp)
    likeliest = scores.target_logp.argmax(-1)
    for target in (TopKTarget(k=1), NucleusTarget(p=1e-9)):
        assert torch.equal(target(scores).exp().argmax(-1), likeliest)
        assert target(scores).exp().amax(-1).tolist() == [1.0] * 3


def test_a_nucleus_differs_from_hard_bounds_in_the_class_that_the_edge_falls_into() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    scores = TokenScores(student_logp=p, target_logp=p, tokens=torch.tensor([0]))
    for least, nucleus, bounds in ((0.6, 2, 1), (0.7, 2, 2), (0.95, 3, 3), (0.85, 3, 2)):
        part = DACKL(clip=FixedBounds(1 - least, 1.0), gates="hard", features="full")
        assert NucleusTarget(p=least)(scores).isfinite().sum() == nucleus
        assert built(part, 3).gates(scores).sum() == bounds


def test_the_tail_of_a_part_may_hold_ids_that_are_not_shared() -> None:
    inf = torch.tensor([[-torch.inf, -torch.inf]])
    p = torch.cat([torch.tensor([[0.6, 0.4]]).log(), inf], dim=1)
    scores = TokenScores(student_logp=p.clone().requires_grad_(), target_logp=p, tokens=torch.tensor([0]))
    for target in (TopKTarget(k=3), NucleusTarget(p=0.999)):
        loss = Match(ForwardKL(), target=target, temperature_square_scaled=2.0)(scores)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
        (gradient,) = torch.autograd.grad(loss.sum(), scores.student_logp)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("target", PARTIAL)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_that_are_infinite_on_a_part_are_refused(target: str, name: str) -> None:
    made = TARGETS[target](**PARTIAL[target])
    if name in TAKEN:
        assert Match(DIVERGENCES[name](), target=made)(scores_of(2, 9)).isfinite().all()
    else:
        with pytest.raises(ValueError, match="infinite for every student"):
            Match(DIVERGENCES[name](), target=made)
    for ends in ({"jsd": {"beta": 1}}, {"skew-reverse-kl": {"alpha": 0}}):
        for end, fields in ends.items():
            with pytest.raises(ValueError, match="infinite for every student"):
                Match(DIVERGENCES[end](**fields), target=made)


@pytest.mark.parametrize(
    ("target", "fields"),
    [("top-k", {}), ("top-k", {"k": 0}), ("nucleus", {}), ("nucleus", {"p": 0.0}), ("nucleus", {"p": 1.1})],
)
def test_a_part_says_how_large_it_is(target: str, fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        TARGETS[target](**fields)


def test_a_part_of_no_teacher_is_an_error() -> None:
    scores = TokenScores(student_logp=torch.zeros(1, 2), target_logp=None, tokens=torch.tensor([0]))
    for target in (TopKTarget(k=1), NucleusTarget(p=0.5)):
        assert target.needs_teacher
        with pytest.raises(ConfigError, match=r"models\.teacher"):
            target(scores)


@pytest.mark.parametrize("temperature", [0.3, 2.0, 7.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_temperature_softens_both_and_multiplies_by_its_square(name: str, temperature: float) -> None:
    scores, divergence = scores_of(3, 14), DIVERGENCES[name]()
    found = Match(divergence, temperature_square_scaled=temperature)(scores)
    reference = {
        "forward-kl": equations.forward_kl,
        "reverse-kl": equations.reverse_kl,
        "symmetric-kl": lambda p, q: equations.symmetric_kl(p, q, 0.5),
        "jsd": lambda p, q: equations.jsd(p, q, 0.5),
        "tvd": equations.total_variation,
        "skew-forward-kl": lambda p, q: equations.skew_forward_kl(p, q, 0.1),
        "skew-reverse-kl": lambda p, q: equations.skew_reverse_kl(p, q, 0.1),
    }[name]
    for n in range(3):
        p, q = (mgsr.tempered(x[n].exp().tolist(), temperature) for x in (scores.target_logp, scores.student_logp))
        assert found[n].item() == pytest.approx(temperature**2 * reference(p, q), rel=1e-9)


def test_the_gradient_of_a_temperature_is_that_of_finite_differences_and_keeps_its_size() -> None:
    scores = scores_of(2, 7)

    def loss(logits: torch.Tensor, temperature: float = 3.0) -> torch.Tensor:
        given = TokenScores(student_logp=logits.log_softmax(-1), target_logp=scores.target_logp, tokens=scores.tokens)
        return Match(ForwardKL(), temperature_square_scaled=temperature)(given).sum()

    logits = scores.student_logp.detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, logits)
    # Hinton et al., Eq. 4: for large T the gradient is (z_student − z_teacher)/V of centred logits, whatever T is.
    centred = [x - x.mean(-1, keepdim=True) for x in (logits.detach(), scores.target_logp)]
    (gradient,) = torch.autograd.grad(loss(logits, 1e5), logits)
    torch.testing.assert_close(gradient, (centred[0] - centred[1]) / 7, rtol=1e-3, atol=1e-4)


def test_a_temperature_of_1_is_none_and_half_precision_is_raised() -> None:
    scores = scores_of(3, 9, dtype=torch.float32)
    assert torch.equal(Match(ForwardKL(), temperature_square_scaled=1.0)(scores), Match(ForwardKL())(scores))
    half = TokenScores(
        student_logp=scores.student_logp.bfloat16(), target_logp=scores.target_logp.bfloat16(), tokens=scores.tokens
    )
    assert Match(ForwardKL(), temperature_square_scaled=2.0)(half).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_a_number_above_0(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature_square_scaled"):
        Match(ForwardKL(), temperature_square_scaled=temperature)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_temperature_is_that_of_trl_but_for_the_square(beta: float) -> None:
    with warnings.catch_warnings():
        # The import warns that TRL keeps this trainer under `experimental`, and so do some of what it imports.
        warnings.simplefilter("ignore")
        gkd = pytest.importorskip("trl.experimental.gkd", exc_type=ImportError)
    noise = torch.Generator().manual_seed(11)
    teacher, ours = (torch.randn(2, 5, 31, generator=noise, dtype=torch.float64) for _ in range(2))
    expected = gkd.GKDTrainer.generalized_jsd_loss(ours, teacher, beta=beta, temperature=3.0, reduction="none").sum(-1)
    scores = TokenScores(
        student_logp=ours.log_softmax(-1).flatten(0, 1),
        target_logp=teacher.log_softmax(-1).flatten(0, 1),
        tokens=torch.zeros(10, dtype=torch.long),
    )
    value = Match(DIVERGENCES["jsd"](beta=beta), temperature_square_scaled=3.0)(scores)
    torch.testing.assert_close(value, 9.0 * expected.flatten(), rtol=1e-9, atol=1e-12)


def test_a_skew_of_1_is_no_match() -> None:
    for name in ("skew-forward-kl", "skew-reverse-kl"):
        with pytest.raises(ValueError, match="teaches nothing"):
            Match(DIVERGENCES[name](alpha=1))
