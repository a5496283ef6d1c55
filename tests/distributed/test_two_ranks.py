"""Two processes give what one gives: under DDP and sharded by FSDP2, and after being stopped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import limbeck
from limbeck.errors import ConfigError
from conftest import Launch, Place

pytestmark = pytest.mark.distributed

_CHECKPOINTED = {"gradient_checkpointing": True}
_LORA = {"lora": {"rank": 4, "alpha": 8}}
# Tied embeddings are in the outermost shard twice, under two names.
_CASES: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "gkd": {"method": "gkd"},
    "tied": {"method": "gkd", "student": "tied", "models": _CHECKPOINTED, "train": {"chunk": 3}},
    "lora": {"method": "sft", "models": _LORA},
}


def recipe(place: Place, run: str, case: str, **train: Any) -> dict[str, Any]:
    sections = dict(_CASES[case])
    return place.recipe(run, **{**sections, "train": {**sections.get("train", {}), **train}})


@pytest.fixture(scope="module")
def alone(place: Place) -> None:
    """Every case on one process. Its micro-batches and chunks are others than those of the ranks."""
    for case in _CASES:
        whole = recipe(place, f"alone-{case}", case, micro_rows=8, chunk="auto")
        limbeck.train({**whole, "models": {**whole["models"], "gradient_checkpointing": False}})


def plan(place: Place, strategy: str) -> dict[str, Any]:
    cases = {case: {"kind": "train", "recipe": recipe(place, f"{strategy}-{case}", case, strategy=strategy)} for case in _CASES}
    inspected = {"kind": "inspect", "recipe": recipe(place, "inspected", "gkd", strategy=strategy)}
    stopped = {"kind": "train", "recipe": recipe(place, f"{strategy}-stopped", "gkd", strategy=strategy)}
    return {
        "inspect": inspected,
        **cases,
        "stopped": {**stopped, "happens": {"sigterm": 3}},
        "resumed": {**stopped, "resume": True},
        "taken": cases["sft"],
        "uneven": {"kind": "train", "recipe": recipe(place, "uneven", "sft", strategy=strategy, batch_rows=7)},
    }


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ranks(place: Place, strategy: str) -> Launch:
    return place.launch(plan(place, strategy), name=f"launch-{strategy}")


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.usefixtures("alone", "ranks")
def test_two_ranks_give_the_losses_and_weights_of_one(place: Place, strategy: str, case: str) -> None:
    ones, twos = place.metrics(f"alone-{case}"), place.metrics(f"{strategy}-{case}")
    assert [row["kind"] for row in twos] == ["step"] * 6 + ["validation"]
    for one, two in zip(ones, twos, strict=True):
        assert two.keys() == one.keys()
        numbers = [key for key in ("loss", "cross_entropy", "rouge_l", "response_tokens") if key in one]
        for key in numbers:
            assert two[key] == pytest.approx(one[key], abs=1e-6, rel=0), (key, one, two)
        for key in ("terms", "gradient_shares"):
            assert two.get(key, {}) == pytest.approx(one.get(key, {}), abs=1e-6, rel=0)
        for key in ("tokens", "origin", "learning_rate"):
            assert two.get(key) == one.get(key)
    origins = {origin for row in twos[:6] for origin in row["origin"]}
    assert origins == ({"reference"} if case in ("sft", "lora") else {"reference", "student"})
    one_student, two_student = weights(place, f"alone-{case}"), weights(place, f"{strategy}-{case}")
    assert two_student.keys() == one_student.keys()
    for name, weight in one_student.items():
        torch.testing.assert_close(two_student[name], weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.usefixtures("alone", "ranks")
def test_the_student_of_two_ranks_is_a_plain_folder(place: Place, strategy: str, case: str) -> None:
    folder, alone = place.path / f"{strategy}-{case}" / "student", place.path / f"alone-{case}" / "student"
    assert (folder / "config.json").read_text() == (alone / "config.json").read_text()
    assert (folder / "generation_config.json").read_text() == (alone / "generation_config.json").read_text()
    assert sorted(path.name for path in folder.rglob("*")) == sorted(path.name for path in alone.rglob("*"))
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    saved = weights(place, f"{strategy}-{case}")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, saved[name])


def test_every_rank_holds_its_part(ranks: Launch, strategy: str) -> None:
    found = ranks.of("inspect")
    assert [each["rank"] for each in found] == [0, 1]
    assert {each["device"] for each in found} == {"cpu"}
    mine, others = (each["scored_tokens"] for each in found)
    assert len(mine) == len(others) == 2 and sum(mine) != sum(others)
    is_sharded = strategy == "fsdp"
    for each in found:
        for moment in ("start", "gradient", "step", "validation"):
            assert set(each[moment]["parameters_sharded"]) == {is_sharded}, moment
            assert each[moment]["own_share"] == (0.5 if is_sharded else 1.0)
        assert set(each["step"]["moments_sharded"]) == {is_sharded}
        assert len(each["step"]["moments_sharded"]) == 2 * len(each["step"]["parameters_sharded"])


def test_a_stopped_run_goes_on_bit_for_bit(place: Place, ranks: Launch, strategy: str) -> None:
    for each in ranks.of("stopped"):
        assert (each["code"], each["error"]) == (75, "Stopped"), each
        assert "stopped after step 3 of 6" in each["message"]
    assert [each["code"] for each in ranks.of("resumed")] == [0, 0]
    assert_same_run(place, f"{strategy}-stopped", f"{strategy}-gkd")


def test_bad_input_is_the_same_error_on_every_rank(ranks: Launch) -> None:
    for case, text in (("taken", "is another run's directory"), ("uneven", "2 processes cannot share evenly")):
        for each in ranks.of(case):
            assert (each["code"], each["error"]) == (2, "ConfigError"), each
            assert text in each["message"]


def test_only_the_first_rank_prints_and_nobody_warns(ranks: Launch) -> None:
    assert "done: the student is in" in ranks.outputs[0]
    assert "arning" not in ranks.outputs[0]
    assert ranks.outputs[1] == ""


@pytest.mark.usefixtures("ranks")
def test_one_process_refuses_the_run_of_two(place: Place, strategy: str) -> None:
    wanted = "only one process runs" if strategy == "fsdp" else "started on 2 processes"
    with pytest.raises(ConfigError, match=wanted):
        limbeck.train(place.path / f"{strategy}-gkd", resume=True)


def weights(place: Place, run: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(place.path / run / "student" / "model.safetensors")
    return found


def assert_same_run(place: Place, run: str, other: str) -> None:
    """The same bits: student, optimizer and metrics."""
    assert place.metrics(run) == place.metrics(other)
    for part in ("student/model.safetensors", *(f"checkpoints/step-000006/{p}.safetensors" for p in ("trainable", "optimizer"))):
        ours, theirs = load_file(place.path / run / part), load_file(place.path / other / part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part
