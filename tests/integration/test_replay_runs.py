"""Runs that learn from earlier responses: killed, out of memory, and equal to on-policy runs in the limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.training import Distiller, looking, loop, memory
from training_kit import Models, assert_same_run, metrics, opened, recipe, start, start_and_kill, state, tensors

# Twelve rows are two steps; the threshold rises at every look, and nearly all steps take a student's rows.
BUSY = {"capacity": 12, "schedule": {"initial": 0.8, "rise": 0.0, "check_every": 2}, "fresh": "constant"}


def _settings(models: Models, base: str, **sequences: Any) -> dict[str, Any]:
    method = {"base": base, "sequences": {**BUSY, **sequences}, "weights": {"supervised": 1}}
    return recipe(models, base, method=method, train={"steps": 9})


def _turns(run: Path) -> list[str]:
    return [row["replay"]["turn"] for row in metrics(run) if row["kind"] == "step"]


def _stored(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    return dict(load_file(folder / "source.safetensors"))


def assert_same_source(one: Path, other: Path) -> None:
    left, right = _stored(one), _stored(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize(("base", "call"), [("distillm", 2), ("distillm", 8), ("mgsr:off-policy", 8)])
def test_killed_and_resumed_is_never_killed(base: str, call: int, models: Models, tmp_path: Path) -> None:
    settings = _settings(models, base)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=call)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert_same_source(tmp_path / "whole", tmp_path / "killed")
    assert set(_turns(tmp_path / "whole")) == {"fresh", "replayed", "fixed"}


def test_killed_while_buffered_sampling_is_never_killed(models: Models, tmp_path: Path) -> None:
    method = {"base": "gkd:buffered", "sequences": {"capacity": 12, "schedule": {"share": 0.7}}}
    settings = recipe(models, "gkd", method=method, train={"steps": 9})
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=8)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert_same_source(tmp_path / "whole", tmp_path / "killed")
    origins = [row["origin"] for row in metrics(tmp_path / "whole") if row["kind"] == "step"]
    assert {tuple(each) for each in origins} == {("replayed",), ("reference",)}


def test_out_of_memory_changes_neither_turns_nor_buffer_and_resumes(models: Models, tmp_path: Path) -> None:
    settings = _settings(models, "distillm")
    start(settings, tmp_path / "plenty")
    with pytest.MonkeyPatch.context() as patch:
        _scarce(patch, rows=2, from_step=4)
        start(settings, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        _scarce(patch, rows=2, from_step=4)
        start_and_kill(settings, tmp_path / "killed", call=7)
        start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert_same_source(tmp_path / "whole", tmp_path / "killed")
    halvings = json.loads((tmp_path / "whole" / "auto.json").read_text())["halvings"]
    assert [each["micro_rows"] for each in halvings] == [2]
    assert _turns(tmp_path / "whole") == _turns(tmp_path / "plenty")
    assert state(tmp_path / "whole")["source"] == state(tmp_path / "plenty")["source"]


def test_memory_that_runs_out_at_a_look_is_recorded_and_comes_back(models: Models, tmp_path: Path) -> None:
    settings = _settings(models, "distillm")
    with pytest.MonkeyPatch.context() as patch:
        _no_memory_at_look(patch, step=4)
        start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    halvings = json.loads((tmp_path / "whole" / "auto.json").read_text())["halvings"]
    assert halvings == [{"step": 4, "during": "check", "micro_rows": 2}]
    auto = json.loads((tmp_path / "killed" / "auto.json").read_text())
    (tmp_path / "killed" / "auto.json").write_text(json.dumps({**auto, "halvings": halvings}))
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def _scarce(patch: pytest.MonkeyPatch, *, rows: int, from_step: int) -> None:
    """From a step on, a forward of training on more rows than this finds no memory."""
    forward, take_step, now = Distiller.forward, loop.take_step, {"step": 0}

    def short(self: Distiller, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if now["step"] >= from_step and len(sequences) > rows and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, sequences, *args, **kwargs)

    def counted(session: Any, step: int, **kwargs: Any) -> Any:
        now["step"] = step
        return take_step(session, step, **kwargs)

    patch.setattr(Distiller, "forward", short)
    patch.setattr(loop, "take_step", counted)


def _no_memory_at_look(patch: pytest.MonkeyPatch, *, step: int) -> None:
    take = memory.MemoryGuard.take

    def short(self: Any, at: int, during: Any, action: Any) -> Any:
        left = [1] if (at, during) == (step, "check") else []

        def once() -> Any:
            if left:
                left.pop()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return action()

        return take(self, at, during, once)

    patch.setattr(memory.MemoryGuard, "take", short)


def test_a_replayed_step_reads_no_new_rows_and_its_supervised_term_the_references_of_the_replayed(
    models: Models, tmp_path: Path
) -> None:
    sequences = {"capacity": 6, "schedule": {"kind": "constant", "share": 1.0}, "fresh": "decreasing"}
    settings = _settings(models, "distillm", **sequences)
    start(settings, tmp_path / "run", "train.schedule=constant", "train.steps=2")
    first, second = [row for row in metrics(tmp_path / "run") if row["kind"] == "step"]
    assert [first["replay"]["turn"], second["replay"]["turn"]] == ["fresh", "replayed"]
    assert first["epoch"] == second["epoch"]
    assert (first["origin"], second["origin"]) == ({"student": 1.0}, {"replayed": 1.0})
    assert first["tokens"] == second["tokens"]


def test_corrected_rows_are_kept_once_and_not_corrected_again(models: Models, tmp_path: Path) -> None:
    sequences = {"capacity": 6, "schedule": {"kind": "constant", "share": 1.0}, "fresh": "decreasing"}
    start(_settings(models, "mgsr:off-policy", **sequences), tmp_path / "run", "train.steps=2")
    first, second = [row for row in metrics(tmp_path / "run") if row["kind"] == "step"]
    assert (first["origin"], second["origin"]) == ({"revised": 1.0}, {"replayed": 1.0})
    assert first["revision"]["revised_rows"] == 1.0
    assert "revision" not in second
    assert first["tokens"] == second["tokens"]


@pytest.mark.parametrize("base", ["imitkd", "mgsr"])
def test_a_buffer_of_one_batch_is_on_policy(base: str, models: Models, tmp_path: Path) -> None:
    """Equal in the limit, equal in code: only the rows' origin tells the runs apart."""
    buffered = {
        "kind": "replay",
        "capacity": 6,
        "schedule": {"kind": "constant", "share": 1.0},
        "replay_on_mixed": True,
    }
    weights = {"supervised": 1}
    runs = {"on": {"kind": "student"}, "off": buffered}
    for name, sequences in runs.items():
        method = {"base": base, "sequences": sequences, "weights": weights}
        start(recipe(models, base, method=method), tmp_path / name)
    assert all(torch.equal(value, tensors(tmp_path / "off")[name]) for name, value in tensors(tmp_path / "on").items())
    told = ("origin", "replay")
    plain = [
        [{key: value for key, value in row.items() if key not in told} for row in metrics(tmp_path / name)]
        for name in runs
    ]
    assert plain[0] == plain[1]


def test_gkd_without_drawn_rows_is_kd_with_jsd(models: Models, tmp_path: Path) -> None:
    jsd = {"divergence": {"kind": "jsd", "beta": 0.5}}
    start(recipe(models, "gkd", method={"base": "gkd", "sequences": {"share": 0.0}}), tmp_path / "gkd")
    start(recipe(models, "kd", method={"base": "kd", "token": jsd}), tmp_path / "kd")
    assert metrics(tmp_path / "gkd") == metrics(tmp_path / "kd")
    one, other = tensors(tmp_path / "gkd"), tensors(tmp_path / "kd")
    assert all(torch.equal(value, one[name]) for name, value in other.items())


def test_a_threshold_of_zero_is_learning_from_references(models: Models, tmp_path: Path) -> None:
    skewed = {"divergence": {"kind": "skew-reverse-kl", "alpha": 0.1}}
    never = {"kind": "replay", "schedule": {"kind": "constant", "share": 0.0}}
    start(recipe(models, "distillm", method={"base": "distillm", "sequences": never}), tmp_path / "replay")
    start(recipe(models, "kd", method={"base": "kd", "token": skewed}), tmp_path / "fixed")
    one, other = tensors(tmp_path / "replay"), tensors(tmp_path / "fixed")
    assert all(torch.equal(value, one[name]) for name, value in other.items())


def test_the_look_is_the_cross_entropy_of_a_validation_and_does_not_depend_on_validations(
    models: Models, tmp_path: Path
) -> None:
    settings = _settings(models, "distillm", schedule={"check_every": 3, "rise": 0.0})
    seen: dict[str, list[float]] = {}
    for name, overrides in {"often": ["validate.every=1"], "seldom": ["validate.every=9", "validate.rows=1"]}.items():
        with pytest.MonkeyPatch.context() as patch:
            seen[name] = _noting_looks(patch)
            start(settings, tmp_path / name, *overrides)
    assert len(seen["often"]) == 4
    assert seen["often"] == seen["seldom"]
    validations = {
        row["step"]: row["cross_entropy"] for row in metrics(tmp_path / "often") if row["kind"] == "validation"
    }
    assert seen["often"][1:] == pytest.approx([validations[step] for step in (3, 6, 9)], rel=1e-6)


def _noting_looks(patch: pytest.MonkeyPatch) -> list[float]:
    whole, seen = looking.reference_loss, list[float]()

    def noted(*args: Any, **kwargs: Any) -> float:
        seen.append(whole(*args, **kwargs))
        return seen[-1]

    patch.setattr(looking, "reference_loss", noted)
    return seen


def test_every_preset_opens(models: Models, tmp_path: Path) -> None:
    for base in ("distillm:small", "distillm:gpt2-base", "distillm:openllama", "imitkd:buffered", "mgsr:off-policy"):
        session = opened(recipe(models, base, method={"base": base}), tmp_path / base.replace(":", "-"))
        assert session.source.state()["lengths"].numel() == 0


def test_looks_that_read_a_good_part_of_what_is_trained_are_told_of(models: Models, tmp_path: Path) -> None:
    often, seldom = (
        opened(_settings(models, "distillm", schedule={"check_every": every}), tmp_path / str(every)).notes
        for every in (2, 9)
    )
    assert [note for note in often if "looks at the loss" in note] == [
        "the schedule looks at the loss of 4 validation rows 5 times: 20 rows are read for it"
        " beside 54 that are trained; a larger check_every looks less often"
    ]
    assert not [note for note in seldom if "looks at the loss" in note]


@pytest.mark.parametrize(("capacity", "is_told"), [(28, True), (27, False)])
def test_a_buffer_that_never_fills_is_told_of(capacity: int, is_told: bool, models: Models, tmp_path: Path) -> None:
    # Nine steps of six rows, half of which the schedule has drawn: 27.
    schedule = {"kind": "constant", "share": 0.5}
    settings = _settings(models, "distillm", schedule=schedule, capacity=capacity)
    notes = [note for note in opened(settings, tmp_path / "run").notes if "replay buffer" in note]
    told = (
        "the replay buffer holds 28 rows, and the schedule begins with about 27 drawn rows in 9 steps: until it is "
        "full nothing is replayed; a smaller capacity replays earlier"
    )
    assert notes == ([told] if is_told else [])
