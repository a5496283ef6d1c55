"""When a run validates, which student it keeps, when it stops early, and which checkpoints stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.evaluation import rouge_l
from limbeck.training import checkpoint, loop
from limbeck.training.validation import Validator
from training_kit import Models, metrics, recipe, start


def _script(patch: pytest.MonkeyPatch, values: list[float], key: str) -> list[dict[str, torch.Tensor]]:
    """Validations that say these numbers; the list fills with the student's weights at each."""
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(self: Validator, distiller: Any, world: Any) -> tuple[dict[str, Any], list[Any]]:
        value = values[len(seen)]
        seen.append({name: p.detach().clone() for name, p in distiller.student.named_parameters()})
        return {"loss": 1.0, "terms": {"token": 1.0}, "cross_entropy": 1.0, key: value}, []

    patch.setattr(Validator, "run", scripted)
    return seen


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("loss", [3.0, 1.0, 2.0, 1.0, 1.5, 4.0], 2), ("rouge-l", [0.1, 0.2, 0.4, 0.4, 0.3, 0.0], 3)],
)
def test_the_best_student_is_kept(
    metric: str, values: list[float], best: int, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = metric.replace("-", "_")
    seen = _script(monkeypatch, values, key)
    run = start(recipe(models, "sft", validate={"every": 1, "metric": metric}), tmp_path / "run")
    assert run.best is not None
    assert (run.best["step"], run.best[key], run.best["metric"]) == (best, values[best - 1], metric)
    flags = [row["is_best"] for row in run.metrics() if row["kind"] == "validation"]
    assert [step for step, flag in enumerate(flags, start=1) if flag] == ([1, 2] if metric == "loss" else [1, 2, 3])
    kept = load_file(run.directory / "student" / "model.safetensors")
    assert kept
    assert all(torch.equal(value, seen[best - 1][name]) for name, value in kept.items())
    state = dict(run.student().state_dict())
    assert all(torch.equal(value, state[name]) for name, value in kept.items())


def test_stops_early(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _script(monkeypatch, [3.0, 1.0, 2.0, 2.0, 0.1, 0.1], "loss")
    settings = recipe(models, "sft", validate={"every": 1, "metric": "loss"}, train={"stop_after": 2})
    run = start(settings, tmp_path / "run")
    assert [row["step"] for row in run.metrics() if row["kind"] == "step"] == [1, 2, 3, 4]
    assert "stopping early: 2 validations without improvement" in capsys.readouterr().err
    assert run.best is not None
    assert run.best["step"] == 2
    assert (run.directory / "checkpoints" / "latest").read_text() == "step-000004"
    again = start(settings, tmp_path / "run", resume=True)
    assert again.metrics() == run.metrics()


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [("epoch", 8, [4, 8]), ("epoch", 5, [4, 5]), (2, 5, [2, 4, 5]), (9, 4, [4]), (None, 3, [])],
)
def test_when(
    every: Any, steps: int, expected: list[int], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(monkeypatch, [1.0] * 8, "loss")
    settings = recipe(models, "sft", validate={"every": every, "metric": "loss"}, train={"steps": steps})
    run = start(settings, tmp_path / "run")
    assert [row["step"] for row in run.metrics() if row["kind"] == "validation"] == expected
    assert (run.directory / "student" / "model.safetensors").is_file(), "the last student, where none was the best"
    if every is None:
        assert run.best is None


def test_two_checkpoints_while_it_runs_and_one_afterwards(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(monkeypatch, [1.0] * 6, "loss")
    take_step, run, seen = loop.take_step, tmp_path / "run", []

    def looked(session: Any, step: int, **kwargs: Any) -> Any:
        seen.append(sorted(path.name for path in (run / "checkpoints").glob("step-*")))
        return take_step(session, step, **kwargs)

    monkeypatch.setattr(loop, "take_step", looked)
    start(recipe(models, "sft", validate={"every": 1, "metric": "loss"}), run)
    names = [f"step-{step:06d}" for step in range(1, 7)]
    assert seen == [[], names[:1], names[:2], names[1:3], names[2:4], names[3:5]]
    assert [path.name for path in (run / "checkpoints").iterdir() if path.is_dir()] == ["step-000006"]
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.state["position"]["step"] == 6


def test_the_numbers_of_a_validation(models: Models, tmp_path: Path) -> None:
    """ROUGE-L is the mean over the rows on disk; the loss is that of one step over the whole set."""
    sizes = {}
    for micro_rows in (1, 4):
        run = start(recipe(models, "kd", train={"steps": 2, "micro_rows": micro_rows}), tmp_path / f"run{micro_rows}")
        (row,) = [row for row in run.metrics() if row["kind"] == "validation"]
        sizes[micro_rows] = row
    lines = (run.directory / "validation" / "step-000002.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 4
    assert row["rouge_l"] == pytest.approx(sum(rouge_l(a["text"], a["references"]) for a in answers) / 4, abs=1e-12)
    assert row["answer_tokens"] == sum(a["num_tokens"] for a in answers) / 4
    assert sizes[1]["loss"] == pytest.approx(sizes[4]["loss"], abs=1e-5)
    assert sizes[1]["cross_entropy"] == pytest.approx(sizes[4]["cross_entropy"], abs=1e-5)
    assert [r["step"] for r in metrics(run.directory)] == [1, 2, 2]


@pytest.mark.parametrize("rows", [0, 2])
def test_as_many_rows_are_followed_as_asked_for(rows: int, models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "kd", train={"steps": 2}, validate={"every": 1}, watch={"rows": rows})
    path = start(settings, tmp_path / "run").directory / "tokens.jsonl"
    followed = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert [row["step"] for row in followed] == [1] * rows + [2] * rows
    assert len({row["id"] for row in followed}) == rows
