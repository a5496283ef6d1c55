"""JSD and both KLs against Liger's chunked loss (the plain torch part of it), value and gradient."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from limbeck.losses import DIVERGENCES


@pytest.fixture(scope="module")
def distillation_loss_fn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        liger = pytest.importorskip("liger_kernel.chunked_loss.jsd_loss", exc_type=ImportError)
    return liger.LigerFusedLinearJSDFunction.distillation_loss_fn


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_jsd_is_that_of_liger(distillation_loss_fn: Any, beta: float) -> None:
    noise = torch.Generator().manual_seed(12)
    teacher = torch.randn(6, 31, generator=noise, dtype=torch.float64)
    ours = torch.randn(6, 31, generator=noise, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()

    expected = distillation_loss_fn(theirs, teacher, beta=beta)
    value = DIVERGENCES["jsd"](beta=beta)(target_logp=teacher.log_softmax(-1), student_logp=ours.log_softmax(-1)).sum()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
