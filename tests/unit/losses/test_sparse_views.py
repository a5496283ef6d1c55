"""A teacher known in part: divergences with it are those over the known classes and one class for the rest."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck.losses.divergences import JSD, TVD, ForwardKL, ReverseKL, SkewReverseKL
from limbeck.losses.fused import fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import Match
from limbeck.losses.sparse_views import SparseView
from limbeck.losses.views import chunks

V, N, D = 11, 7, 5
DIVERGENCES = [ForwardKL(), ReverseKL(), JSD(0.3), TVD(), SkewReverseKL(0.1)]


def _coarse(logp: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The known classes and the rest as the last, from a whole distribution."""
    known = logp.gather(1, ids)
    rest = logp.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([known, rest], dim=1)


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(3)
    teacher = (2 * torch.randn(N, V, generator=generator, dtype=torch.float64)).log_softmax(-1)
    student = torch.randn(N, V, generator=generator, dtype=torch.float64).requires_grad_()
    ids = teacher.topk(4, dim=-1).indices.sort(-1).values
    coarse = _coarse(teacher, ids)
    view = SparseView(ids=ids, logp=coarse[:, :-1], rest=coarse[:, -1], size=V)
    return view, student, ids, coarse


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda each: type(each).__name__)
def test_value_and_gradient_are_those_of_the_coarser_distributions(divergence, parts) -> None:
    view, raw, ids, coarse = parts
    student = raw.log_softmax(-1)
    target = torch.cat([view.completed(part, student_logp=student[part]) for part in chunks(N, 3)])
    found = divergence(target_logp=target, student_logp=student).sum()
    expected = divergence(target_logp=coarse, student_logp=_coarse(raw.log_softmax(-1), ids)).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    own, theirs = (torch.autograd.grad(each, raw, retain_graph=True)[0] for each in (found, expected))
    torch.testing.assert_close(own, theirs, rtol=1e-8, atol=1e-10)


def test_forward_kl_is_that_of_plain_python(parts) -> None:
    view, raw, ids, coarse = parts
    student = raw.detach().softmax(-1)
    expected = 0.0
    for n in range(N):
        known = ids[n].tolist()
        for place, v in enumerate(known):
            p = math.exp(coarse[n, place])
            expected += p * math.log(p / float(student[n, v]))
        rest, mass = math.exp(coarse[n, -1]), sum(float(student[n, v]) for v in range(V) if v not in known)
        expected += rest * math.log(rest / mass)
    target = view.completed(slice(0, N), student_logp=student.log())
    assert float(ForwardKL()(target_logp=target, student_logp=student.log()).sum()) == pytest.approx(expected)
    assert torch.allclose(target.exp().sum(-1), torch.ones(N, dtype=torch.float64))


def test_a_teacher_that_is_known_whole_is_as_it_is(parts) -> None:
    _, raw, _, _ = parts
    teacher = torch.randn(N, V, dtype=torch.float64).log_softmax(-1)
    everything = torch.arange(V).expand(N, V)
    view = SparseView(ids=everything, logp=teacher, rest=torch.full((N,), -torch.inf), size=V)
    assert torch.equal(view.completed(slice(0, N), student_logp=raw.log_softmax(-1)), teacher)
    assert torch.equal(view.log_probabilities(slice(2, 5)), teacher[2:5])


def test_ids_that_are_not_shared_get_no_mass(parts) -> None:
    view, raw, _, _ = parts
    shared = torch.ones(V, dtype=torch.bool)
    shared[next(v for v in range(V) if v not in view.ids[0].tolist())] = False
    student = raw.masked_fill(~shared, -torch.inf).log_softmax(-1)
    masked = SparseView(ids=view.ids[:1], logp=view.logp[:1], rest=view.rest[:1], size=V, shared=shared)
    for found in (masked.completed(slice(0, 1), student_logp=student[:1]), masked.log_probabilities(slice(0, 1))):
        assert found[0, ~shared].tolist() == [-math.inf]
        assert float(found.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("chunk", [2, 7])
def test_the_walk_completes_it_tile_by_tile(chunk, parts) -> None:
    view, _, ids, coarse = parts
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.rand(N, generator=generator)
    tokens = ids[:, 1]
    result = fused_loss(
        hidden,
        head=Head(weight=weight, size=V),
        tokens_N=tokens,
        views=[view],
        terms={"token": Match(JSD(0.4))},
        weights={"token": weights, "teacher_logp": weights},
        scales={"token": 2.0},
        chunk=chunk,
    )
    gap = JSD(0.4)(target_logp=coarse, student_logp=_coarse((hidden @ weight.T).log_softmax(-1), ids))
    expected = 2 * (gap * weights).sum()
    assert result.loss.item() == pytest.approx(expected.item())
    own = torch.autograd.grad(result.loss, [hidden, weight])
    theirs = torch.autograd.grad(expected, [hidden, weight])
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    logp = view.logp[:, 1]
    assert float(result.measures["teacher_logp"]) == pytest.approx(float((logp * weights).sum()))
