from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.cli import main
from limbeck.errors import ConfigError, ModelError, UnknownName
from limbeck.methods import METHODS
from limbeck.preflight import Plan, hardware, plan
from limbeck.preflight.hardware import GIB, GPUS, _like, named_gpus, reachable_flops
from limbeck.preflight.workload import drawn_share
from limbeck.testing import tiny_model

Make = Callable[..., dict[str, Any]]


def _part(needs: Plan, words: str) -> int:
    found = [part.bytes for part in needs.parts if words in part.name]
    assert len(found) == 1, words
    return found[0]


def test_fixed_parts_are_bytes_of_numbers(recipe: Make) -> None:
    needs = plan(recipe(), gpus="H100-80G")
    student, teacher = (tiny_model("llama", layers=layers).num_parameters() for layers in (2, 3))
    assert _part(needs, "student's weights") == 4 * student
    assert _part(needs, "moments") == 8 * student
    assert _part(needs, "teacher's weights") == 2 * teacher
    assert [part.bytes for part in needs.parts if "gradients" in part.name] == [4 * student, 4 * student]
    # 2 layers, keys and values of 2 heads of 8 numbers in bf16, 8 rows of 56 tokens, one layer twice.
    assert _part(needs, "key/value cache") == 2 * 2 * 2 * 8 * 2 * 8 * 56 * 3 // 2
    assert needs.peak == max(needs.phases.values()) == needs.values()["memory"]["peak"]
    assert needs.fits


def test_this_machine_is_timed_on_one_thread_and_counted_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda count: (asked.append(count), real(count))[1])
    threads = torch.get_num_threads()
    hardware._product_speed.cache_clear()
    name, flops = reachable_flops("cpu")
    assert (name, asked, torch.get_num_threads()) == ("cpu", [1, threads], threads)
    assert 1e9 < flops < 1e14


def test_a_cpu_that_is_faster_in_bf16_is_reckoned_with(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_product_speed", {"float32": 1e9, "bfloat16": 3e9}.__getitem__)
    monkeypatch.setattr(hardware, "bf16_gain", lambda: 3.0)
    plain, mixed = (reachable_flops("cpu", precision)[1] for precision in ("fp32", "bf16-mixed"))
    # Half of the time shrinks to a third: 1 / (1/2 + 1/6).
    assert mixed / plain == pytest.approx(1.5)
    slow, fast = (
        plan(recipe(train={"precision": precision, "steps": 2, "batch_rows": 4})).seconds["learning"]
        for precision in ("fp32", "bf16-mixed")
    )
    assert slow / fast == pytest.approx(1.5)
    on_gpus = (
        plan(recipe(train={"precision": p, "steps": 2, "batch_rows": 4}), gpus="A100-80G") for p in ("fp32", "bf16")
    )
    assert len({needs.seconds["learning"] for needs in on_gpus}) == 1


def test_the_workload_is_the_datas(recipe: Make) -> None:
    needs = plan(recipe(train={"batch_rows": 8, "epochs": 3}))
    # 60 rows of which 5 % are cut for validation.
    assert (needs.workload.rows, needs.workload.valid_rows, needs.workload.steps) == (57, 3, 3 * 8)
    assert needs.workload.is_measured
    assert needs.workload.validations == 3
    assert needs.workload.longest < 48


def test_without_data_rows_are_of_full_length(recipe: Make) -> None:
    needs = plan(recipe(data={"corpus": "nothing.jsonl"}))
    assert not needs.workload.is_measured
    assert (needs.workload.prompt_tokens, needs.workload.response_tokens) == (48, 16)
    assert "the data was not read" in needs.text(200)


def test_sharding_divides_and_ddp_does_not(recipe: Make) -> None:
    one, ddp, fsdp = (
        plan(recipe(train={"batch_rows": 8, "strategy": strategy}), gpus=gpus)
        for gpus, strategy in (("H100-80G", "auto"), ("4xH100-80G", "ddp"), ("4xH100-80G", "fsdp"))
    )
    assert _part(ddp, "moments") == _part(one, "moments") == 4 * _part(fsdp, "moments")
    assert _part(fsdp, "teacher's weights") == _part(one, "teacher's weights")
    assert ddp.resolved["micro_rows"] == 2
    assert sum(ddp.seconds.values()) < sum(one.seconds.values())


@pytest.mark.parametrize(
    ("gpus", "train", "says"),
    [
        ("3xH100-80G", {"batch_rows": 8}, "train.batch_rows is 8, which 3 processes cannot share evenly"),
        ("4xH100-80G", {"batch_rows": 2}, "train.batch_rows is 2, which 4 processes cannot share evenly"),
        ("1xH100-80G", {"strategy": "fsdp"}, "train.strategy is 'fsdp', which needs several processes"),
    ],
)
def test_what_would_not_start_there_is_no_plan(gpus: str, train: dict[str, Any], says: str, recipe: Make) -> None:
    with pytest.raises(ConfigError, match=says):
        plan(recipe(train=train), gpus=gpus)


def test_lora_has_small_moments_and_a_frozen_head(recipe: Make) -> None:
    whole, lora = plan(recipe()), plan(recipe(models={**recipe()["models"], "lora": {"rank": 2}}))
    assert _part(lora, "moments") < _part(whole, "moments") / 5
    assert lora.disk_bytes < whole.disk_bytes
    assert not [part for part in lora.parts if "head's gradient" in part.name and part.bytes]


def test_more_rows_take_more(recipe: Make) -> None:
    few, many = (plan(recipe(train={"batch_rows": 8, "micro_rows": rows})) for rows in (1, 8))
    assert _part(few, "activations") < _part(many, "activations") / 6


def test_a_teacher_that_writes_has_answers_on_disk(recipe: Make) -> None:
    assert dict(plan(recipe("seqkd")).disk)["the teacher's answers, kept for other runs"] > 0
    assert dict(plan(recipe("kd")).disk)["the teacher's answers, kept for other runs"] == 0


@pytest.mark.parametrize(
    ("base", "share"),
    [("sft", 0.0), ("seqkd", 0.0), ("gkd", 0.5), ("imitkd", 1.0), ("minillm", 1.0), ("distillm", 1.0)],
)
def test_shares_that_the_student_draws(base: str, share: float) -> None:
    assert drawn_share(METHODS[base]().sequences) == share


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("A100-80G", 1, "A100-80G"),
        ("4xa100-80gb", 4, "A100-80G"),
        ("2 x H200", 2, "H200-141G"),
        ("8*b200", 8, "B200-180G"),
    ],
)
def test_named_gpus(text: str, count: int, name: str) -> None:
    gpus = named_gpus(text)
    assert (gpus.count, gpus.name) == (count, name)
    assert gpus.memory >= 80 * GIB


def test_a_driver_calls_gpus_by_longer_names() -> None:
    assert _like("NVIDIA A100-SXM4-80GB").flops == GPUS["A100-80G"].flops
    assert _like("NVIDIA A10") == GPUS["A10-24G"]
    assert _like("NVIDIA L40S") == GPUS["L40S-48G"]
    assert _like("NVIDIA GeForce RTX 4090") == GPUS["RTX4090-24G"]
    assert _like("something else").memory == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [("4xA100", ConfigError), ("0xH200", ConfigError), ("4 of", ConfigError), ("K80", UnknownName), ("", ConfigError)],
)
def test_unknown_gpus(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        named_gpus(text)


def test_what_does_not_fit_says_what_would(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.preflight.hardware.free_memory", lambda: 0)
    monkeypatch.setattr("limbeck.preflight.hardware.resident_bytes", lambda: 2**20)
    needs = plan(recipe())
    assert not needs.fits
    assert "train.micro_rows" in " ".join(needs.advice())
    assert "does NOT fit" in needs.text()


def test_a_model_that_is_not_there(recipe: Make) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        plan(recipe(models={**recipe()["models"], "teacher": "./nothing"}))


def test_the_verb(recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(recipe()))
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["plan", str(path), "--gpus", "4xA100-80G"]) == 0
    said = capsys.readouterr().out
    assert "it fits" in said
    assert "small models take longer" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 60
    assert main(["plan", str(path), "train.batch_rows=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resolved"]["own_rows"] == 4
    assert main(["plan", str(path), "--gpus", "K80"]) == 2
    assert "known:" in capsys.readouterr().err
    monkeypatch.setattr("limbeck.preflight.hardware.GPUS", {"H100-80G": _tiny_gpu()})
    assert main(["plan", str(path), "--gpus", "H100-80G"]) == 1


def _tiny_gpu() -> Any:
    from limbeck.preflight.hardware import Accelerator

    return Accelerator(memory=1, flops=1.0, bandwidth=1.0)


def test_a_teacher_that_is_the_base_has_no_weights_of_its_own(recipe: Make) -> None:
    models = {**recipe()["models"], "lora": {"rank": 2}}
    models["teacher"] = models["student"]
    apart, shared = (
        plan(recipe(models={**models, "teacher_is_base": shares}), gpus="H100-80G") for shares in (False, True)
    )
    assert _part(shared, "teacher's weights") == 0
    assert apart.always - shared.always == _part(apart, "teacher's weights") > 0


def test_few_bits_are_of_linear_layers_but_the_head(recipe: Make) -> None:
    models = recipe()["models"]
    whole, eight, four = (
        _part(plan(recipe(models={**models, "teacher_bits": bits}), gpus="H100-80G"), "teacher's weights")
        for bits in (None, 8, 4)
    )
    teacher = tiny_model("llama", layers=3)
    linear = sum(
        layer.weight.numel()
        for name, layer in teacher.named_modules()
        if isinstance(layer, torch.nn.Linear) and name != "lm_head"
    )
    assert whole - eight == linear
    assert eight - four == pytest.approx(linear * (1 - 33.015625 / 64), abs=1)


def test_an_offloaded_teacher_is_there_only_while_it_reads(recipe: Make) -> None:
    models = {**recipe()["models"], "teacher_offload": True}
    stays, leaves = plan(recipe(), gpus="H100-80G"), plan(recipe(models=models), gpus="H100-80G")
    found = [part for part in leaves.parts if part.name == "teacher's weights"]
    assert [(part.during, part.bytes) for part in found] == [("reading", _part(stays, "teacher's weights"))]
    assert leaves.phases["drawing"] == stays.phases["drawing"] - found[0].bytes
    revised = plan(recipe("mgsr", models=models), gpus="H100-80G")
    assert _part(revised, "while drawing") == found[0].bytes
    assert "models.teacher_offload" in " ".join(stays.advice())
    assert "models.teacher_offload" not in " ".join(leaves.advice())
    on_cpu = plan(recipe(models=models))
    assert [part.during for part in on_cpu.parts if part.name == "teacher's weights"] == ["always"]
