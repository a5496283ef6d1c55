"""What is asked of a CUDA device, and that the process has its own choice back afterwards. No device is needed."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils import deterministic

from limbeck.errors import ConfigError
from limbeck.training.repeatable import repeatable

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_sums_are_ordered_inside_and_the_choice_is_back_outside() -> None:
    with repeatable(CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        # With warnings alone, attention would go on adding in any order.
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert deterministic.fill_uninitialized_memory


def test_a_choice_that_was_made_before_is_kept() -> None:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with repeatable(CUDA):
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("device", "wanted"), [("cpu", True), ("cuda", False), ("mps", True)])
def test_elsewhere_nothing_is_asked(device: str, wanted: bool) -> None:
    with repeatable(torch.device(device), wanted=wanted):
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_an_operation_that_cannot_be_repeated_is_named_with_the_way_out() -> None:
    told = "histc_cuda does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms'"
    with (
        pytest.raises(ConfigError, match=r"histc_cuda cannot be repeated .*\n.*train\.deterministic=false"),
        repeatable(CUDA),
    ):
        raise RuntimeError(told)
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="another"), repeatable(CUDA):
        raise RuntimeError("another")
