"""MiniLLM from end to end: a step's loss from the whole models' own logits, and what inner steps share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.training.session import Session
from limbeck.training.step import StepResult, move_weights, take_items, take_step
from limbeck.types import Sequences
from reference import equations, minillm
from training_kit import Models, opened, recipe


def _session(models: Models, run: Path, **sequences: Any) -> Session:
    parts = {"rows": 12, "epochs": 2, **sequences}
    return opened(recipe(models, "minillm", method={"sequences": parts}, watch={"rows": 0}), run)


def _take(session: Session, step: int) -> StepResult:
    items, wanted = take_items(session, step, 0)
    assert (len(items), wanted) == ((12, 12) if step % 4 == 1 else (0, 0))
    return take_step(session, step, items=items)


def _distributions(model: Any, rows: Sequences, row: int, width: int) -> tuple[list[list[float]], list[int]]:
    """A model's distributions that predict the response of a row, and its tokens, without any of the library."""
    length = int(rows.lengths[row])
    tokens = rows.tokens[row, :length]
    places = rows.is_response[row, :length].nonzero().squeeze(1)
    with torch.no_grad():
        logits = model(tokens.unsqueeze(0)).logits[0, :, :width].double()
    return logits[places - 1].softmax(-1).tolist(), tokens[places].tolist()


def test_the_loss_is_that_of_plain_python_over_the_whole_collection(models: Models, tmp_path: Path) -> None:
    session = _session(models, tmp_path / "run", teacher_share=0.4)
    pair, width = session.pair, session.pair.vocabulary.size
    first = _take(session, 1)
    whole = first.kept
    assert (len(whole), len(first.drawn)) == (12, 6)
    said = {}
    for row, key in enumerate(whole.keys):
        old, tokens = _distributions(pair.student, whole, row, width)
        teacher, _ = _distributions(pair.teacher, whole, row, width)
        rewards = minillm.rewards(teacher, old, tokens)
        said[key] = (teacher, old, tokens, minillm.returns_of_what_follows(rewards), rewards)
    advantages = dict(zip(said, minillm.whitened([each[3] for each in said.values()]), strict=True))
    rewards = [reward for each in said.values() for reward in each[4]]
    assert first.row["collection"]["reward"] == pytest.approx(sum(rewards) / len(rewards), abs=1e-5)

    def expected(result: StepResult) -> float:
        losses = []
        for row, key in enumerate(result.drawn.keys):
            teacher, old, tokens, _, _ = said[key]
            now, _ = _distributions(pair.student, result.drawn, row, width)
            losses += [
                minillm.token_loss(p_t=p_t, q_t=q_t, old_t=old_t, token=y, share=0.4, advantage=a, clip=0.2)
                for p_t, q_t, old_t, y, a in zip(teacher, now, old, tokens, advantages[key], strict=True)
            ]
        return equations.reduced([losses], reduction="token")

    assert first.row["loss"] == pytest.approx(expected(first), abs=2e-4)
    seen = list(first.drawn.keys)
    move_weights(session, first)
    for step in (2, 3, 4):
        result = _take(session, step)
        assert result.kept is whole
        # The student has moved: old log-probabilities and advantages are those of the draw.
        assert result.row["loss"] == pytest.approx(expected(result), abs=2e-4), step
        assert result.row["collection"] == {"rows": 12, "is_new": False}
        seen += result.drawn.keys
        move_weights(session, result)
    assert all(seen.count(key) == 2 for key in whole.keys)
    again = _take(session, 5)
    assert again.row["collection"]["is_new"]
    assert again.kept is not whole


def test_without_a_teachers_share_the_first_step_is_on_policy(models: Models, tmp_path: Path) -> None:
    session = _session(models, tmp_path / "run", teacher_share=0.0)
    items, _ = take_items(session, 1, 0)
    result = take_step(session, 1, items=items)
    own = session.rollouts.student(items)
    assert torch.equal(result.kept.tokens, own.tokens)
    assert result.row["origin"] == {"student": 1.0}
    assert result.row["measures"]["token/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert result.row["measures"]["token/clipped"] == 0.0
    for name in ("importance", "importance_max"):
        assert result.row["collection"][name] == pytest.approx(1.0, abs=1e-4)


def test_a_step_may_be_taken_again_before_the_weights_move(models: Models, tmp_path: Path) -> None:
    session = _session(models, tmp_path / "run")
    one, other = _take(session, 1), _take(session, 1)
    assert {key: value for key, value in one.row.items() if key != "time"} == {
        key: value for key, value in other.row.items() if key != "time"
    }
    move_weights(session, other)
    one, other = _take(session, 2), _take(session, 2)
    assert one.row["loss"] == other.row["loss"]
    assert one.drawn.keys == other.drawn.keys


def test_an_epoch_of_the_corpus_takes_the_steps_of_all_inner_epochs(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "minillm", method={"sequences": {"rows": 12, "epochs": 2}}, train={"steps": None})
    session = opened(settings, tmp_path / "run")
    # 20 rows, each in two steps, six at a time.
    assert session.steps == session.auto["steps_per_epoch"] == 7
