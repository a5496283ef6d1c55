"""The span term alone, and in the walk: pairs across tiles and chunks, weights of both reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError, NothingToLearn
from limbeck.losses import walking
from limbeck.losses.correlation import Correlation, PairScores
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.fused import HiddenView, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import Match
from limbeck.losses.objective import Batch, Objective, one_process
from limbeck.models.scoring import scored_tokens, span_pairs
from limbeck.spans import Whole
from limbeck.types import pack_rows
from reference import mgsr

N, D, V = 21, 5, 13


def logps(n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, V, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1) for _ in range(2))
    student, target = made
    return student.requires_grad_(), target


@pytest.mark.parametrize("first", [[0], [0, 1, 2], [0, 2, 3], [4], []])
def test_a_pair_costs_the_distance_of_the_products(first: list[int]) -> None:
    student, target = logps()
    found = Correlation()(
        PairScores(student_logp=student, target_logp=target, first=torch.tensor(first, dtype=torch.long))
    )
    s, t = student.exp().tolist(), target.exp().tolist()
    expected = [mgsr.pair_distance((s[j], s[j + 1]), (t[j], t[j + 1])) for j in first]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_that_of_finite_differences_and_spares_the_target() -> None:
    student, target = logps()
    target.requires_grad_()
    first = torch.tensor([0, 1, 3, 4])

    def loss(student_logp: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
        return (Correlation()(PairScores(student_logp=student_logp, target_logp=target, first=first)) * weights).sum()

    assert torch.autograd.gradcheck(loss, student)
    loss(student).backward()
    assert target.grad is None


def test_equal_models_cost_next_to_nothing_and_have_a_gradient() -> None:
    student, _ = logps()
    found = Correlation()(PairScores(student_logp=student, target_logp=student.detach(), first=torch.tensor([0, 1])))
    found.sum().backward()
    assert found.tolist() == pytest.approx([1e-6, 1e-6])
    assert student.grad.isfinite().all()


def test_ids_that_are_not_shared_count_for_nothing() -> None:
    student, target = logps(3)
    inf = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    first = torch.tensor([0, 1])
    wide = torch.cat([student.detach(), inf], dim=1).requires_grad_()
    found = Correlation()(PairScores(student_logp=wide, target_logp=torch.cat([target, inf], dim=1), first=first))
    torch.testing.assert_close(found, Correlation()(PairScores(student_logp=student, target_logp=target, first=first)))
    found.sum().backward()
    assert wide.grad.isfinite().all()


def _walk(monkeypatch: pytest.MonkeyPatch, *, chunk: int, tile_rows: int, separate: bool = False):
    monkeypatch.setattr(walking, "_TILE_NUMBERS", tile_rows * V)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight = normal(N, D).requires_grad_(), normal(V, D).requires_grad_()
    teacher = HiddenView(hidden=normal(N, D), head=Head(weight=normal(V, D), size=V))
    pairs = torch.tensor([0, 1, 2, 3, 6, 7, 8, 11, 12, 15, 19])
    pair_weights = torch.rand(len(pairs), generator=generator, dtype=torch.float64)
    token_weights = torch.rand(N, generator=generator, dtype=torch.float64)
    result = fused_loss(
        hidden,
        head=Head(weight=weight, size=V),
        tokens_N=torch.zeros(N, dtype=torch.long),
        views=[teacher],
        terms={"token": Match(ForwardKL())},
        weights={"token": token_weights, "span": pair_weights},
        scales={"token": 0.7, "span": 2.5},
        chunk=chunk,
        pairs_P=pairs,
        pair_terms={"span": Correlation()},
        separate_gradients=separate,
    )
    result.loss.backward()
    student, target = (hidden @ weight.T).log_softmax(-1), teacher.log_probabilities(slice(0, N))
    scores = PairScores(student_logp=student, target_logp=target, first=pairs)
    span = (Correlation()(scores) * pair_weights).sum()
    token = (ForwardKL()(target_logp=target, student_logp=student) * token_weights).sum()
    return (
        result,
        (hidden.grad, weight.grad),
        (token, span),
        torch.autograd.grad(0.7 * token + 2.5 * span, [hidden, weight]),
    )


@pytest.mark.parametrize("tile_rows", [1, 3, 100])
@pytest.mark.parametrize("chunk", [1, 4, 7, N])
def test_pairs_across_tiles_and_chunks_are_those_of_the_dense_path(
    chunk: int, tile_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, found, (token, span), expected = _walk(monkeypatch, chunk=chunk, tile_rows=tile_rows)
    torch.testing.assert_close(result.loss, 0.7 * token + 2.5 * span, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(result.totals["span"], span, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_gradients_taken_apart_add_up_across_halos(monkeypatch: pytest.MonkeyPatch) -> None:
    together = _walk(monkeypatch, chunk=5, tile_rows=2)
    apart = _walk(monkeypatch, chunk=5, tile_rows=2, separate=True)
    for ours, theirs in zip(apart[1], together[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    whole = _walk(monkeypatch, chunk=N, tile_rows=N, separate=True)
    for name, norm in apart[0].gradient_norms.items():
        # A halo's gradient is squared in two parts unless it is carried to the row that owns it.
        torch.testing.assert_close(norm, whole[0].gradient_norms[name], rtol=1e-9, atol=1e-12)


ROWS = [[9, 1, 2, 3, 4, 5], [9, 1, 2, 3], [9, 9, 1, 2]]
SPANS = [[(1, 4), (4, 6)], [(1, 3)], [(2, 3)]]


def _batch(rows: list[int]) -> Batch:
    flags = [[token != 9 for token in ROWS[row]] for row in rows]
    packed = pack_rows(
        [ROWS[row] for row in rows], flags, origin=["student"] * len(rows), keys=[(row,) for row in rows], pad_id=0
    )
    return Batch(
        sequences=packed, terms=frozenset({"token", "span"}), pairs=span_pairs(packed, [SPANS[row] for row in rows])
    )


@pytest.mark.parametrize("groups", [[[0, 1, 2]], [[1], [2, 0]], [[2], [1], [0]]])
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_weights_of_pairs_are_those_of_the_equation_however_rows_are_grouped(
    groups: list[list[int]], reduction: str
) -> None:
    objective = Objective.of(
        Match(ForwardKL()), span=Correlation(), scales={"token": 1.0, "span": 1.0}, reduction=reduction
    )
    batches = [_batch(group) for group in groups]
    weights, counts = objective.weights(batches, total=one_process)
    generator = torch.Generator().manual_seed(5)
    models = {
        (row, position): [
            torch.rand(4, generator=generator, dtype=torch.float64).softmax(-1).tolist() for _ in range(2)
        ]
        for row, tokens in enumerate(ROWS)
        for position in range(len(tokens))
    }
    total = 0.0
    for group, batch, weight in zip(groups, batches, weights, strict=True):
        where = scored_tokens(batch.sequences)
        places = [
            (group[row], position) for row, position in zip(where.rows.tolist(), where.positions.tolist(), strict=True)
        ]
        for n, w in zip(batch.pairs.first.tolist(), weight["span"].tolist(), strict=True):
            (s1, t1), (s2, t2) = models[places[n]], models[places[n + 1]]
            total += w * mgsr.pair_distance((s1, s2), (t1, t2))
    rows = [
        mgsr.span_loss(
            [models[row, position][0] for position in range(len(ROWS[row]))],
            [models[row, position][1] for position in range(len(ROWS[row]))],
            SPANS[row],
        )
        for row in (0, 1)
    ]
    # Row 0 has two spans and row 1 has one; row 2 has none with a pair.
    expected = (2 * rows[0] + rows[1]) / 3 if reduction == "token" else (rows[0] + rows[1]) / 2
    assert total == pytest.approx(expected, rel=1e-6)
    assert counts.tokens["span"] == 3
    assert counts.rows["span"] == 2


def test_a_batch_without_spans_costs_nothing() -> None:
    objective = Objective.of(Match(ForwardKL()), span=Correlation(), scales={"token": 1.0, "span": 1.0})
    weights, counts = objective.weights([_batch([2])], total=one_process)
    assert counts.tokens == {"token": 2, "span": 0}
    assert weights[0]["span"].shape == (0,)


def test_spans_alone_are_refused_only_where_no_rank_has_a_scored_token() -> None:
    objective = Objective.of(Match(ForwardKL()), span=Correlation(), scales={"token": 0.0, "span": 1.0})
    weights, counts = objective.weights([_batch([2])], total=one_process)
    assert (counts.tokens, weights[0]["span"].shape) == ({"span": 0}, (0,))
    silent = _batch([2])
    silent = replace(
        silent, sequences=replace(silent.sequences, is_response=torch.zeros_like(silent.sequences.is_response))
    )
    with pytest.raises(NothingToLearn, match="none of the 1 rows"):
        objective.weights([silent], total=one_process)
    # Another rank has two scored tokens, and no span either.
    objective.weights([silent], total=lambda numbers: numbers + (2.0 if numbers.dim() == 1 else 0.0))


def test_a_pair_needs_both_of_its_tokens_scored() -> None:
    packed = pack_rows([[1, 2, 3]], [[True, True, True]], origin=["student"], keys=[(0,)], pad_id=0)
    assert span_pairs(packed, [[(0, 2)]]).num_spans == 0
    assert span_pairs(packed, [[(1, 3)]]).first.tolist() == [0]


class _Counting(nn.Module):
    needs_teacher = False

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, scores: object) -> torch.Tensor:
        return self.factor * scores.student_logp.sum(-1)


def test_a_term_that_does_not_apply_has_a_gradient_of_zero() -> None:
    """A wrapper over ranks waits for the gradient of every parameter."""
    term = _Counting()
    result = fused_loss(
        torch.randn(3, D, dtype=torch.float64, requires_grad=True),
        head=Head(weight=torch.randn(V, D, dtype=torch.float64), size=V),
        tokens_N=torch.zeros(3, dtype=torch.long),
        views=[],
        terms={"token": term},
        weights={},
        scales={"token": 1.0},
        chunk=2,
    )
    result.loss.backward()
    assert term.factor.grad.item() == 0.0


class _Changed:
    """A span term of a user's own that gives something else than one number a pair."""

    extractor = Whole()

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change

    def __call__(self, scores: PairScores) -> torch.Tensor:
        return self.change(Correlation()(scores))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda found: found.mean(), r"the span term of the method gave shape \[\] for 2 pairs"),
        (lambda found: found[:, None], r"the span term of the method gave shape \[2, 1\] for 2 pairs"),
        (lambda found: found.detach(), "the span term of the method has no gradient"),
    ],
)
def test_a_span_term_that_would_train_something_else_is_refused(
    change: Callable[[torch.Tensor], torch.Tensor], why: str
) -> None:
    hidden = torch.randn(4, 5, requires_grad=True)
    head = Head(weight=torch.randn(6, 5), size=6)
    with pytest.raises(ConfigError, match=why):
        fused_loss(
            hidden,
            head=head,
            tokens_N=torch.arange(4),
            views=[HiddenView(hidden=torch.randn(4, 5), head=head)],
            terms={},
            pair_terms={"span": _Changed(change)},
            pairs_P=torch.tensor([0, 2]),
            weights={"span": torch.ones(2)},
            scales={"span": 1.0},
            chunk=4,
        )
