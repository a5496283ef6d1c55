from __future__ import annotations

import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from limbeck.config import Recipe
from limbeck.errors import ConfigError
from limbeck.training.rundir import RunDirectory
from limbeck.training.tracking import Tracker, check_tracker
from training_kit import ROWS, Models, metrics, recipe, start, start_and_kill

_BLOCK = 32768
_HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
_HAS_WANDB = importlib.util.find_spec("wandb") is not None


class _Service(ModuleType):
    """Stands for the package trackio: it remembers what accelerate's tracker tells it."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.__spec__ = ModuleSpec("trackio", None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.settings: dict[str, Any] = {}
        self.finished = 0
        self.config = self

    def init(self, **settings: Any) -> _Service:
        self.begun.append(settings)
        return self

    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        self.settings.update(values)

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> _Service:
    made = _Service()
    monkeypatch.setitem(__import__("sys").modules, "trackio", made)
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models.save(tmp_path_factory.mktemp("models"))


def _steps(service: _Service, name: str) -> list[int]:
    return [step for step, values in service.rows if name in values]


def test_every_row_is_sent_once_also_when_a_killed_run_goes_on(
    models: Models, tmp_path: Path, service: _Service
) -> None:
    settings = recipe(models, "sft", track={"kind": "trackio", "project": "mine"})
    # Killed in step 6, after the checkpoint of step 3: steps 4 and 5 are taken, and would be sent, twice.
    start_and_kill(settings, tmp_path / "run", call=6)
    assert _steps(service, "train/loss") == [1, 2, 3, 4, 5]
    assert service.finished == 1
    start(settings, tmp_path / "run", resume=True)
    assert _steps(service, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert _steps(service, "validation/rouge_l") == [3, 6]
    assert service.finished == 2
    losses = [values["train/loss"] for _, values in service.rows if "train/loss" in values]
    assert losses == [row["loss"] for row in metrics(tmp_path / "run") if row["kind"] == "step"]
    assert {tuple(sorted(each)) for each in service.begun} == {("name", "project", "resume")}
    assert service.begun[0]["project"] == "mine"
    # The same run there, and no other of that name.
    assert service.begun[0] == service.begun[1]
    assert service.begun[0]["name"].startswith("run-")
    assert service.settings["train"]["learning_rate"] == 2e-3


def test_tracking_moves_no_number(models: Models, tmp_path: Path, service: _Service) -> None:
    start(recipe(models, "sft", track={"kind": "trackio"}), tmp_path / "tracked")
    start(recipe(models, "sft"), tmp_path / "plain")
    assert metrics(tmp_path / "tracked") == metrics(tmp_path / "plain")
    assert service.begun[0]["project"] == "limbeck"
    assert not (tmp_path / "plain" / "tracking.json").exists()


def test_it_may_be_switched_on_when_a_run_goes_on(models: Models, tmp_path: Path, service: _Service) -> None:
    start_and_kill(recipe(models, "sft"), tmp_path / "run", call=5)
    start(recipe(models, "sft"), tmp_path / "run", "track.kind=trackio", resume=True)
    assert _steps(service, "train/loss") == [4, 5, 6]


def _tracker(tmp_path: Path, *, is_main: bool = True, kind: str = "trackio") -> Tracker:
    settings = {"method": {"base": "sft"}, "models": {"student": "s"}, "track": {"kind": kind}, "run": str(tmp_path)}
    return Tracker(Recipe.load(settings), RunDirectory(tmp_path), is_main=is_main)


def test_other_ranks_send_nothing(tmp_path: Path, service: _Service) -> None:
    with _tracker(tmp_path, is_main=False) as tracker:
        tracker.log({"kind": "step", "step": 1, "loss": 0.5})
    assert (service.begun, service.rows) == ([], [])


def test_groups_become_names_and_words_are_left_out(tmp_path: Path, service: _Service) -> None:
    with _tracker(tmp_path) as tracker:
        tracker.log({"kind": "watch", "step": 1, "name": "repetition"})
        tracker.log({"kind": "validation", "step": 1, "loss": 0.5, "metric": "rouge-l", "is_best": True})
        tracker.log({"kind": "step", "step": 2, "terms": {"token": 0.25}, "time": {"seconds": 3}})
    assert service.rows == [
        (1, {"validation/loss": 0.5, "validation/is_best": 1.0}),
        (2, {"train/terms/token": 0.25, "train/time/seconds": 3.0}),
    ]


def test_it_is_finished_when_something_goes_wrong(tmp_path: Path, service: _Service) -> None:
    with pytest.raises(RuntimeError, match="wrong"), _tracker(tmp_path):
        raise RuntimeError("wrong")
    assert service.finished == 1


def test_another_tracker_begins_anew(tmp_path: Path, service: _Service) -> None:
    (tmp_path / "tracking.json").write_text(json.dumps({"kind": "wandb", "id": "x", "sent": {"step": 9}}))
    with _tracker(tmp_path) as tracker:
        tracker.log({"kind": "step", "step": 1, "loss": 0.5})
    assert [step for step, _ in service.rows] == [1]
    assert service.begun[0]["name"] != "x"


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package(kind: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.training.tracking.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"{kind} is not installed.\n.*limbeck\[track\]"):
        start(recipe(models, "sft", track={"kind": kind}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_tracker(Recipe.load({"method": {"base": "sft"}, "models": {"student": "s"}}).track)


@pytest.mark.parametrize("kind", ["none", "tensorboard"])
def test_a_project_that_nothing_reads(kind: str) -> None:
    settings = {"method": {"base": "sft"}, "models": {"student": "s"}, "track": {"kind": kind, "project": "mine"}}
    with pytest.raises(ConfigError, match="which nothing reads"):
        Recipe.load(settings)


def _scalars(folder: Path, name: str) -> Iterator[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    for event in events.Scalars(name):
        yield event.step, event.value


@pytest.mark.skipif(not _HAS_TENSORBOARD, reason="tensorboard is not installed: pip install limbeck[track]")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_each_step_once(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "sft", track={"kind": "tensorboard"})
    start_and_kill(settings, tmp_path / "run", call=6)
    start(settings, tmp_path / "run", resume=True)
    found = list(_scalars(tmp_path / "run" / "tracking" / "tensorboard", "train/loss"))
    losses = [row["loss"] for row in metrics(tmp_path / "run") if row["kind"] == "step"]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found] == pytest.approx(losses)


@dataclass
class _Trap:
    """A port that every request which leaves this machine would have to pass; keeps what knocked."""

    port: int
    knocks: list[bytes]


@pytest.fixture
def trap() -> Iterator[_Trap]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        found = _Trap(port=listening.getsockname()[1], knocks=[])
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    found.knocks.append(connection.recv(200))

        thread = threading.Thread(target=watch)
        thread.start()
        yield found
        is_over.set()
        thread.join()


def _wandb_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of history in wandb's own log: a header of 7 bytes, then LevelDB's log format around its protobufs."""
    from wandb.proto import wandb_internal_pb2 as messages

    data, place, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if _BLOCK - place % _BLOCK < 7:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        # 1: a whole record; 2, 3, 4: its first, middle and last part.
        if kind in (1, 4):
            record, parts = messages.Record.FromString(parts), b""
            if record.HasField("history"):
                items = record.history.item
                yield {"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items}


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_WANDB, reason="wandb is not installed: pip install wandb")
def test_wandb_offline_keeps_every_step_and_asks_nobody(models: Models, tmp_path: Path, trap: _Trap) -> None:
    # A process of its own: wandb leaves threads and a service behind.
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    settings = recipe(models, "sft", track={"kind": "wandb", "project": "mine"}, data={"corpus": str(rows)})
    file.write_text(yaml.safe_dump(settings))
    proxy = f"http://127.0.0.1:{trap.port}"
    proxies = {name: proxy for each in ("http", "https", "all") for name in (f"{each}_proxy", f"{each}_proxy".upper())}
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", "train", str(file), "--run", str(run), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **proxies, "WANDB_MODE": "offline", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert trap.knocks == []
    (log,) = (run / "tracking").glob("wandb/offline-run-*/run-*.wandb")
    found = [row for row in _wandb_rows(log) if "train/loss" in row]
    kept = [row for row in metrics(run) if row["kind"] == "step"]
    assert [row["_step"] for row in found] == [row["step"] for row in kept] == [1, 2, 3, 4, 5, 6]
    assert [row["train/loss"] for row in found] == [row["loss"] for row in kept]
    # Neither the working tree nor what was printed.
    names = {path.name for path in log.parent.rglob("*") if path.is_file()}
    assert not names & {"diff.patch", "output.log"}
    assert not any(name.endswith(".py") for name in names)
