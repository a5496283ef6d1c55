"""Processes of a study: stopped with their parent, and each once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limbeck.errors import Stopped
from limbeck.interrupts import interrupting
from limbeck.studies import pool


def _wait(folder: Path) -> None:
    """What a run does in its process: it begins, and saves itself when it is asked to stop."""
    pool._end_with_parent()
    try:
        with interrupting():
            (folder / "begun").touch()
            time.sleep(60)
    except KeyboardInterrupt:
        (folder / "saved").touch()
        sys.exit(75)


def _pool(folder: Path) -> None:
    tasks = [pool._Task(label="a run", target=_wait, args=(folder,))]
    pool._run_all(tasks, jobs=1, say=lambda text: (folder / "said").write_text(text))


def _until(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} never came"
        time.sleep(0.05)


def test_sigterm_to_a_study_stops_its_runs(tmp_path: Path) -> None:
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    sender = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time\n"
            "while not os.path.exists(sys.argv[1]): time.sleep(0.05)\n"
            "os.kill(int(sys.argv[2]), 15)",
            str(tmp_path / "begun"),
            str(os.getpid()),
        ]
    )
    try:
        with pytest.raises(Stopped, match="everything is saved"), interrupting():
            _pool(tmp_path)
    finally:
        sender.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "said").read_text() == "stopping: the runs that are under way save themselves"


def test_runs_end_with_a_study_that_is_killed(tmp_path: Path) -> None:
    command = f"from test_pool import _pool; from pathlib import Path; _pool(Path({str(tmp_path)!r}))"
    study = subprocess.Popen([sys.executable, "-c", command], cwd=Path(__file__).parent)
    _until(tmp_path / "begun")
    study.kill()
    study.wait()
    _until(tmp_path / "saved")
