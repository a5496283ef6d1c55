from __future__ import annotations

import pytest
import torch

from training_kit import Models


@pytest.fixture(scope="session", autouse=True)
def _accelerator() -> None:
    """These tests are of what a CUDA device does."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models.save(tmp_path_factory.mktemp("models"))
