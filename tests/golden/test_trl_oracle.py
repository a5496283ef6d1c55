"""JSD and both KLs against TRL's generalized_jsd_loss, value and gradient; the preset against TRL's defaults."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch

from limbeck.losses import DIVERGENCES, JSD, Match
from limbeck.methods import PRESETS, Method
from limbeck.sequences import Student


@pytest.fixture(scope="module")
def generalized_jsd_loss() -> Any:
    with warnings.catch_warnings():
        # The import warns that TRL keeps this trainer under `experimental`, and so do some of what it imports.
        warnings.simplefilter("ignore")
        gkd = pytest.importorskip("trl.experimental.gkd", exc_type=ImportError)
    return gkd.GKDTrainer.generalized_jsd_loss


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_jsd_is_that_of_trl(generalized_jsd_loss: Any, beta: float) -> None:
    noise = torch.Generator().manual_seed(11)
    teacher = torch.randn(2, 5, 31, generator=noise, dtype=torch.float64)
    ours = torch.randn(2, 5, 31, generator=noise, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()

    expected = generalized_jsd_loss(theirs, teacher, beta=beta, reduction="none").sum(-1)
    value = DIVERGENCES["jsd"](beta=beta)(
        target_logp=teacher.log_softmax(-1).flatten(0, 1), student_logp=ours.log_softmax(-1).flatten(0, 1)
    )
    torch.testing.assert_close(value, expected.flatten(), rtol=1e-10, atol=1e-12)

    weight = torch.rand(10, generator=noise, dtype=torch.float64)
    (weight * value).sum().backward()
    (weight * expected.flatten()).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_the_preset_is_what_trl_does_by_default() -> None:
    """`DistillationTrainer` draws every row; its β and its temperature are in its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl", exc_type=ImportError)
        theirs = {field.name: field.default for field in dataclasses.fields(trl.DistillationConfig)}
    assert PRESETS["gkd:trl"]() == Method(sequences=Student(), token=Match(JSD(theirs["beta"])))
    assert theirs["temperature"] == 1.0, "of drawing and of the loss"
