"""What a step says of the student's own responses and of a revision, against loops over plain lists."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.losses.divergences import ForwardKL
from limbeck.losses.fused import TEACHER_LOGP, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.match import Likelihood, Match
from limbeck.losses.views import HiddenView
from limbeck.models.scoring import scored_tokens
from limbeck.records import EncodedRow
from limbeck.training import validation
from limbeck.training.measuring import distinct_2, own_responses, redrawn_tokens
from limbeck.training.session import Session
from limbeck.training.step import revise, take_items, take_step, with_state
from limbeck.training.world import World
from limbeck.types import Sequences, pack_rows
from training_kit import Models, opened, recipe

STOP = 9


@given(tokens=st.lists(st.integers(0, 3), max_size=12))
def test_distinct_pairs_are_counted(tokens: list[int]) -> None:
    pairs = [(tokens[i], tokens[i + 1]) for i in range(len(tokens) - 1)]
    seen: list[tuple[int, int]] = []
    for pair in pairs:
        if pair not in seen:
            seen.append(pair)
    assert distinct_2(tokens) == (len(seen) / len(pairs) if pairs else None)


def _drawn(responses: list[list[int]], origin: list[str]) -> Sequences:
    return pack_rows(
        [[1, 2, *response] for response in responses],
        [[False, False] + [True] * len(response) for response in responses],
        origin=origin,
        keys=[(0, row) for row in range(len(responses))],
        pad_id=0,
    )


def _item(place: int, response: list[int]) -> Any:
    flags = (False, *([True] * len(response)))
    return (0, place), EncodedRow(id=str(place), prompt=(1,), tokens=(1, *response), is_response=flags)


def test_own_responses_are_those_that_the_student_drew() -> None:
    world = World.start(device="cpu", strategy="auto")
    drawn = _drawn([[5, 5, 5, 5, STOP], [6], [7, 8, 7], [3, 3]], ["student", "student", "student", "reference"])
    items = [_item(0, [5, 6, STOP]), _item(1, [4, 4, 4])]
    found = own_responses(drawn, items=items, stop_ids=frozenset({STOP}), total=world.sum)
    assert found == {
        "tokens": 3.0,
        "at_limit": pytest.approx(2 / 3),
        "distinct_2": pytest.approx((0.5 + 1.0) / 2),
        "reference_tokens": 3.0,
        "reference_distinct_2": 0.75,
    }
    references = _drawn([[3, 3]], ["reference"])
    assert own_responses(references, items=items, stop_ids=frozenset({STOP}), total=world.sum) == {}
    short = own_responses(_drawn([[6]], ["student"]), items=[], stop_ids=frozenset({6}), total=world.sum)
    assert short == {"tokens": 1.0, "at_limit": 0.0}, "what there is nothing to average of is left out"


def test_redrawn_are_the_tokens_of_corrected_rows_from_the_correction_on() -> None:
    rows = _drawn([[5, 6, 7], [5, 6], [8, 8, 8]], ["revised", "revised", "reference"])
    # Row 1 was not corrected; row 2 is the reference of an item whose drawn row, of the same key, was.
    weights_N = redrawn_tokens(rows, {(0, 0): 3, (0, 2): 2})
    where = scored_tokens(rows)
    expected = [float(row == 0 and position >= 3) for row, position in zip(where.rows, where.positions, strict=True)]
    assert weights_N.tolist() == expected
    assert sum(expected) == 2
    back = replace(rows, origin=("replayed", *rows.origin[1:]))
    assert redrawn_tokens(back, {(0, 0): 3, (0, 2): 2}).tolist() == expected


@pytest.mark.parametrize("chunk", [2, 64])
def test_the_teachers_log_probability_is_measured_beside_the_terms(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, taught = (torch.randn(7, 4, generator=generator) for _ in range(2))
    heads = [Head(weight=torch.randn(6, 4, generator=generator), bias=None, size=6) for _ in range(2)]
    tokens = torch.randint(0, 6, (7,), generator=generator)
    weights_N = torch.tensor([1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.0])
    leaf = hidden.clone().requires_grad_()

    def walked(**extra: torch.Tensor) -> Any:
        leaf.grad = None
        result = fused_loss(
            leaf,
            head=heads[0],
            tokens_N=tokens,
            views=[HiddenView(hidden=taught, head=heads[1])],
            terms={"token": Match(ForwardKL())},
            weights={"token": torch.full((7,), 1 / 7), **extra},
            scales={"token": 1.0},
            chunk=chunk,
        )
        result.loss.backward()
        assert leaf.grad is not None
        return result, leaf.grad.clone()

    plain, plain_gradient = walked()
    measured, gradient = walked(**{TEACHER_LOGP: weights_N})
    assert TEACHER_LOGP not in plain.measures
    assert torch.equal(measured.loss, plain.loss)
    assert torch.equal(gradient, plain_gradient)
    logits = (taught @ heads[1].weight.T).double().tolist()
    expected = 0.0
    for row, token, weight in zip(logits, tokens.tolist(), weights_N.tolist(), strict=True):
        expected += weight * (row[token] - math.log(sum(math.exp(each) for each in row)))
    assert float(measured.measures[TEACHER_LOGP]) == pytest.approx(expected, rel=1e-5)


def test_a_class_that_the_teacher_excludes_counts_only_where_it_has_a_weight() -> None:
    """−inf · 0 is no number; a token that is not measured must not make one of the others."""

    class Excluding:
        def log_probabilities(self, chunk: slice) -> torch.Tensor:
            return torch.tensor([[0.0, -math.inf], [math.log(0.5), math.log(0.5)]])[chunk]

    def measured(weights: list[float]) -> float:
        result = fused_loss(
            torch.zeros(2, 3),
            head=Head(weight=torch.zeros(2, 3), bias=None, size=2),
            tokens_N=torch.tensor([1, 1]),
            views=[Excluding()],
            terms={"token": Match(ForwardKL()), "plain": Likelihood()},
            weights={"token": torch.zeros(2), TEACHER_LOGP: torch.tensor(weights)},
            scales={"token": 1.0, "plain": 1.0},
            chunk=2,
        )
        return float(result.measures[TEACHER_LOGP])

    assert measured([0.0, 1.0]) == pytest.approx(math.log(0.5))
    assert measured([1.0, 1.0]) == -math.inf


def _whole_logp(session: Session, row: list[int]) -> list[float]:
    """log p of each token but the first, from the teacher's own logits over the shared vocabulary."""
    assert session.pair.teacher is not None
    with torch.no_grad():
        logits = session.pair.teacher(torch.tensor([row])).logits[0, :-1, : session.pair.vocabulary.size]
    found: list[float] = logits.double().log_softmax(-1).gather(1, torch.tensor(row[1:])[:, None])[:, 0].tolist()
    return found


@pytest.mark.parametrize("micro_rows", [1, 6])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_step_says_what_the_teacher_thinks_of_both_versions(
    micro_rows: int, rounds: int, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"base": "mgsr", "sequences": "student", "revision": {"rounds": rounds}}
    settings = recipe(models, "mgsr", method=method, train={"micro_rows": micro_rows}, sampling={"max_new_tokens": 9})
    session = opened(settings, tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    drawn = session.source.draw(items, rollouts=with_state(session), step=1)
    revision = revise(session, drawn, rollouts=with_state(session))
    assert revision is not None
    assert revision.corrections
    sums = {"before": [0.0, 0.0], "after": [0.0, 0.0]}
    for row in range(len(drawn)):
        places = [each.position for each in revision.corrections if each.row == row]
        for name, version in (("before", drawn), ("after", revision.sequences)):
            tokens = version.tokens[row, : int(version.lengths[row])].tolist()
            for position, logp in enumerate(_whole_logp(session, tokens), start=1):
                if places and position >= min(places):
                    sums[name][0] += logp
                    sums[name][1] += 1
    found = take_step(session, 1, items=items).row["revision"]
    for name, (total, count) in sums.items():
        assert found[f"teacher_logp_{name}"] == pytest.approx(total / count, abs=1e-4)
    monkeypatch.setattr(validation, "teacher_views", lambda *args: [])
    session.distiller.objective = session.distiller.objective.__class__.of(Likelihood(), scales={"token": 1.0})
    unread = take_step(session, 1, items=items).row["revision"]
    assert "teacher_logp_after" not in unread
    assert unread["teacher_logp_before"] == found["teacher_logp_before"]


def test_a_teacher_of_other_rows_says_nothing_of_the_rows_as_revised(models: Models, tmp_path: Path) -> None:
    token = {"kind": "match", "divergence": "forward-kl", "target": "other-row"}
    method = {"base": "mgsr", "sequences": "student", "token": token, "span": None}
    session = opened(recipe(models, "mgsr", method=method, sampling={"max_new_tokens": 9}), tmp_path / "run")
    items, _ = take_items(session, 1, 0)
    found = take_step(session, 1, items=items).row["revision"]
    assert "teacher_logp_before" in found
    assert "teacher_logp_after" not in found
