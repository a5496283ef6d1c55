"""Killed at any moment and resumed, a run ends as one that was not killed: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_kit import Killed, Models, assert_same_run, contents, kill_before, metrics, recipe, start, tensors

from limbeck.errors import CheckpointError, ConfigError
from limbeck.training import checkpoint, keeping, loop

ON_POLICY = {"base": "gkd", "weights": {"supervised": 1}, "sequences": {"kind": "mixture", "share": 0.7}}


def _settings(models: Models, name: str) -> dict[str, Any]:
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.2}
    with_dropout = {"student": models.with_dropout, "dropout": True}
    every = {
        "sft": lambda: recipe(models, "sft"),
        "kd": lambda: recipe(models, "kd", method={"base": "kd", "reduction": "sequence"}),
        "gkd": lambda: recipe(models, "gkd", method=ON_POLICY),
        "lora": lambda: recipe(models, "imitkd", models={"student": models.student, "teacher": models.teacher, "lora": lora}),
        "dropout": lambda: recipe(models, "sft", models=with_dropout),
        "checkpointing": lambda: recipe(models, "sft", models={**with_dropout, "gradient_checkpointing": True}),
        "bf16": lambda: recipe(models, "sft", train={"precision": "bf16"}),
    }
    return every[name]()


@pytest.mark.parametrize("name", ["sft", "kd", "gkd", "lora", "dropout", "checkpointing", "bf16"])
def test_killed_and_resumed_is_never_killed(
    name: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(models, name)
    start(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, "take_step", call=5)
        start(settings, tmp_path / "killed")
    assert metrics(tmp_path / "killed")[-1]["step"] == 4
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
