"""A loss that is no number stops the run: the rows are saved, and nothing that was good is overwritten."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from limbeck import cli
from limbeck.config.reading import to_yaml
from limbeck.errors import NonFiniteLoss
from limbeck.training import Distiller, loop
from training_kit import Models, contents, metrics, recipe, start


def _not_a_number_at(patch: pytest.MonkeyPatch, step: int, value: float) -> None:
    forward, take_step, now = Distiller.forward, loop.take_step, {"step": 0}

    def spoilt(self: Distiller, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        if now["step"] == step and torch.is_grad_enabled():
            out = {**out, "loss": out["loss"] * value, "total/token": out["total/token"] * value}
        return out

    def counted(session: Any, number: int, **kwargs: Any) -> Any:
        now["step"] = number
        return take_step(session, number, **kwargs)

    patch.setattr(Distiller, "forward", spoilt)
    patch.setattr(loop, "take_step", counted)


@pytest.mark.parametrize(("base", "value"), [("sft", math.nan), ("imitkd", math.inf)])
def test_stops_with_the_rows_saved(
    base: str, value: float, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run = recipe(models, base, validate={"metric": "loss"}), tmp_path / "run"
    start(settings, run, "train.steps=3")
    before = contents(run)
    with monkeypatch.context() as patch:
        _not_a_number_at(patch, 5, value)
        with pytest.raises(NonFiniteLoss, match="step 5: the loss is") as stopped:
            start(settings, run, "train.steps=6", resume=True)
    assert stopped.value.exit_code == 1
    rows = metrics(run)
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) for row in rows)
    after = contents(run)
    kept = [name for name in before if "checkpoints" in name or "student" in name]
    assert kept
    assert all(after[name] == before[name] for name in kept)
    (saved,) = (run / "failed").iterdir()
    assert str(saved) in str(stopped.value)
    with safe_open(saved, framework="pt") as file:
        tokens, is_response = file.get_tensor("tokens"), file.get_tensor("is_response")
        origin, keys = (json.loads(file.metadata()[name]) for name in ("origin", "keys"))
    assert tokens.shape == is_response.shape
    assert tokens.shape[0] == 6
    assert is_response.any(dim=1).all()
    assert set(origin) == {"student" if base == "imitkd" else "reference"}
    assert len(keys) == 6
    # The cause removed, the run goes on from its last checkpoint.
    start(settings, run, "train.steps=6", resume=True)
    assert [row["step"] for row in metrics(run) if row["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("base", ["sft", "imitkd"])
def test_a_learning_rate_that_explodes_is_caught(
    base: str, models: Models, tmp_path: Path, toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"learning_rate": 1e25, "clip_norm": None, "schedule": "constant"}
    settings = recipe(models, base, data={"corpus": str(toy_file)}, train=train, validate={"every": None})
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(to_yaml({**settings, "run": str(run)}))
    assert cli.main(["train", str(file)]) == 1
    said = capsys.readouterr().err
    assert "error: step 2: the loss is" in said
    assert "train.learning_rate" in said
    assert "Traceback" not in said
    assert [row["step"] for row in metrics(run)] == [1]
    assert not (run / "student").exists()


def test_a_validation_that_is_no_number_is_never_the_best(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.training.validation import Validator

    losses = iter([math.nan, 2.0, 3.0])

    def scripted(self: Validator, *args: Any) -> tuple[dict[str, Any], list[Any]]:
        value = next(losses)
        return {"loss": value, "terms": {"token": value}, "cross_entropy": value}, []

    monkeypatch.setattr(Validator, "run", scripted)
    run = start(recipe(models, "sft", validate={"every": 2, "metric": "loss"}), tmp_path / "run")
    assert run.best is not None
    assert run.best["step"] == 4
