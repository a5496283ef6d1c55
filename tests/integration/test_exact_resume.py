"""Killed at any moment and resumed, a run ends as one that was not killed: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.errors import CheckpointError, LimbeckError
from limbeck.testing import save_tiny
from limbeck.training import checkpoint, keeping, loop, train
from training_kit import (
    ROWS,
    Models,
    assert_same_run,
    contents,
    listing,
    metrics,
    recipe,
    start,
    start_and_kill,
    state,
    tensors,
)

ON_POLICY = {"base": "gkd", "weights": {"supervised": 1}, "sequences": {"kind": "mixture", "share": 0.7}}

CLIPS = ("conv", "rnn", "fixed")

REVISED = {
    "sequences": {"share": 0.7},
    "revision": {"rounds": 2},
    "token": {"top": 32, "clip": {"learning_rate": 0.05}},
}


# Collections of two steps, twice over: six steps end in the middle of the second one.
COLLECTED = {"sequences": {"rows": 12, "epochs": 2}}


def _settings(models: Models, name: str) -> dict[str, Any]:
    with_lora = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.2}}
    with_dropout = {"student": models.with_dropout, "dropout": True}
    if name == "gkd":
        return recipe(models, "gkd", method=ON_POLICY)
    if name == "kd":
        return recipe(models, "kd", method={"reduction": "sequence"})
    if name == "lora":
        return recipe(models, "imitkd", models=with_lora)
    if name == "mgsr":
        return recipe(models, "mgsr", method=REVISED)
    if name == "turns":
        # Four seats for six rows.
        return recipe(models, "mgsr", method=REVISED, train={"micro_rows": 1}, sampling={"max_new_tokens": 9})
    if name in CLIPS:
        rate = {} if name == "fixed" else {"learning_rate": 0.05}
        return recipe(models, "kd", method={"token": {"kind": "dac-kl", "top": 32, "clip": {"kind": name, **rate}}})
    if name == "minillm":
        return recipe(models, "minillm", method=COLLECTED)
    if name == "bf16":
        in_bf16 = {"train": {"precision": "bf16"}, "models": {"gradient_checkpointing": True}}
        return recipe(models, "kd", **in_bf16)
    sections: dict[str, dict[str, Any]] = {
        "sft": {"validate": {"metric": "loss"}},
        "dropout": {"models": with_dropout},
    }
    return recipe(models, "sft", **sections[name])


@pytest.fixture(scope="module")
def whole(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised run that nobody stopped."""
    return start(_settings(models, "sft"), tmp_path_factory.mktemp("runs") / "whole").directory


@pytest.mark.parametrize("name", ["kd", "gkd", "mgsr", "turns", *CLIPS, "minillm", "lora", "dropout", "bf16"])
def test_killed_and_resumed_is_never_killed(name: str, models: Models, tmp_path: Path) -> None:
    settings = _settings(models, name)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    assert metrics(tmp_path / "killed")[-1]["step"] == 4
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    if name in ("gkd", "mgsr", "turns"):
        origins = {tuple(row["origin"]) for row in metrics(tmp_path / "whole") if row["kind"] == "step"}
        drawn = "student" if name == "gkd" else "revised"
        assert {(drawn,), ("reference",)} <= origins, "both sources should have been drawn from"
    if name in ("mgsr", "conv", "rnn"):
        clip = load_file(tmp_path / "whole" / "clip_network.safetensors")
        bias = clip[f"token.network.{'second' if name == 'mgsr' else 'last'}_bias"]
        assert bias.abs().max() > 1e-3, "the clip network should have moved"
        assert (tmp_path / "whole" / "tokens.jsonl").read_text()


def test_a_collection_survives_in_its_middle_at_its_end_and_behind_it(models: Models, tmp_path: Path) -> None:
    every_step = {"every": 1, "rows": 2, "metric": "loss"}
    settings = recipe(models, "minillm", method=COLLECTED, train={"steps": 7}, validate=every_step, watch={"rows": 0})
    start(settings, tmp_path / "whole")
    rows = [row for row in metrics(tmp_path / "whole") if row["kind"] == "step"]
    assert [row["collection"]["is_new"] for row in rows] == [True, False, False, False, True, False, False]
    assert [row["epoch"] for row in rows] == [12 / 20] * 4 + [24 / 20] * 3
    for call, first in ((4, 1), (5, 1), (7, 5)):
        run = tmp_path / f"killed-{call}"
        start_and_kill(settings, run, call=call)
        held = checkpoint.latest(run / "checkpoints")
        assert held is not None
        assert (held.state["position"]["step"], held.state["source"]["first"]) == (call - 1, first)
        assert isinstance(held.state["source"]["tokens"], torch.Tensor)
        assert {"advantage", "behaviour_logp"} <= held.state["source"]["experience"].keys()
        start(settings, run, resume=True)
        assert_same_run(tmp_path / "whole", run)
        kept = Path("checkpoints") / "step-000007" / "source.safetensors"
        assert (run / kept).read_bytes() == (tmp_path / "whole" / kept).read_bytes()


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (loop, "take_step", 1),
        (loop, "save_best", 2),
        (loop, "save_checkpoint", 2),
        (keeping.checkpoint, "_flush", 3),
        (keeping, "save_student", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_moment_does_not_matter(
    module: Any, name: str, call: int, models: Models, whole: Path, tmp_path: Path
) -> None:
    start_and_kill(_settings(models, "sft"), tmp_path / "killed", before=name, call=call, module=module)
    start(_settings(models, "sft"), tmp_path / "killed", resume=True)
    assert_same_run(whole, tmp_path / "killed")


def test_killed_again_and_again(
    models: Models, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        call = 4 if number == 1 else 2
        start_and_kill(_settings(models, "sft"), tmp_path / "killed", call=call, resume=number > 0)
    start(_settings(models, "sft"), tmp_path / "killed", resume=True)
    assert_same_run(whole, tmp_path / "killed")
    said = capsys.readouterr().err
    assert "no checkpoint yet; the run starts at its first step" in said
    assert "going on after step 3 of 6" in said


def test_what_a_kill_leaves_behind_is_cleared(models: Models, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    start_and_kill(_settings(models, "sft"), run, call=5)
    student, scratch = run / "student", run / ".student-abc"
    scratch.mkdir()
    student.rename(scratch / "replaced")
    (run / "checkpoints" / ".step-000006.draft").mkdir()
    (run / "checkpoints" / "step-000005").mkdir()
    (run / ".auto.json.draft").write_text("{")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    start(_settings(models, "sft"), run, resume=True)
    assert_same_run(whole, run)


def test_resuming_a_finished_run_changes_no_result(models: Models, whole: Path) -> None:
    before, files = tensors(whole), listing(whole)
    start(_settings(models, "sft"), whole, resume=True)
    assert listing(whole) == files
    assert all(torch.equal(value, before[name]) for name, value in tensors(whole).items())


def test_lengthening_goes_on_and_is_remembered(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "sft", train={"schedule": "constant"})
    start(settings, tmp_path / "whole")
    start(settings, tmp_path / "longer", "train.steps=3")
    start_and_kill(settings, tmp_path / "longer", "train.steps=6", call=2, resume=True)
    train(tmp_path / "longer", rows=ROWS, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "longer")
    with pytest.raises(CheckpointError, match="6 steps long and cannot be shortened to 3"):
        start(settings, tmp_path / "longer", "train.steps=3", resume=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.learning_rate=0.1"], "train.learning_rate: 0.002 -> 0.1"),
        (["train.seed=1"], "train.seed: 0 -> 1"),
        (["data.max_length=60"], "data.max_length: 64 -> 60"),
        (["method.reduction=sequence"], "method.reduction: token -> sequence"),
        (["train.steps=2"], "cannot be shortened"),
        (["validate.every=null"], "the training rows are not those that the run was started with"),
    ],
)
def test_other_overrides_are_refused_and_nothing_changes(
    overrides: list[str], says: str, models: Models, whole: Path
) -> None:
    before = contents(whole)
    with pytest.raises(LimbeckError, match=says) as refused:
        start(_settings(models, "sft"), whole, *overrides, resume=True)
    assert refused.value.exit_code == 2
    assert contents(whole) == before


def test_other_rows_are_refused_and_nothing_changes(models: Models, whole: Path) -> None:
    before = contents(whole)
    other = [*ROWS[:-1], {"prompt": "say it", "completion": "else"}]
    with pytest.raises(CheckpointError, match="rows are not those"):
        start(_settings(models, "sft"), whole, resume=True, rows=other)
    assert contents(whole) == before


@pytest.mark.parametrize("name", ["kd", "lora"])
def test_a_teacher_or_base_that_was_written_anew_is_refused_and_nothing_changes(name: str, tmp_path: Path) -> None:
    own = Models.save(tmp_path / "models")
    settings, run = _settings(own, name), tmp_path / "run"
    start_and_kill(settings, run, call=5)
    before = contents(run)
    if name == "kd":
        save_tiny(tmp_path / "models" / "teacher", seed=9, layers=3, vocab_size=272)
        says = r"the teacher in .*teacher is not the one that the run was started with"
    else:
        save_tiny(tmp_path / "models" / "student", seed=9)
        says = r"the weights of .*student below LoRA are not those that the run was started with"
    with pytest.raises(CheckpointError, match=says) as refused:
        start(settings, run, resume=True)
    assert refused.value.exit_code == 2
    assert contents(run) == before


def test_another_start_of_a_student_that_is_trained_whole_changes_nothing(models: Models, tmp_path: Path) -> None:
    own = Models.save(tmp_path / "models")
    for name in ("killed", "whole"):
        start_and_kill(_settings(own, "kd"), tmp_path / name, call=5)
    start(_settings(own, "kd"), tmp_path / "whole", resume=True)
    save_tiny(tmp_path / "models" / "student", seed=9)
    start(_settings(own, "kd"), tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_logging_and_validation_may_change(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "sft", validate={"every": 6})
    start_and_kill(settings, tmp_path / "run", "train.checkpoint_minutes=0", call=4)
    overrides = ["validate.every=2", "validate.metric=loss", "watch.every=3", "train.checkpoint_minutes=9"]
    run = start(settings, tmp_path / "run", *overrides, resume=True)
    validations = [row["step"] for row in run.metrics() if row["kind"] == "validation"]
    assert validations[-2:] == [4, 6]
    assert state(run.directory)["position"]["best_step"] in validations
    assert checkpoint.latest(run.directory / "checkpoints") is not None
