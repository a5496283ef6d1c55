"""The plain-Python optimiser step is the one that torch takes, so that training can be compared with it."""

from __future__ import annotations

import pytest
import torch

from reference import equations


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_adamw_is_that_of_torch(weight_decay: float) -> None:
    gradients = [0.3, -1e-9, 0.0, 25.0, -0.2]
    rates = [
        equations.learning_rate(step, schedule="cosine", peak=0.05, steps=5, warmup=2) for step in range(len(gradients))
    ]
    parameter = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([parameter], weight_decay=weight_decay)
    for gradient, rate in zip(gradients, rates, strict=True):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    assert parameter.item() == pytest.approx(
        equations.adamw(1.5, gradients, rates, weight_decay=weight_decay), rel=1e-12
    )


def test_clipping_is_that_of_torch() -> None:
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    parameter.grad = torch.tensor([3.0, 4.0, 12.0], dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    # torch adds 1e-6 to the norm before it divides.
    assert parameter.grad.tolist() == pytest.approx(equations.clipped([3.0, 4.0, 12.0], limit=1.0), rel=1e-6)


def test_schedules_by_hand() -> None:
    def rates(schedule: str, *, steps: int, warmup: int = 0) -> list[float]:
        return [
            equations.learning_rate(step, schedule=schedule, peak=1.0, steps=steps, warmup=warmup)
            for step in range(steps)
        ]

    assert rates("constant", steps=4, warmup=2) == [0.5, 1.0, 1.0, 1.0]
    assert rates("linear", steps=4) == [1.0, 0.75, 0.5, 0.25]
    assert rates("cosine", steps=4) == pytest.approx([1.0, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5])
