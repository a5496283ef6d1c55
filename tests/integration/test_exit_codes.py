"""The exit codes of docs/cli.md, each from a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from training_kit import ROWS, Models, recipe


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of six steps of tiny models."""
    folder = tmp_path_factory.mktemp("codes")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = recipe(Models.save(folder / "models"), "kd", data={"corpus": str(rows)})
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "limbeck", *arguments]


def _done(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)


def test_0_done() -> None:
    done = _done("explain", "kd")
    assert (done.returncode, done.stderr) == (0, "")


def test_1_failed(file: Path, tmp_path: Path) -> None:
    # Random teachers know nothing: the first look warns, and --strict makes an end of it.
    strict = ["watch.teacher_no_better=1e6", "--strict", "--run", str(tmp_path / "run"), "--quiet"]
    done = _done("train", str(file), *strict)
    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_2_bad_input(tmp_path: Path) -> None:
    done = _done("train", str(tmp_path / "nothing.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert _done("tarin").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_75_stopped_can_be_resumed(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", str(file), "--run", str(run)]
    process = subprocess.Popen(
        _command(*words, "train.steps=100000", "validate.every=null"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_step(run / "metrics.jsonl", process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert "--resume" in said
    assert (run / "checkpoints" / "latest").is_file()


def _wait_for_step(metrics: Path, process: subprocess.Popen[Any]) -> None:
    for _ in range(6000):
        if metrics.is_file() and '"kind": "step"' in metrics.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no step was taken in ten minutes")
