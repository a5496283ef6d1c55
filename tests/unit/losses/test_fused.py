"""The fused walk against the dense path: value and gradient, for any chunk size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.losses import DIVERGENCES, walking
from limbeck.losses.fused import HiddenView, fused_loss, token_scores
from limbeck.losses.heads import Head
from limbeck.losses.match import Likelihood, Match, TokenScores

N, D, V = 23, 6, 17


def _setting(dtype: torch.dtype = torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        "hidden": normal(N, D).requires_grad_(),
        "weight": normal(V + 3, D).requires_grad_(),
        "bias": normal(V + 3).requires_grad_(),
        "teacher_hidden": normal(N, D + 2),
        "teacher_weight": normal(V + 1, D + 2),
        "tokens": torch.randint(0, V, (N,), generator=generator),
        "w1": torch.rand(N, generator=generator, dtype=dtype),
        "w2": torch.rand(N, generator=generator, dtype=dtype),
    }


def _heads(s, **options):
    student = Head(weight=s["weight"], bias=s["bias"], size=V, **options)
    return student, HiddenView(hidden=s["teacher_hidden"], head=Head(weight=s["teacher_weight"], size=V))


def _dense(s, terms, scales, **options):
    logits = s["hidden"] @ s["weight"].T + s["bias"]
    if options.get("scale"):
        logits = logits * options["scale"]
    if options.get("softcap"):
        logits = torch.tanh(logits / options["softcap"]) * options["softcap"]
    logits = logits[:, :V]
    teacher = (s["teacher_hidden"] @ s["teacher_weight"].T)[:, :V]
    shared = options.get("shared")
    if shared is not None:
        logits = logits.masked_fill(~shared, -torch.inf)
    scores = TokenScores(student_logp=logits.log_softmax(-1), target_logp=teacher.log_softmax(-1), tokens=s["tokens"])
    weights = {"token": s["w1"], "supervised": s["w2"]}
    return sum(scales[name] * (term(scores) * weights[name]).sum() for name, term in terms.items())


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@pytest.mark.parametrize("chunk", [1, 7, N, 100])
def test_value_and_gradient_equal_the_dense_path(name: str, chunk: int) -> None:
    terms = {"token": Match(DIVERGENCES[name]()), "supervised": Likelihood()}
    scales = {"token": 0.7, "supervised": 1.3}
    dense, fused = _setting(), _setting()
    expected = _dense(dense, terms, scales)
    (3.0 * expected).backward()
    student, view = _heads(fused)
    result = fused_loss(
        fused["hidden"],
        head=student,
        tokens_N=fused["tokens"],
        views=[view],
        terms=terms,
        weights={"token": fused["w1"], "supervised": fused["w2"]},
        scales=scales,
        chunk=chunk,
    )
    (3.0 * result.loss).backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    for key in ("hidden", "weight", "bias"):
        torch.testing.assert_close(fused[key].grad, dense[key].grad, rtol=1e-10, atol=1e-12)
    whole = sum(scales[term] * total for term, total in result.totals.items())
    torch.testing.assert_close(whole, expected.detach(), rtol=1e-12, atol=1e-12)


def _walked(*, tile_rows: int, monkeypatch: pytest.MonkeyPatch, **options):
    monkeypatch.setattr(walking, "_TILE_NUMBERS", tile_rows * V)
    s, scaled = _setting(), _Scaled()
    s["tokens"] = torch.where(s["tokens"] == 3, 0, s["tokens"])
    student, view = _heads(s, **options)
    result = fused_loss(
        s["hidden"], head=student, tokens_N=s["tokens"], views=[view],
        terms={"token": Match(DIVERGENCES["jsd"]()), "supervised": scaled},
        weights={"token": s["w1"], "supervised": s["w2"]}, scales={"token": 0.7, "supervised": 1.3}, chunk=9,
        separate_gradients=True,
    )  # fmt: skip
    result.loss.backward()
    gradients = [s[key].grad for key in ("hidden", "weight", "bias")]
    return [result.loss.detach(), scaled.factor.grad, *result.gradient_norms.values(), *gradients]


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"shared": torch.arange(V) != 3}])
def test_how_many_tokens_the_terms_see_at_once_changes_nothing(options, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tiled = (_walked(tile_rows=rows, monkeypatch=monkeypatch, **options) for rows in (100, 4))
    for ours, theirs in zip(tiled, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("options", [{"scale": 0.5}, {"softcap": 2.0}, {"scale": 1.5, "softcap": 3.0}])
def test_scale_and_soft_cap_enter_value_and_gradient(options: dict[str, float]) -> None:
    terms, scales = {"supervised": Likelihood()}, {"supervised": 1.0}
    dense, fused = _setting(), _setting()
    _dense(dense, terms, scales, **options).backward()
    student, _ = _heads(fused, **options)
    result = fused_loss(
        fused["hidden"], head=student, tokens_N=fused["tokens"], views=[], terms=terms,
        weights={"supervised": fused["w2"]}, scales=scales, chunk=5,
    )  # fmt: skip
    result.loss.backward()
    for key in ("hidden", "weight", "bias"):
        torch.testing.assert_close(fused[key].grad, dense[key].grad, rtol=1e-10, atol=1e-12)


def test_ids_that_are_not_shared_get_no_probability_and_no_gradient() -> None:
    shared = torch.ones(V, dtype=torch.bool)
    shared[[3, 9]] = False
    s = _setting()
    s["tokens"] = torch.where((s["tokens"] == 3) | (s["tokens"] == 9), 0, s["tokens"])
    head = Head(weight=s["weight"], size=V, shared=shared)
    assert head(s["hidden"])[:, ~shared].exp().sum() == 0
    result = fused_loss(
        s["hidden"], head=head, tokens_N=s["tokens"], views=[], terms={"supervised": Likelihood()},
        weights={"supervised": s["w1"]}, scales={"supervised": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    assert s["weight"].grad[[3, 9]].abs().sum() == 0
    assert s["weight"].grad[V:].abs().sum() == 0
    assert torch.isfinite(s["hidden"].grad).all()


def test_a_frozen_head_gets_no_gradient_and_the_states_still_do() -> None:
    s = _setting()
    head = Head(weight=s["weight"].detach(), size=V)
    result = fused_loss(
        s["hidden"], head=head, tokens_N=s["tokens"], views=[], terms={"supervised": Likelihood()},
        weights={"supervised": s["w1"]}, scales={"supervised": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    assert s["hidden"].grad.abs().sum() > 0
    assert s["weight"].grad is None


def test_logits_in_place_of_states_are_the_dense_path() -> None:
    s = _setting()
    logits = (s["hidden"] @ s["weight"].T).detach().requires_grad_()
    result = fused_loss(
        logits, head=Head(weight=None, size=V), tokens_N=s["tokens"], views=[], terms={"supervised": Likelihood()},
        weights={"supervised": s["w1"]}, scales={"supervised": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    twin = logits.detach().requires_grad_()
    picked = twin[:, :V].log_softmax(-1).gather(1, s["tokens"][:, None]).squeeze(1)
    (-(picked * s["w1"]).sum()).backward()
    torch.testing.assert_close(logits.grad, twin.grad)


class _Scaled(nn.Module):
    """A term with a parameter of its own."""

    needs_teacher = False

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, scores: TokenScores) -> torch.Tensor:
        return self.factor * Likelihood()(scores)


def test_a_term_with_parameters_is_trained() -> None:
    s, term = _setting(), _Scaled()
    result = fused_loss(
        s["hidden"], head=Head(weight=s["weight"], size=V), tokens_N=s["tokens"], views=[], terms={"token": term},
        weights={"token": s["w1"]}, scales={"token": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    torch.testing.assert_close(term.factor.grad, result.loss.detach() / 2.0)


class _Constant:
    """A term of a user's own that was cut off from the student."""

    needs_teacher = False

    def __call__(self, scores: TokenScores) -> torch.Tensor:
        return Likelihood()(scores).detach()


def test_a_term_without_gradient_is_refused() -> None:
    s = _setting()
    given = {"head": Head(weight=s["weight"], size=V), "tokens_N": s["tokens"], "views": [], "chunk": 4}
    given |= {"terms": {"token": _Constant()}, "weights": {"token": s["w1"]}, "scales": {"token": 1.0}}
    with pytest.raises(ConfigError, match="the token term of the method has no gradient"):
        fused_loss(s["hidden"], **given)


def test_separate_gradients_are_the_norms_of_each_terms_own_gradient() -> None:
    terms = {"token": Match(DIVERGENCES["jsd"]()), "supervised": Likelihood()}
    scales = {"token": 0.7, "supervised": 1.3}
    expected = {}
    for name in terms:
        s = _setting()
        student, view = _heads(s)
        alone = fused_loss(
            s["hidden"], head=student, tokens_N=s["tokens"], views=[view], terms=terms,
            weights={name: s["w1"]}, scales=scales, chunk=N,
        )  # fmt: skip
        alone.loss.backward()
        expected[name] = s["hidden"].grad.norm()
    s = _setting()
    student, view = _heads(s)
    result = fused_loss(
        s["hidden"], head=student, tokens_N=s["tokens"], views=[view], terms=terms,
        weights=dict.fromkeys(terms, s["w1"]), scales=scales, chunk=6, separate_gradients=True,
    )  # fmt: skip
    for name, norm in expected.items():
        torch.testing.assert_close(result.gradient_norms[name], norm)


def test_no_scored_token_is_a_loss_of_zero_with_a_graph() -> None:
    s = _setting()
    result = fused_loss(
        s["hidden"][:0], head=Head(weight=s["weight"], size=V), tokens_N=s["tokens"][:0], views=[],
        terms={"supervised": Likelihood()}, weights={"supervised": s["w1"][:0]}, scales={"supervised": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    assert float(result.loss.detach()) == 0.0
    assert float(s["weight"].grad.abs().sum()) == 0.0


def test_without_gradient_nothing_is_kept() -> None:
    s = _setting()
    with torch.no_grad():
        result = fused_loss(
            s["hidden"], head=Head(weight=s["weight"], size=V), tokens_N=s["tokens"], views=[],
            terms={"supervised": Likelihood()}, weights={"supervised": s["w1"]}, scales={"supervised": 1.0}, chunk=4,
        )  # fmt: skip
    assert not result.loss.requires_grad


def test_bfloat16_states_give_float32_losses_and_gradients_in_the_parameters_dtype() -> None:
    s = _setting(torch.float32)
    hidden = s["hidden"].detach().bfloat16().requires_grad_()
    result = fused_loss(
        hidden, head=Head(weight=s["weight"], size=V), tokens_N=s["tokens"], views=[],
        terms={"supervised": Likelihood()}, weights={"supervised": s["w1"]}, scales={"supervised": 1.0}, chunk=4,
    )  # fmt: skip
    result.loss.backward()
    assert result.loss.dtype == torch.float32
    assert (hidden.grad.dtype, s["weight"].grad.dtype) == (torch.bfloat16, torch.float32)


def test_token_scores_cover_every_token_once() -> None:
    s = _setting()
    student, view = _heads(s)
    parts = list(token_scores(s["hidden"], head=student, tokens_N=s["tokens"], views=[view], chunk=7))
    assert [len(part.tokens) for part in parts] == [7, 7, 7, 2]
    assert torch.equal(torch.cat([part.tokens for part in parts]), s["tokens"])
