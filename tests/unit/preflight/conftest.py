from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from limbeck.testing import save_tiny, save_toy


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher of 3 layers, a student of 2, and 60 toy rows."""
    folder = tmp_path_factory.mktemp("pair")
    save_tiny(folder / "teacher", seed=1, layers=3)
    save_tiny(folder / "student", seed=2)
    save_toy(folder / "rows.jsonl", 60)
    return folder


@pytest.fixture
def recipe(pair: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A recipe for that pair; sections are laid over it."""

    def recipe(base: str = "gkd", **sections: Mapping[str, Any]) -> dict[str, Any]:
        standard: dict[str, dict[str, Any]] = {
            "method": {"base": base},
            "models": {"student": str(pair / "student"), "teacher": str(pair / "teacher"), "device": "cpu"},
            "data": {"corpus": str(pair / "rows.jsonl"), "max_prompt": 48, "max_length": 64},
            "sampling": {"max_new_tokens": 8},
            "train": {"batch_rows": 8},
        }
        names = dict.fromkeys([*standard, *sections])
        return {name: {**standard.get(name, {}), **sections.get(name, {})} for name in names} | {
            "run": str(tmp_path / "run")
        }

    return recipe
