"""Sums in the same order every time, on devices that would otherwise add in whatever order threads arrive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic as _deterministic

from limbeck.errors import ConfigError

# A module whose attributes are made by its class, which type checkers do not see.
deterministic: Any = _deterministic
# cuBLAS reads it when it is first used; without it, products may share work between streams in any order.
_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_REFUSED = "does not have a deterministic implementation"


@contextmanager
def repeatable(device: torch.device, *, wanted: bool = True) -> Iterator[None]:
    """Inside, a CUDA device computes the same bits from the same numbers: a resumed run is the run that never stopped.

    Attention's backward pass is what would otherwise differ. Nothing changes on other devices, which repeat themselves
    anyway, and where it is not `wanted`; the process's own choice is back afterwards. Raises `ConfigError` where a
    model uses an operation that cannot be repeated.
    """
    if device.type != "cuda" or not wanted:
        yield
        return
    os.environ.setdefault(*_WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that was never written.
    deterministic.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if _REFUSED not in str(error):
            raise
        operation = str(error).split(_REFUSED)[0].strip()
        raise ConfigError(
            f"{operation} cannot be repeated bit for bit on this device, and train.deterministic is true"
            "\n  start a new run with train.deterministic=false; after a stop it may then differ in its last bits"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = filling
