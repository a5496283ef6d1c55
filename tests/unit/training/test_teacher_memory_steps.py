"""A step in which detection's reading serves the training pass learns the same as one that reads all rows again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.models.teacher_memory import TeacherMemory
from limbeck.training import step as steps
from limbeck.training.session import Session
from limbeck.training.step import StepResult, memory_of, take_items, take_step
from training_kit import Models, gradients, in_float64, opened, recipe

METHOD = {"sequences": {"kind": "student"}, "token": {"top": 32}}


def _taken(models: Models, run: Path, **method: Any) -> tuple[Session, StepResult, int]:
    """A session, its first step, and how many columns the teacher's body was given."""
    session = opened(recipe(models, "mgsr", method={**METHOD, **method}, watch={"rows": 0}), run)
    columns = []
    assert session.teacher is not None
    body = session.teacher.model.base_model
    hook = body.register_forward_pre_hook(
        lambda module, args, kwargs: columns.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    result = take_step(session, 1, items=take_items(session, 1, 0)[0])
    hook.remove()
    return session, result, sum(columns)


@pytest.mark.parametrize("revision", [{}, {"rounds": 2}, {"detector": {"kind": "attention"}}])
def test_loss_and_gradients_are_those_of_a_teacher_that_reads_all_again(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: dict[str, Any]
) -> None:
    in_float64(monkeypatch)
    session, result, columns = _taken(models, tmp_path / "one", revision=revision)
    monkeypatch.setattr(steps, "memory_of", lambda session: None)
    other, expected, all_columns = _taken(models, tmp_path / "other", revision=revision)
    assert torch.equal(result.drawn.tokens, expected.drawn.tokens)
    assert "revised" in result.drawn.origin
    assert result.row["loss"] == pytest.approx(expected.row["loss"], abs=1e-6)
    for name, gradient in gradients(session).items():
        assert torch.allclose(gradient, gradients(other)[name], atol=1e-6), name
    if revision.get("detector"):
        assert columns == all_columns
    else:
        assert columns < 0.8 * all_columns


def test_a_cache_that_keeps_drawn_rows_reads_them_itself(models: Models, tmp_path: Path) -> None:
    def opened_with(base: str, kind: str) -> TeacherMemory | None:
        settings = recipe(models, base, cache={"kind": kind}, watch={"rows": 0})
        return memory_of(opened(settings, tmp_path / f"{base}-{kind}".replace(":", "-")))

    assert opened_with("mgsr:off-policy", "memory") is None
    assert isinstance(opened_with("mgsr:off-policy", "off"), TeacherMemory)
    assert isinstance(opened_with("mgsr", "memory"), TeacherMemory)
    assert opened_with("gkd", "off") is None
