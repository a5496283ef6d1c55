"""The run's folder: what is appended, cut back and cleared."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.errors import CheckpointError, ConfigError
from limbeck.training.rundir import METRICS, RunDirectory, check_free, environment, environment_changes


def _new(path: Path) -> RunDirectory:
    return RunDirectory.create(path, recipe="method: {base: sft}\n", environment={"threads": 1})


def test_logs_are_cut_back_to_where_they_were(tmp_path: Path) -> None:
    directory = _new(tmp_path / "run")
    directory.append(METRICS, {"step": 1, "text": "ä"})
    sizes = directory.sizes()
    directory.append(METRICS, {"step": 2})
    with (directory.path / METRICS).open("a") as file:
        file.write('{"step": 3, "te')
    assert [row["step"] for row in directory.rows(METRICS)] == [1, 2], "a line that was cut off is left out"
    directory.cut_back(sizes)
    assert [row["text"] for row in directory.rows(METRICS)] == ["ä"]


def test_nothing_is_cut_if_one_log_is_too_short(tmp_path: Path) -> None:
    directory = _new(tmp_path / "run")
    directory.append(METRICS, {"step": 1})
    before = (directory.path / METRICS).read_bytes()
    with pytest.raises(CheckpointError, match="shorter than at the last checkpoint"):
        directory.cut_back({METRICS: 0, "samples.jsonl": 10})
    assert (directory.path / METRICS).read_bytes() == before


def test_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    directory = _new(tmp_path / "run")
    for step in (2, 4):
        directory.write_text(f"validation/step-{step:06d}.jsonl", "{}\n")
    (directory.path / ".auto.json.draft").write_text("{")
    (directory.path / "validation" / ".step-000006.jsonl.draft").write_text("{")
    scratch = directory.path / ".student-x1"
    (scratch / "replaced").mkdir(parents=True)
    (scratch / "replaced" / "config.json").write_text("old")
    directory.tidy(after=2)
    assert [path.name for path in (directory.path / "validation").iterdir()] == ["step-000002.jsonl"]
    assert not [path for path in directory.path.iterdir() if path.name.startswith(".")]
    assert (directory.student / "config.json").read_text() == "old", "the student that was being replaced is back"


def test_a_student_that_is_there_is_not_replaced_by_the_old_one(tmp_path: Path) -> None:
    directory = _new(tmp_path / "run")
    (directory.path / ".student-x1" / "replaced").mkdir(parents=True)
    directory.student.mkdir()
    (directory.student / "config.json").write_text("new")
    directory.tidy(after=0)
    assert (directory.student / "config.json").read_text() == "new"


def test_free_folders(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    check_free(tmp_path)
    for name in ("environment.json", "metrics.jsonl", "samples.jsonl", ".recipe.yaml.draft"):
        (tmp_path / name).write_text("")
    check_free(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(ConfigError, match="another run's directory"):
        check_free(tmp_path)


def test_a_changed_environment_is_named() -> None:
    now = environment(device="cpu", ranks=1, threads=2)
    assert environment_changes(now, json.loads(json.dumps(now))) == []
    before = {**now, "threads": 1, "versions": {**now["versions"], "torch": "1.0"}}
    (line,) = environment_changes(before, now)
    assert "threads 1, now 2" in line
    assert f"torch 1.0, now {now['versions']['torch']}" in line
    assert environment_changes({}, now) == []


def test_a_folder_that_a_kill_left_while_it_wrote_is_free(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from limbeck.training.rundir import RunDirectory\n"
        "os.replace = lambda old, new: os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunDirectory.create(Path(sys.argv[1]), recipe='method: {base: sft}', environment={}, rows={'train': 1})"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "run").glob(".*")], "half of a file is there"
    check_free(tmp_path / "run")
    (tmp_path / "run" / ".mine.draft").touch()
    with pytest.raises(ConfigError, match="not empty"):
        check_free(tmp_path / "run")


def test_half_a_surrogate_pair_in_a_rows_id_is_kept(tmp_path: Path) -> None:
    directory = _new(tmp_path / "run")
    directory.append(METRICS, {"id": "\ud83d1"})
    assert [row["id"] for row in directory.rows(METRICS)] == ["\ud83d1"]
