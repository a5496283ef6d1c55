"""Targets that teach nothing, and the rows that a shuffled teacher reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.inspection.composition import explain
from limbeck.losses import Match, OtherRowTarget, PushedDownTarget, TokenScores
from limbeck.losses.divergences import ForwardKL
from limbeck.methods import from_config
from limbeck.sequences import BestOf
from limbeck.sequences.best_of import teacher_logp
from limbeck.studies.builtin import STUDIES
from limbeck.training.batching import micro_batches
from limbeck.training.step import take_items, take_step
from limbeck.training.swapping import next_with_response, tokens_of
from limbeck.types import pack_rows
from training_kit import Models, gradients, opened, recipe

SHUFFLED = {"token": {"kind": "match", "divergence": {"kind": "forward-kl"}, "target": {"kind": "other-row"}}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models.save(tmp_path_factory.mktemp("control-models"))


def by_hand(probabilities: list[float], token: int, by: float) -> list[float]:
    lowered = [p * (math.exp(-by) if v == token else 1.0) for v, p in enumerate(probabilities)]
    return [each / sum(lowered) for each in lowered]


@pytest.mark.parametrize("by", [0.1, 1.0, 5.0])
def test_a_pushed_down_token_loses_exactly_these_odds(by: float) -> None:
    s = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]
    scores = TokenScores(student_logp=torch.tensor(s).log(), target_logp=None, tokens=torch.tensor([1, 2]))
    target = PushedDownTarget(by=by)(scores).exp()
    for row, token in ((0, 1), (1, 2)):
        assert target[row].tolist() == pytest.approx(by_hand(s[row], token, by), rel=1e-5)


def test_its_gradient_lowers_the_token_that_stands_there_and_nothing_flows_into_the_target() -> None:
    raw = torch.tensor([[0.3, -0.2, 0.1]], requires_grad=True)
    scores = TokenScores(student_logp=raw.log_softmax(-1), target_logp=None, tokens=torch.tensor([0]))
    Match(ForwardKL(), target=PushedDownTarget(by=1.0))(scores).sum().backward()
    s = raw.detach().softmax(-1)[0].tolist()
    expected = [q - t for q, t in zip(s, by_hand(s, 0, 1.0), strict=True)]
    assert raw.grad is not None
    assert raw.grad[0].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert raw.grad[0, 0] > 0 > max(raw.grad[0, 1:].tolist())


def test_the_next_row_with_a_response_teaches() -> None:
    assert next_with_response([2, 1, 3]) == [1, 2, 0]
    assert next_with_response([2, 0, 0]) == [0, 0, 0]
    assert next_with_response([0, 4]) == [1, 1]


def _rows(lengths: list[int]) -> Any:
    return pack_rows(
        [[9] * (2 + count) for count in lengths],
        [[False] * 2 + [True] * count for count in lengths],
        origin=["student"] * len(lengths),
        keys=[(0, place) for place in range(len(lengths))],
        pad_id=0,
    )


def test_tokens_are_taught_in_turn_by_those_of_the_other_row() -> None:
    assert tokens_of(_rows([3, 1, 0]), read=_rows([2, 4, 0])).tolist() == [0, 1, 0, 2]
    with pytest.raises(AssertionError, match="with a response"):
        tokens_of(_rows([1]), read=_rows([0]))


def _step(
    models: Models, folder: Path, method: dict[str, Any], *overrides: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = recipe(models, "kd", method={**method}, train={"micro_rows": 6}, validate={"every": None})
    session = opened(settings, folder, *overrides)
    items, _ = take_items(session, 1, 0)
    result = take_step(session, 1, items=items)
    return result.row, {name: value.clone() for name, value in gradients(session).items()}


def test_a_shuffled_teacher_is_the_same_however_a_step_is_cut(models: Models, tmp_path: Path) -> None:
    whole, slopes = _step(models, tmp_path, SHUFFLED)
    cut, cut_slopes = _step(models, tmp_path, SHUFFLED, "train.micro_rows=1")
    plain, _ = _step(models, tmp_path, {})
    assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert plain["loss"] != pytest.approx(whole["loss"], rel=5e-4)
    for name, slope in slopes.items():
        torch.testing.assert_close(cut_slopes[name], slope, rtol=1e-3, atol=1e-5)


def test_a_shuffled_teacher_says_what_the_loops_say(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "kd", method=dict(SHUFFLED), validate={"every": None})
    session = opened(settings, tmp_path)
    items, _ = take_items(session, 1, 0)
    rows = [row for _, row in items]
    assert session.pair.teacher is not None
    width = session.pair.vocabulary.size

    def distributions(model: Any, row: Any) -> torch.Tensor:
        first = len(row.prompt)
        logits = model(torch.tensor([row.tokens])).logits[0, first - 1 : len(row.tokens) - 1, :width]
        return logits.float().log_softmax(-1)

    with torch.no_grad():
        total, count = 0.0, 0
        for place, row in enumerate(rows):
            own = distributions(session.pair.student, row)
            other = distributions(session.pair.teacher, rows[(place + 1) % len(rows)])
            for i in range(len(own)):
                p = other[i % len(other)]
                total += float((p.exp() * (p - own[i])).sum())
                count += 1
    result = take_step(session, 1, items=items)
    assert result.row["loss"] == pytest.approx(total / count, rel=1e-4)


def test_the_likelier_of_two_responses_is_kept(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "imitkd", method={"sequences": {"kind": "best-of", "count": 3}}, validate={"every": None})
    session = opened(settings, tmp_path)
    items, _ = take_items(session, 1, 0)
    teacher = session.rollouts.teacher
    assert teacher is not None
    chosen = BestOf(count=3).draw(items, rollouts=session.rollouts, step=1)
    drawn = [session.rollouts.student(items, purpose=purpose) for purpose in ("draw", "draw 2", "draw 3")]
    likely = [teacher_logp(each, teacher=teacher, rollouts=session.rollouts).tolist() for each in drawn]
    for row in range(len(items)):
        best = max(range(3), key=lambda number: likely[number][row])
        length = int(chosen.lengths[row])
        assert chosen.tokens[row, :length].tolist() == drawn[best].tokens[row, : int(drawn[best].lengths[row])].tolist()
    assert {each[0] for each in likely} != {likely[0][0]}
    assert chosen.keys == drawn[0].keys
    assert take_step(session, 1, items=items).row["origin"] == {"student": 1.0}


def test_explain_knows_what_controls_are_made_of() -> None:
    study = STUDIES["table2"]()
    for name in study.controls:
        text = explain(from_config(study.arm(name).changes["method"], allow_import=False)).text()
        assert "e^(−by" in text or "the next row of the step" in text or "own start" in name


def test_an_other_row_target_without_a_teacher_is_refused() -> None:
    scores = TokenScores(student_logp=torch.zeros(1, 2), target_logp=None, tokens=torch.tensor([0]))
    with pytest.raises(ValueError, match="no teacher was given"):
        OtherRowTarget()(scores)


def test_one_row_a_process_has_no_other_row_to_teach_it(models: Models, tmp_path: Path) -> None:
    settings = recipe(
        models, "kd", method=dict(SHUFFLED), train={"batch_rows": 1, "micro_rows": 1}, validate={"every": None}
    )
    with pytest.raises(ConfigError, match="one row a process, but"):
        opened(settings, tmp_path)


def test_a_row_that_alone_says_something_is_not_taught_by_its_own_teacher(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "kd", method=dict(SHUFFLED), validate={"every": None})
    session = opened(settings, tmp_path)
    items, _ = take_items(session, 1, 0)
    alone = micro_batches(session, items=items, drawn=_rows([0, 3, 0]))
    assert [batch.terms & {"token"} for batch in alone] == [frozenset()] * len(alone)
    two = micro_batches(session, items=items, drawn=_rows([2, 3, 0]))
    assert all("token" in batch.terms for batch in two)
