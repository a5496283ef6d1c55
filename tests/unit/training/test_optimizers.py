"""The optimizer's arithmetic against plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.training.optimizers import adamw, clipped_norm, learning_rate
from limbeck.training.step import move_weights, take_items, take_step
from reference import equations
from training_kit import Models, gradients, in_float64, metrics, opened, recipe, start


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear"])
@pytest.mark.parametrize(
    ("steps", "warmup", "final"), [(1, 0, 0.0), (7, 0, 0.1), (7, 3, 0.0), (7, 7, 0.0), (3, 9, 0.0)]
)
def test_the_schedule(schedule: Any, steps: int, warmup: int, final: float) -> None:
    settings: dict[str, Any] = {"steps": steps, "peak": 2.0, "schedule": schedule, "warmup": warmup, "final": final}
    for step in range(1, steps + 1):
        rate = learning_rate(step, **settings)
        assert rate == pytest.approx(equations.learning_rate(step - 1, **settings), abs=1e-15)
        assert 0.0 < rate <= 2.0


def test_the_schedule_of_a_run_is_written_down(models: Models, tmp_path: Path) -> None:
    train = {"steps": 5, "warmup": 0.4, "schedule": "linear", "learning_rate": 1e-3, "final_learning_rate": 1e-4}
    run = start(recipe(models, "sft", train=train, validate={"every": None}), tmp_path / "run")
    expected = [
        equations.learning_rate(step, schedule="linear", peak=1e-3, steps=5, warmup=2, final=1e-4) for step in range(5)
    ]
    assert [row["learning_rate"] for row in metrics(run.directory)] == pytest.approx(expected)


def test_adamw_is_that_of_plain_python_and_vectors_do_not_decay() -> None:
    module = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.5, -0.5]]))
        module.bias.fill_(0.75)
    optimizer = adamw(module, weight_decay=0.3, betas=(0.8, 0.95), sharded=False)
    steps, rates = [[0.3, -1e-9, 4.0], [0.1, 0.0, -2.0], [-7.0, 0.2, 0.0]], [0.05, 0.02, 0.01]
    for values, rate in zip(steps, rates, strict=True):
        module.weight.grad = torch.tensor([values[:2]], dtype=torch.float64)
        module.bias.grad = torch.tensor(values[2:], dtype=torch.float64)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    found = [*module.weight.flatten().tolist(), module.bias.item()]
    for place, (value, decay) in enumerate(zip((1.5, -0.5, 0.75), (0.3, 0.3, 0.0), strict=True)):
        own = [values[place] for values in steps]
        expected = equations.adamw(value, own, rates, betas=(0.8, 0.95), weight_decay=decay)
        assert found[place] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("limit", [None, 0.5, 100.0])
def test_clipping(limit: float | None) -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    other = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    parameter.grad = torch.tensor([3.0, 4.0, 12.0], dtype=torch.float64)
    assert clipped_norm([parameter, other], clip_norm=limit) == pytest.approx(13.0)
    expected = [3.0, 4.0, 12.0] if limit is None else equations.clipped([3.0, 4.0, 12.0], limit=limit)
    # torch adds 1e-6 to the norm before it divides.
    assert parameter.grad.tolist() == pytest.approx(expected, rel=1e-6)


def test_only_what_is_trained_is_optimized(models: Models, tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2}}
    session = opened(recipe(models, "kd", models=lora), tmp_path / "run")
    held = [p for group in session.optimizer.param_groups for p in group["params"]]
    assert held
    assert all(p.requires_grad for p in held)
    assert {id(p) for p in held} == {id(p) for p in session.distiller.parameters() if p.requires_grad}
    assert session.pair.teacher is not None
    assert not any(p.requires_grad for p in session.pair.teacher.parameters())


def test_a_whole_step_of_a_run(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipped gradient, AdamW and rate together, number by number, on a real model."""
    in_float64(monkeypatch)
    train = {"clip_norm": 0.05, "weight_decay": 0.2, "learning_rate": 1e-2}
    session = opened(recipe(models, "sft", train=train), tmp_path / "run")
    weight = session.pair.student.lm_head.weight
    before = weight.detach().clone()
    result = take_step(session, 1, items=take_items(session, 1, 0)[0])
    assert result.row["gradient_norm"] > 0.05
    after_clipping = math.sqrt(sum(float(g.square().sum()) for g in gradients(session).values()))
    assert after_clipping == pytest.approx(0.05, rel=1e-4)
    assert weight.grad is not None
    gradient = weight.grad.detach().clone()
    move_weights(session, result)
    for place in [(0, 0), (5, 3), (104, 31)]:
        expected = equations.adamw(float(before[place]), [float(gradient[place])], [1e-2], weight_decay=0.2)
        assert weight[place].item() == pytest.approx(expected, rel=1e-8, abs=1e-12)
