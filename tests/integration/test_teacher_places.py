"""Runs whose teacher is held elsewhere end as runs whose teacher is simply there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.models import pair as pairs
from limbeck.models.teaching import Offloaded
from training_kit import Models, assert_same_run, metrics, recipe, start, start_and_kill, tensors

LORA: dict[str, Any] = {"lora": {"rank": 2, "alpha": 8.0, "dropout": 0.3}}
METHODS: dict[str, dict[str, Any]] = {
    "gkd": {"weights": {"supervised": 1}, "sequences": {"kind": "mixture", "share": 0.7}},
    "mgsr": {"sequences": {"share": 0.7}},
    "minillm": {"sequences": {"rows": 12, "epochs": 2}},
}


def _based(models: Models, base: str, *, is_one: bool) -> dict[str, Any]:
    # MiniLLM takes no dropout.
    lora = {"lora": {**LORA["lora"], "dropout": 0.0}} if base == "minillm" else LORA
    held = {"teacher": models.student, "teacher_is_base": is_one, **lora}
    return recipe(models, base, models=held, method=METHODS[base])


@pytest.mark.parametrize("base", ["gkd", "mgsr", "minillm"])
def test_the_base_as_teacher_is_the_base_loaded_again(base: str, models: Models, tmp_path: Path) -> None:
    one = start(_based(models, base, is_one=True), tmp_path / "one")
    two = start(_based(models, base, is_one=False), tmp_path / "two")
    assert metrics(one.directory) == metrics(two.directory)
    left, right = tensors(one.directory), tensors(two.directory)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert any(row["terms"]["token"] > 1e-6 for row in one.metrics() if row["kind"] == "step"), "they came apart"


def test_a_run_with_its_base_as_teacher_is_resumed_bit_for_bit(models: Models, tmp_path: Path) -> None:
    settings = _based(models, "gkd", is_one=True)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("base", ["mgsr", "kd"])
def test_offloading_moves_nothing_but_weights(
    base: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra: dict[str, Any] = {"cache": {"kind": "memory"}} if base == "kd" else {"method": METHODS["mgsr"]}
    plain = recipe(models, base, **extra)
    start(plain, tmp_path / "plain")
    journal: list[str] = []

    class Followed(Offloaded):
        def ready(self, part: torch.nn.Module) -> None:
            journal.append("came" if self.bytes_here == 0 else "asked")
            super().ready(part)

        def leave(self) -> None:
            journal.append("left")
            super().leave()

    # A CPU stands for the accelerator: the weights then move from main memory to main memory.
    monkeypatch.setattr("limbeck.models.teaching.Offloaded", Followed)
    whole = pairs.Pair.load.__func__  # type: ignore[attr-defined]

    def offloaded(cls: Any, **settings: Any) -> Any:
        found = whole(cls, **settings)
        return pairs.replace(found, teacher_home=torch.device("cpu"))

    monkeypatch.setattr(pairs.Pair, "load", classmethod(offloaded))
    start(recipe(models, base, **extra, models={"teacher_offload": True}), tmp_path / "offloaded")
    assert metrics(tmp_path / "offloaded") == metrics(tmp_path / "plain")
    left, right = tensors(tmp_path / "offloaded"), tensors(tmp_path / "plain")
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert journal.count("came") >= 6, "for every step anew"
    assert journal[-1] == "left"


def test_on_a_cpu_offloading_says_that_it_is_nothing(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(recipe(models, "kd", models={"teacher_offload": True}, train={"steps": 1}), tmp_path / "run")
    assert "models.teacher_offload changes nothing" in "".join(capsys.readouterr())


def test_the_base_under_autocast_is_kept_in_the_dtype_that_it_computes_in(models: Models, tmp_path: Path) -> None:
    train = {"precision": "bf16-mixed", "steps": None, "epochs": 2}
    plain = {**_based(models, "gkd", is_one=True), "method": {"base": "kd", "weights": {"supervised": 1}}}
    plain = {**plain, "train": {**plain["train"], **train}}
    kept = {kind: start({**plain, "cache": {"kind": kind}}, tmp_path / kind) for kind in ("memory", "disk")}
    assert metrics(kept["disk"].directory) == metrics(kept["memory"].directory)
    last = metrics(start(plain, tmp_path / "plain").directory)[-1]
    # What a row is read with moves the last bits of bfloat16.
    assert metrics(kept["disk"].directory)[-1]["cross_entropy"] == pytest.approx(last["cross_entropy"], rel=1e-2)
