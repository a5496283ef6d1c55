"""The command itself, in processes of its own: killed, interrupted, and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck import cli
from limbeck.config.reading import to_yaml
from limbeck.training import loop
from training_kit import ROWS, Models, assert_same_run, metrics, recipe

STEPS = 20


def _settings(models: Models, folder: Path, **train: Any) -> dict[str, Any]:
    """A recipe whose checkpoints come as often as twenty times their own cost allows, from a file of rows."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = recipe(
        models,
        "gkd",
        method={"weights": {"supervised": 1}},
        data={"corpus": str(rows)},
        train={"steps": STEPS, "batch_rows": 4, "micro_rows": 3, "checkpoint_minutes": 0, **train},
        validate={"every": 10, "metric": "loss"},
    )
    return settings


def _write(settings: dict[str, Any], run: Path) -> Path:
    path = run.with_suffix(".yaml")
    path.write_text(to_yaml({**settings, "run": str(run)}))
    return path


def _start(recipe_file: Path, run: Path) -> subprocess.Popen[str]:
    resumed = ["--resume"] if (run / "recipe.yaml").exists() else []
    command = [sys.executable, "-m", "limbeck", "train", str(recipe_file), *resumed]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_until(reached: Callable[[], bool], process: subprocess.Popen[str], *, look_every: float = 0.01) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(look_every)


def _steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count('"kind": "step"') if path.exists() else 0


def _is_writing(run: Path) -> bool:
    folder = run / "checkpoints"
    return folder.is_dir() and any(name.startswith(".step-") for name in os.listdir(folder))


def test_three_kills_at_random_moments(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL after a random number of steps, in the middle of a checkpoint, and after a random time."""
    settings = _settings(models, tmp_path)
    file, run, moments = _write(settings, tmp_path / "killed"), tmp_path / "killed", random.Random(0)
    first = moments.randint(2, 5)
    with _start(file, run) as process:
        _wait_until(lambda: _steps(run) >= first, process)
        process.kill()
        _, err = process.communicate()
    assert "step 1/" in err
    assert not [bar for bar in ("Loading weights", "Writing model shards") if bar in err], "transformers' own bars"
    with _start(file, run) as process:
        _wait_until(lambda: _steps(run) >= first + 3, process)
        _wait_until(lambda: _is_writing(run), process, look_every=0.0005)
        process.kill()
    with _start(file, run) as process:
        _wait_until(lambda: _steps(run) >= 13, process)
        time.sleep(moments.uniform(0.0, 0.3))
        process.kill()
    assert process.returncode == -signal.SIGKILL

    # The last part, and the run that nobody stops, happen in this process: another one, the same bits.
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert "going on after step" in capsys.readouterr().err
    assert cli.main(["train", str(_write(settings, tmp_path / "whole"))]) == 0
    assert_same_run(tmp_path / "whole", run)


def _signals_during_step(patch: pytest.MonkeyPatch, step: int, signals: list[int]) -> None:
    whole = loop.take_step

    def interrupted(session: Any, number: int, **kwargs: Any) -> Any:
        if number == step:
            for each in signals:
                os.kill(os.getpid(), each)
                time.sleep(0)
        return whole(session, number, **kwargs)

    patch.setattr(loop, "take_step", interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step(
    number: int, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(models, tmp_path, steps=4, checkpoint_minutes=5)
    file, run = _write(settings, tmp_path / "run"), tmp_path / "run"
    with monkeypatch.context() as patch:
        _signals_during_step(patch, 2, [number])
        assert cli.main(["train", str(file)]) == 75
    said = capsys.readouterr().err
    assert "stopping after this step (once more: stop at once)" in said
    assert "stopped after step 2 of 4; everything is saved" in said
    assert f"go on with: limbeck train {run} --resume" in said
    assert "Traceback" not in said
    assert [row["step"] for row in metrics(run)] == [1, 2]
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert cli.main(["train", str(_write(settings, tmp_path / "whole"))]) == 0
    assert_same_run(tmp_path / "whole", run)


def test_a_run_with_a_part_of_ones_own_goes_on_with_its_recipe_and_says_that_the_part_has_changed(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "own_divergence.py"
    part.write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Mine:\n"
        "    def __call__(self, *, target_logp, student_logp):\n"
        "        return (target_logp.exp() * (target_logp - student_logp)).sum(-1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = _settings(models, tmp_path, steps=3, checkpoint_minutes=5)
    settings["method"] = {"base": "kd", "token": {"divergence": {"kind": "own_divergence:Mine"}}}
    file = _write(settings, tmp_path / "run")
    with monkeypatch.context() as patch:
        _signals_during_step(patch, 1, [signal.SIGINT])
        assert cli.main(["train", str(file)]) == 75
    assert "go on with: limbeck train YOUR_RECIPE.yaml --resume" in capsys.readouterr().err
    assert cli.main(["train", str(file), "train.steps=4", "--resume"]) == 0
    assert "has changed" not in capsys.readouterr().err
    part.write_text(part.read_text() + "# another one\n")
    assert cli.main(["train", str(file), "train.steps=5", "--resume"]) == 0
    assert "warning: own_divergence, the code of a part of this run, has changed" in capsys.readouterr().err


def test_a_second_control_c_stops_at_once(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    file = _write(_settings(models, tmp_path, steps=6, checkpoint_minutes=5), tmp_path / "run")
    with monkeypatch.context() as patch:
        _signals_during_step(patch, 3, [signal.SIGINT, signal.SIGINT])
        assert cli.main(["train", str(file)]) == 75
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"go on with: limbeck train {tmp_path / 'run'} --resume" in said
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2], "the third step was not finished"
    assert signal.getsignal(signal.SIGINT) is before
    assert cli.main(["train", str(file), "--resume"]) == 0
