"""Corrupt and foreign checkpoints, taken folders, full disks: a clear message, the right code, nothing changed."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from limbeck import cli
from limbeck.config.reading import to_yaml
from limbeck.errors import CheckpointError, Stopped
from limbeck.files import alone_in
from limbeck.testing import save_tiny
from limbeck.training import checkpoint, keeping
from limbeck.training.rundir import Run, RunDirectory
from training_kit import Models, assert_same_run, contents, metrics, recipe, start, start_and_kill, state


def _settings(folders: Models, toy_file: Path, /, **sections: Any) -> dict[str, Any]:
    standard = {"data": {"corpus": str(toy_file)}, "validate": {"metric": "loss", "every": 2}}
    return recipe(folders, "sft", **{**standard, **sections})


@pytest.fixture(scope="module")
def whole(models: Models, toy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, not stopped."""
    return start(_settings(models, toy_file), tmp_path_factory.mktemp("runs") / "whole", rows=None).directory


@pytest.fixture(scope="module")
def stopped(models: Models, toy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at steps 2 and 4 that was killed in its sixth step."""
    run = tmp_path_factory.mktemp("runs") / "stopped"
    start_and_kill(_settings(models, toy_file), run, call=6, rows=None)
    return run


def _flip(name: str, at: int) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "checkpoints" / "step-000004" / name
        whole = bytearray(path.read_bytes())
        whole[at] ^= 1
        path.write_bytes(whole)

    return damage


def _truncate(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "checkpoints" / "step-000004" / name
        path.write_bytes(path.read_bytes()[:100])

    return damage


def _another_number(run: Path) -> None:
    path = run / "checkpoints" / "step-000004" / "state.json"
    text = path.read_text()
    assert '"consumed": 24' in text
    path.write_text(text.replace('"consumed": 24', '"consumed": 34'))


def _write_pointer(text: str) -> Callable[[Path], None]:
    return lambda run: (run / "checkpoints" / "latest").write_text(text) and None


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped byte in the weights": (
        _flip("trainable.safetensors", -5),
        "trainable.safetensors does not have",
    ),
    "a flipped byte in the optimizer": (
        _flip("optimizer.safetensors", -5),
        "optimizer.safetensors does not have",
    ),
    "a number in the state": (_another_number, "state.json does not have the sum"),
    "a truncated state": (_truncate("state.json"), "cannot be read"),
    "truncated weights": (_truncate("trainable.safetensors"), "does not have the sum"),
    "a state that is something else": (
        lambda run: (run / "checkpoints" / "step-000004" / "state.json").write_text("[1]") and None,
        "cannot be read",
    ),
    "weights that are gone": (
        lambda run: (run / "checkpoints" / "step-000004" / "trainable.safetensors").unlink(),
        "cannot be read",
    ),
    "latest names nothing": (_write_pointer("step-000009"), "names 'step-000009', which is no checkpoint"),
    "latest is empty": (_write_pointer(""), "which is no checkpoint"),
    "a log that lost its end": (lambda run: (run / "metrics.jsonl").write_text(""), "metrics.jsonl is shorter than"),
    "a log that is gone": (lambda run: (run / "samples.jsonl").unlink(), "samples.jsonl is shorter than"),
    "auto.json is broken": (lambda run: (run / "auto.json").write_text("{") and None, "auto.json cannot be read"),
    "auto.json is gone": (lambda run: (run / "auto.json").unlink(), "auto.json cannot be read"),
    "no recipe": (lambda run: (run / "recipe.yaml").unlink(), "recipe"),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_run_is_refused_and_left_as_it_is(
    name: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, says = DAMAGES[name]
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    damage(run)
    before = contents(run)
    assert cli.main(["train", str(run), "--resume"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert contents(run) == before


def test_the_way_out_of_a_corrupt_checkpoint_works(
    stopped: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    _flip("trainable.safetensors", -5)(run)
    assert cli.main(["train", str(run), "--resume"]) == 2
    assert "Write the name of another one (step-000002) into" in capsys.readouterr().err
    _write_pointer("step-000002")(run)
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert_same_run(whole, run)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"models": {"lora": {"rank": 2}}}, "models.lora"),
        ({"train": {"learning_rate": 0.01}}, "train.learning_rate: 0.01 -> 0.002"),
    ],
    ids=["another model", "another recipe"],
)
def test_a_checkpoint_of_another_run_is_refused(
    sections: dict[str, Any],
    says: str,
    stopped: Path,
    models: Models,
    toy_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = _settings(models, toy_file, **sections)
    start_and_kill(other, tmp_path / "other", call=6, rows=None)
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints")
    before = contents(run)
    assert cli.main(["train", str(run), "--resume"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "step-000004" in said
    assert contents(run) == before


def test_weights_of_another_shape_are_refused(
    stopped: Path, tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same recipe, but the student's folder holds another model by now."""
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(stopped, run)
    save_tiny(other, seed=2, layers=3)
    text = (run / "recipe.yaml").read_text()
    inside = next((run / "checkpoints").glob("step-000004/recipe.yaml"))
    for path in (run / "recipe.yaml", inside):
        path.write_text(text.replace(models.student, str(other)))
    body = json.loads((inside.parent / "state.json").read_text())
    body["sums"]["recipe.yaml"] = checkpoint._sum(inside)
    del body["sum"]
    (inside.parent / "state.json").write_text(json.dumps({"sum": checkpoint._text_sum(body), **body}))
    before = contents(run)
    assert cli.main(["train", str(run), "--resume"]) == 2
    assert "the checkpoint is of another model" in capsys.readouterr().err
    assert contents(run) == before


def test_a_missing_pointer_costs_nothing(stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    (run / "checkpoints" / "latest").unlink()
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert [row["step"] for row in metrics(run) if row["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("what", ["another run", "some folder", "a file"])
def test_a_taken_folder_is_refused(
    what: str, stopped: Path, models: Models, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if what == "another run":
        shutil.copytree(stopped, run)
    elif what == "some folder":
        run.mkdir()
        (run / "thesis.tex").write_text("irreplaceable")
    else:
        run.write_text("a file")
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml({**_settings(models, toy_file), "run": str(run)}))
    before = contents(tmp_path)
    assert cli.main(["train", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"run is '{run}'" in said
    assert "run=runs/NAME" in said
    assert "Traceback" not in said
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused(
    models: Models, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml({**_settings(models, toy_file), "run": str(tmp_path / "file" / "run")}))
    assert cli.main(["train", str(file)]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_what_never_began_may_be_started(models: Models, toy_file: Path, tmp_path: Path) -> None:
    """A kill before the recipe was written leaves a folder that is no run, and that is nobody's either."""
    run = tmp_path / "run"
    start_and_kill(_settings(models, toy_file), run, before="write_text", call=1, module=RunDirectory, rows=None)
    assert run.is_dir()
    start(_settings(models, toy_file), run, "train.steps=1", rows=None)


def test_resuming_what_is_no_run_is_refused(
    models: Models, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml({**_settings(models, toy_file), "run": str(tmp_path / "run")}))
    assert cli.main(["train", str(file), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "is not the directory of a run" in said
    assert "leave out --resume to start a run there" in said
    assert not (tmp_path / "run").exists()


FULL: dict[str, tuple[Any, str, BaseException]] = {
    "weights": (checkpoint, "save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
    "student": (keeping, "save_student", SafetensorError("Error while serializing: I/O error: (os error 28)")),
    "logs": (RunDirectory, "append", OSError(errno.EDQUOT, "Disk quota exceeded")),
}


@pytest.mark.parametrize("name", sorted(FULL))
def test_a_full_disk_stops_and_the_run_goes_on_later(
    name: str,
    stopped: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where, function, error = FULL[name]

    def full(*args: Any, **kwargs: Any) -> Any:
        raise error

    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    with monkeypatch.context() as patch:
        patch.setattr(where, function, full)
        assert cli.main(["train", str(run), "--resume"]) == 75
    said = capsys.readouterr().err
    assert "no space left on the disk" in said
    assert f"limbeck train {run} --resume" in said
    assert "Traceback" not in said
    assert state(run)["position"]["step"] == 4, "the last whole checkpoint is still there"
    assert cli.main(["train", str(run), "--resume"]) == 0
    assert_same_run(whole, run)


def test_other_errors_of_the_disk_are_not_taken_for_it(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="Input/output error") as failed:
        start(recipe(models, "sft"), tmp_path / "run")
    assert not isinstance(failed.value, Stopped)


def test_a_finished_run_without_checkpoints_is_never_started_again(
    models: Models, toy_file: Path, whole: Path, stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    assert Run(run).is_finished
    Run(run).drop_checkpoints()
    Run(run).drop_checkpoints()
    assert not (run / "checkpoints").exists()
    assert (run / "student" / "config.json").is_file()
    before = contents(run)
    with pytest.raises(CheckpointError, match="finished and its checkpoints were removed"):
        start(_settings(models, toy_file), run, rows=None, resume=True)
    assert contents(run) == before
    assert not Run(stopped).is_finished
    with pytest.raises(CheckpointError, match="is not finished"):
        Run(stopped).drop_checkpoints()


def test_a_run_that_is_made_longer_is_not_finished_before_its_new_end(
    models: Models, toy_file: Path, whole: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    assert json.loads((run / "finished.json").read_text()) == {"step": 6}
    settings = _settings(models, toy_file)
    start_and_kill(settings, run, "train.steps=8", call=2, rows=None, resume=True)
    assert not Run(run).is_finished
    start(settings, run, "train.steps=8", rows=None, resume=True)
    assert json.loads((run / "finished.json").read_text()) == {"step": 8}


def test_a_run_that_another_process_trains_is_not_gone_on_with(
    stopped: Path, models: Models, toy_file: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    before = contents(run)
    with alone_in(run), pytest.raises(CheckpointError, match="another process is writing into"):
        start(_settings(models, toy_file), run, resume=True, rows=None)
    assert contents(run) == before
    start(_settings(models, toy_file), run, resume=True, rows=None)


def test_a_full_disk_before_the_first_file_is_begun_again(
    models: Models, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDirectory, "create", full)
    with pytest.raises(Stopped, match="make room, then: the same command again"):
        start(_settings(models, toy_file), tmp_path / "run", rows=None)


@pytest.mark.parametrize("lost", ["student", "student/model.safetensors"])
def test_a_best_student_that_is_gone_is_told_and_not_promised(
    lost: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    shutil.rmtree(run / lost) if (run / lost).is_dir() else (run / lost).unlink()
    assert cli.main(["train", str(run), "--resume"]) == 0
    said = capsys.readouterr().err
    assert f"the best so far, is not in {run / 'student'} any more" in said
    assert RunDirectory.existing(run).has_student()


def test_a_copy_beside_the_answers_of_a_validation_does_no_harm(stopped: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    (run / "validation").mkdir(exist_ok=True)
    (run / "validation" / "step-000002-copy.jsonl").write_text("{}\n")
    assert cli.main(["train", str(run), "--resume"]) == 0


@pytest.mark.parametrize("text", ["null", "3"])
def test_settings_that_are_none_are_damage(text: str, stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    (run / "environment.json").write_text(text)
    assert RunDirectory.existing(run).environment() == {}
    (run / "auto.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"auto\.json is damaged"):
        RunDirectory.existing(run).auto()
