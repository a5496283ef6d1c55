"""Memory runs out: the micro-batch is halved, the step repeated, and a resumed run does the same at the same step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import cli
from limbeck.config.reading import to_yaml
from limbeck.errors import LimbeckError, Stopped
from limbeck.models.room import is_out_of_memory
from limbeck.training import Distiller, loop, memory
from training_kit import Killed, Models, assert_same_run, metrics, recipe, start

ERRORS: Mapping[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B"),
    "python": MemoryError,
}


def _scarce(
    patch: pytest.MonkeyPatch, *, rows: int, from_step: int, error: str = "cuda", training: bool = True
) -> None:
    """From a step on, a forward pass of more rows than this finds no memory (in training, or else in validation)."""
    forward, take_step, now = Distiller.forward, loop.take_step, {"step": 0}

    def short(self: Distiller, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if now["step"] >= from_step and len(sequences) > rows and torch.is_grad_enabled() is training:
            raise ERRORS[error]()
        return forward(self, sequences, *args, **kwargs)

    def counted(session: Any, step: int, **kwargs: Any) -> Any:
        now["step"] = step
        return take_step(session, step, **kwargs)

    patch.setattr(Distiller, "forward", short)
    patch.setattr(loop, "take_step", counted)


def _killed_at(patch: pytest.MonkeyPatch, step: int) -> None:
    take_step = loop.take_step

    def killed(session: Any, number: int, **kwargs: Any) -> Any:
        if number == step:
            raise Killed
        return take_step(session, number, **kwargs)

    patch.setattr(loop, "take_step", killed)


def _halvings(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "auto.json").read_text())["halvings"]
    return found


@pytest.mark.parametrize("error", sorted(ERRORS))
def test_what_is_taken_for_it(error: str) -> None:
    assert is_out_of_memory(ERRORS[error]())


def test_halved_repeated_and_recorded(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe(models, "kd", validate={"metric": "loss"}, train={"steps": 3})
    plenty = start(settings, tmp_path / "plenty")
    with monkeypatch.context() as patch:
        _scarce(patch, rows=1, from_step=2, error="cpu")
        scarce = start(settings, tmp_path / "scarce")
    recorded = [{"step": 2, "during": "step", "micro_rows": rows} for rows in (2, 1)]
    assert _halvings(scarce.directory) == recorded
    assert json.loads((scarce.directory / "auto.json").read_text())["micro_rows"] == 4, "what it was at the start"
    assert "out of memory at step 2: micro-batches of 2 rows from here on" in capsys.readouterr().err
    steps = zip(plenty.metrics(), scarce.metrics(), strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], abs=2e-6) for a, b in steps)
    assert [row["step"] for row in scarce.metrics() if row["kind"] == "step"] == [1, 2, 3]


@pytest.mark.parametrize("training", [True, False], ids=["training", "validation"])
def test_resumed_before_the_next_checkpoint_it_halves_at_the_same_step(
    training: bool, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(models, "gkd", validate={"every": 2 if training else 3}, train={"steps": 4 if training else 3})
    with monkeypatch.context() as patch:
        _scarce(patch, rows=2, from_step=3, training=training)
        start(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _scarce(patch, rows=2, from_step=3, training=training)
        if training:
            _killed_at(patch, 4)
        else:
            patch.setattr(loop, "save_checkpoint", _raise_killed)
        with pytest.raises(Killed):
            start(settings, tmp_path / "killed")
    # Memory is plentiful from here on, and yet the step is taken as it was the first time.
    start(settings, tmp_path / "killed", resume=True)
    during = "step" if training else "validation"
    assert _halvings(tmp_path / "killed") == [{"step": 3, "during": during, "micro_rows": 2}]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def _raise_killed(*args: Any, **kwargs: Any) -> float:
    raise Killed


def test_resumed_after_a_checkpoint_it_stays_halved(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(models, "gkd", validate={"every": 2})
    with monkeypatch.context() as patch:
        _scarce(patch, rows=2, from_step=1)
        start(settings, tmp_path / "whole")
        _killed_at(patch, 4)
        with pytest.raises(Killed):
            start(settings, tmp_path / "killed")
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_one_row_that_does_not_fit_is_an_error_with_advice(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _scarce(monkeypatch, rows=0, from_step=1)
    with pytest.raises(LimbeckError, match="one row at a time") as refused:
        start(recipe(models, "sft"), tmp_path / "run")
    assert refused.value.exit_code == 1
    assert "gradient_checkpointing" in str(refused.value)


def test_the_optimizer_is_never_run_twice(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(session: Any, result: Any) -> Any:
        raise ERRORS["cpu"]()

    monkeypatch.setattr(memory, "move_weights", short)
    with pytest.raises(Stopped, match="while the optimizer moved the weights of step 1"):
        start(recipe(models, "sft"), tmp_path / "run")
    assert metrics(tmp_path / "run") == []
    assert _halvings(tmp_path / "run") == []


def test_other_errors_are_not_taken_for_it(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Distiller, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Distiller, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        start(recipe(models, "sft"), tmp_path / "run")
    assert _halvings(tmp_path / "run") == []


def test_exit_codes(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_file: Path) -> None:
    _scarce(monkeypatch, rows=0, from_step=1)
    file = tmp_path / "recipe.yaml"
    settings = recipe(models, "sft", data={"corpus": str(toy_file)})
    file.write_text(to_yaml({**settings, "run": str(tmp_path / "run")}))
    assert cli.main(["train", str(file)]) == 1
