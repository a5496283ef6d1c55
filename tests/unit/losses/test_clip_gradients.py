"""Where DAC-KL's gradients go: finite differences, straight-through gates, and the clip's own objective."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from clip_kit import built, scores_of, with_bounds
from torch import Tensor

from limbeck.losses import CLIP_NETWORKS, ClipNetwork
from limbeck.losses.clip_networks import FixedBounds
from limbeck.losses.dac import DACKL, ClippedKL
from limbeck.losses.match import TokenScores

LEARNED = ("mlp", "conv", "rnn")
LAST = {"mlp": "second_weight", "conv": "last_weight", "rnn": "last_weight"}
NORMALISE = ("none", "both", "rest", "teacher")
learned = pytest.mark.parametrize("name", LEARNED)
features = pytest.mark.parametrize("features", ["topk", "full"])


def small(name: str) -> ClipNetwork:
    """A network that has something to do for each of its weights with five classes."""
    found: ClipNetwork = CLIP_NETWORKS[name](**({"classes_per_step": 2} if name == "rnn" else {}))
    return found


def sizes(features: str) -> dict[str, Any]:
    return {"features": features} if features == "full" else {"features": features, "top": 5}


def moved(part: DACKL, V: int, *, name: str = "mlp") -> ClippedKL:
    """A term whose network says something about its input."""
    term = built(part, V)
    with torch.no_grad():
        last = getattr(term.network, LAST[name])
        last.normal_(std=0.4, generator=torch.Generator().manual_seed(2))
    return term


def gradients(term: ClippedKL, scores: TokenScores) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the student's log-probabilities and of the network's parameters; 0 where there is none."""
    named = dict(term.named_parameters())
    found = torch.autograd.grad(
        term(scores).sum(), [scores.student_logp, *named.values()], allow_unused=True, materialize_grads=True
    )
    return found[0], dict(zip(named, found[1:], strict=True))


@pytest.mark.parametrize(
    ("coordinate", "parts", "normalise"),
    list(itertools.product(("mass", "rank", "value"), ("both", "dense"), NORMALISE)),
)
@features
def test_the_students_gradient_is_that_of_finite_differences(
    coordinate: str, parts: str, normalise: str, features: str
) -> None:
    """The bounds stand still, as they do for the student: the network sees it without gradient."""
    scores = scores_of(1, 7)
    fields = {"coordinate": coordinate, "parts": parts, "normalise": normalise, **sizes(features)}
    for gates in ("soft", "hard"):
        part = DACKL(clip=FixedBounds(), gates=gates, **fields)

        def loss(logits: Tensor, part: DACKL = part) -> Tensor:
            given = TokenScores(
                student_logp=logits.log_softmax(-1), target_logp=scores.target_logp, tokens=scores.tokens
            )
            return with_bounds(part, 7, lower=-2.5, upper=0.7)(given).sum()

        assert torch.autograd.gradcheck(loss, scores.student_logp.detach().requires_grad_())


@learned
@features
@pytest.mark.parametrize(
    ("coordinate", "normalise"), [("mass", "teacher"), ("mass", "both"), ("rank", "rest"), ("value", "none")]
)
def test_the_networks_gradient_is_that_of_finite_differences(
    name: str, features: str, coordinate: str, normalise: str
) -> None:
    scores = scores_of(2, 11)
    part = DACKL(
        clip=small(name), coordinate=coordinate, normalise=normalise, softness=2.0, size_weight=0.3,
        coverage_weight=0.7, least_mass=0.95, **sizes(features),
    )  # fmt: skip
    term = moved(part, 11, name=name)
    noise = torch.Generator().manual_seed(4)
    weights = {key: value.detach() for key, value in term.named_parameters()}
    ways = {key: torch.randn(value.shape, generator=noise, dtype=value.dtype) for key, value in weights.items()}

    def along(step: Tensor) -> Tensor:
        there = {key: value + step * ways[key] for key, value in weights.items()}
        found: Tensor = torch.func.functional_call(term, there, (scores,))
        return found.sum()

    assert torch.autograd.gradcheck(along, torch.zeros((), dtype=torch.float64).requires_grad_())


@learned
@features
def test_every_weight_of_every_network_has_a_gradient_and_the_teacher_none(name: str, features: str) -> None:
    scores = scores_of(6, 30)
    scores.target_logp.requires_grad_()
    term = moved(DACKL(clip=small(name), **sizes(features)), 30, name=name)
    term(scores).sum().backward()
    assert scores.target_logp.grad is None
    for key, parameter in term.named_parameters():
        assert parameter.grad.abs().max() > 0, key


@learned
@features
@pytest.mark.parametrize("gates", ["soft", "straight-through"])
def test_the_thresholds_of_no_network_give_the_student_a_gradient(name: str, features: str, gates: str) -> None:
    scores = scores_of(5, 30)
    ours, _ = gradients(moved(DACKL(clip=small(name), gates=gates, **sizes(features)), 30, name=name), scores)
    torch.testing.assert_close(ours.sum(-1), -torch.ones(5, dtype=torch.float64))


@features
@pytest.mark.parametrize("coordinate", ["mass", "rank", "value"])
@pytest.mark.parametrize("normalise", NORMALISE)
def test_straight_through_gates_are_hard_for_the_student(features: str, coordinate: str, normalise: str) -> None:
    scores = scores_of(6, 30)
    fields = {"coordinate": coordinate, "normalise": normalise, **sizes(features)}
    through, hard = (
        with_bounds(DACKL(clip=FixedBounds(), gates=gates, **fields), 30, lower=-1.5, upper=1.0)
        for gates in ("straight-through", "hard")
    )
    assert torch.equal(through(scores), hard(scores))
    assert torch.equal(through.gates(scores), hard.gates(scores))
    assert set(hard.gates(scores).unique().tolist()) == {0.0, 1.0}
    ours, bounds = gradients(through, scores)
    theirs, none = gradients(hard, scores)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert all(gradient.abs().max() > 0 for gradient in bounds.values())
    assert all(gradient.abs().max() == 0 for gradient in none.values()), "a hard set gives its bounds no gradient"


def test_the_derivative_of_straight_through_gates_is_that_of_soft_ones_at_the_hard_loss() -> None:
    """∂loss/∂m at the hard set, by differences in m, times ∂soft/∂bound, by differences in the bound."""
    scores, V, step = scores_of(1, 6), 6, 1e-6
    fields: dict[str, Any] = {"clip": FixedBounds(), "features": "full"}
    term = with_bounds(DACKL(gates="straight-through", **fields), V, lower=-1.5, upper=1.0)
    _, bounds = gradients(term, scores)
    hard = term.gates(scores)[0]
    p, q = scores.target_logp[0].exp(), scores.student_logp[0].detach().exp()

    def linear(m: Tensor) -> float:
        """R3 of a set, as a function of how often each class is in it."""
        mass = (m * p).sum()
        return float((m * p * (p / q).log()).sum() / mass - mass.log())

    unit = torch.eye(V, dtype=torch.float64) * step
    by_gate = torch.tensor([(linear(hard + each) - linear(hard - each)) / (2 * step) for each in unit])
    for name, at in (("lower", -1.5), ("upper", 1.0)):
        soft = [
            with_bounds(DACKL(**fields), V, **{"lower": -1.5, "upper": 1.0, name: at + way}).gates(scores)[0]
            for way in (step, -step)
        ]
        slope = (soft[0] - soft[1]) / (2 * step)
        torch.testing.assert_close(bounds[f"network.{name}"].sum(), (by_gate * slope).sum(), rtol=1e-5, atol=1e-7)


@learned
@features
@pytest.mark.parametrize("gates", ["soft", "straight-through"])
def test_a_detached_clip_is_moved_by_its_own_objective_alone(name: str, features: str, gates: str) -> None:
    scores, other = scores_of(5, 30), scores_of(5, 30, seed=9)
    own = {"size_weight": 0.4, "coverage_weight": 2.0, "least_mass": 0.97}
    fields = {"clip": small(name), "gates": gates, **sizes(features)}
    detached, joint, plain = (
        moved(DACKL(**fields, **extra), 30, name=name) for extra in ({**own, "clip_objective": "detached"}, own, {})
    )
    torch.testing.assert_close(detached(scores), joint(scores), rtol=0, atol=0)
    found, alone = detached.measured(scores), plain.measured(scores)
    missing = (0.97 - alone.values["kept_mass"]).clamp(min=0)
    expected = alone.loss + 0.4 * alone.values["kept_classes"] / 30 + 2.0 * missing**2
    torch.testing.assert_close(found.loss, expected, rtol=1e-12, atol=1e-12)

    student, network = gradients(detached, scores)
    student_alone, network_alone = gradients(plain, scores)
    _, network_joint = gradients(joint, scores)
    torch.testing.assert_close(student, student_alone, rtol=1e-12, atol=1e-14)
    for key, gradient in network.items():
        # What the joint objective has more is the loss's own part.
        torch.testing.assert_close(network_joint[key] - gradient, network_alone[key], rtol=1e-9, atol=1e-12)
        assert (network_alone[key].abs().max() > 0) == (key in network_joint)

    # The student's distribution reaches a detached network through its features only.
    if features == "full":
        return
    given = with_bounds(DACKL(**{**fields, **own, "clip_objective": "detached"}), 30, lower=-1.0, upper=1.0)
    swapped = TokenScores(student_logp=other.student_logp, target_logp=scores.target_logp, tokens=scores.tokens)
    _, before = gradients(given, scores)
    _, after = gradients(given, swapped)
    for key, gradient in before.items():
        torch.testing.assert_close(after[key], gradient, rtol=1e-12, atol=1e-14)
        assert gradient.abs().max() > 0


def learned_clip(**fields: Any) -> dict[str, float]:
    """What a clip keeps of 8 tokens after 80 steps, the student standing still: flatter than the teacher, and noisy."""
    noise = torch.Generator().manual_seed(0)
    target, other = (torch.randn(8, 24, generator=noise, dtype=torch.float64) * size for size in (2.0, 0.3))
    scores = TokenScores(
        student_logp=(0.6 * target + other).log_softmax(-1),
        target_logp=target.log_softmax(-1),
        tokens=torch.zeros(8, dtype=torch.long),
    )
    term = built(DACKL(top=24, **fields), 24)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        term(scores).mean().backward()
        optimizer.step()
    return {name: value.mean().item() for name, value in term.measured(scores).values.items()}


def test_a_detached_clip_learns_a_small_set_that_holds_the_wanted_mass() -> None:
    kept = learned_clip(clip_objective="detached", size_weight=1.0, coverage_weight=50.0, least_mass=0.8)
    assert 0.7 < kept["kept_mass"] < 0.85
    assert kept["kept_classes"] < 8
    assert learned_clip(clip_objective="detached", size_weight=1.0)["only_target"] == 1.0, "nothing holds it open"


def test_a_joint_clip_collapses_under_the_losses_that_the_page_warns_of() -> None:
    assert learned_clip(normalise="both")["only_target"] == 1.0
    assert learned_clip(normalise="rest")["only_target"] == 1.0
    assert learned_clip(normalise="teacher")["kept_classes"] > 20
