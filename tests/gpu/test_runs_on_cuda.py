"""Runs on a CUDA device: the CPU's losses, exact resume, less memory, and a teacher that is not always there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.models.teaching import Offloaded
from training_kit import Models, assert_same_run, metrics, recipe, start, start_and_kill, tensors

pytestmark = pytest.mark.gpu

# Every divergence's road, every source and every part of MGSR is in one of these.
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "kd": {},
    "gkd": {"weights": {"supervised": 1}, "sequences": {"kind": "mixture", "share": 0.7}},
    "imitkd": {},
    "seqkd": {},
    "minillm": {"sequences": {"rows": 12, "epochs": 2}},
    "distillm": {},
    "mgsr": {"sequences": {"share": 0.7}, "revision": {"rounds": 2}, "token": {"top": 32}},
    "kd, full clip": {"token": {"kind": "dac-kl", "features": "full"}},
    "kd, conv": {"token": {"kind": "dac-kl", "top": 32, "clip": {"kind": "conv"}}},
    "kd, rnn": {"token": {"kind": "dac-kl", "top": 32, "clip": {"kind": "rnn"}}},
    "kd, nucleus": {
        "token": {"kind": "match", "divergence": {"kind": "forward-kl"}, "target": {"kind": "nucleus", "p": 0.9}}
    },
}


def _settings(folders: Models, name: str, *, device: str = "cuda", precision: str = "fp32", **sections: Any) -> Any:
    base = name.split(",")[0]
    train = {"precision": precision, **sections.pop("train", {})}
    held = {"device": device, "teacher_dtype": "fp32", **sections.pop("models", {})}
    if base == "sft":
        held.pop("teacher_dtype")
    method = METHODS[name]
    return recipe(folders, base, method=method, models=held, train=train, **sections)


def _losses(run: Path) -> list[float]:
    return [row["loss"] for row in metrics(run) if row["kind"] == "step"]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_first_step_is_the_cpus(name: str, models: Models, tmp_path: Path) -> None:
    one_step = {"steps": 1}
    here = start(_settings(models, name, train=one_step), tmp_path / "cuda")
    there = start(_settings(models, name, device="cpu", train=one_step), tmp_path / "cpu")
    assert _losses(here.directory) == pytest.approx(_losses(there.directory), rel=2e-4, abs=1e-6)
    environment = json.loads((here.directory / "environment.json").read_text())
    assert torch.cuda.get_device_name() in json.dumps(environment)


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_killed_and_resumed_is_never_killed(name: str, precision: str, models: Models, tmp_path: Path) -> None:
    settings = _settings(models, name, precision=precision)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_twice_is_the_same_run_with_lora_and_dropout(models: Models, tmp_path: Path) -> None:
    held = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.2}}
    settings = _settings(models, "gkd", models=held, precision="bf16-mixed")
    start(settings, tmp_path / "one")
    start(settings, tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_auto_is_mixed_precision_and_a_teacher_in_bf16(models: Models, tmp_path: Path) -> None:
    run = start(recipe(models, "kd", models={"device": "auto"}), tmp_path / "run")
    auto = json.loads((run.directory / "auto.json").read_text())
    assert auto["precision"] == ("bf16-mixed" if torch.cuda.is_bf16_supported() else "fp32")
    assert all(value.dtype == torch.float32 for name, value in tensors(run.directory).items() if "weight" in name)
    assert load_file(run.directory / "student" / "model.safetensors")


def test_micro_batches_and_chunks_do_not_move_the_losses(models: Models, tmp_path: Path) -> None:
    one = start(_settings(models, "mgsr", train={"micro_rows": 6}), tmp_path / "one")
    other = start(_settings(models, "mgsr", train={"micro_rows": 2, "chunk": 3}), tmp_path / "other")
    assert _losses(one.directory)[0] == pytest.approx(_losses(other.directory)[0], rel=1e-5)


def test_an_offloaded_teacher_gives_its_memory_back(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[tuple[str, int]] = []

    class Followed(Offloaded):
        def ready(self, part: torch.nn.Module) -> None:
            super().ready(part)
            journal.append(("ready", self.bytes_here))

        def leave(self) -> None:
            super().leave()
            journal.append(("left", self.bytes_here))

    monkeypatch.setattr("limbeck.models.teaching.Offloaded", Followed)
    plain = start(_settings(models, "mgsr"), tmp_path / "plain")
    away = start(_settings(models, "mgsr", models={"teacher_offload": True}), tmp_path / "away")
    assert metrics(plain.directory) == metrics(away.directory)
    left, right = tensors(plain.directory), tensors(away.directory)
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert {count for what, count in journal if what == "left"} == {0}
    assert max(count for what, count in journal if what == "ready") > 0


def test_a_teacher_beside_the_student_on_the_cpu(models: Models, tmp_path: Path) -> None:
    here = start(_settings(models, "mgsr", train={"steps": 1}), tmp_path / "here")
    apart = start(_settings(models, "mgsr", models={"teacher_device": "cpu"}, train={"steps": 1}), tmp_path / "apart")
    assert _losses(here.directory) == pytest.approx(_losses(apart.directory), rel=2e-4)
