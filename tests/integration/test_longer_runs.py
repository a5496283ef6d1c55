"""A run that is made longer after it was evaluated: its page and card show no score of the student before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.publishing import model_card
from limbeck.reporting.run_logs import read_evaluations
from limbeck.testing import save_tiny, save_toy


@pytest.mark.parametrize("changes", [{}, {"models": {"lora": {"rank": 2}}}, {"train": {"precision": "bf16"}}])
def test_evaluations_of_the_student_before_are_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    models = {"student": str(save_tiny(tmp_path / "student", seed=2)), "device": "cpu"}
    recipe = {
        "method": {"base": "sft"},
        "models": {**models, **changes.get("models", {})},
        "data": {"corpus": str(save_toy(tmp_path / "train.jsonl", 24)), "max_prompt": 48, "max_length": 64},
        "train": {
            "steps": 1,
            "batch_rows": 4,
            "learning_rate": 1e-2,
            "schedule": "constant",
            **changes.get("train", {}),
        },
        "validate": {"every": None},
        "run": str(tmp_path / "run"),
    }
    run = limbeck.train(recipe)
    answers = run.directory / "answers"
    asked: dict[str, Any] = {"seeds": (10,), "max_new_tokens": 4, "max_prompt": 48, "device": "cpu"}
    corpora = [str(save_toy(tmp_path / "test.jsonl", 5, seed=7))]
    limbeck.evaluate(run, corpora, out=answers / "plain", **asked)
    found = read_evaluations(run.directory)["plain"]
    assert (len(found.answers), found.outdated) == (5, ())
    assert "| test.jsonl | 5 |" in model_card(run.directory)

    before = json.loads((run.directory / "student" / "limbeck.json").read_text())["weights"]
    limbeck.train(run.directory / "recipe.yaml", "train.steps=3", resume=True)
    assert json.loads((run.directory / "student" / "limbeck.json").read_text())["weights"] != before
    assert (
        "answered by another student than the one that the run keeps now" in (run.directory / "page.html").read_text()
    )
    card = model_card(run.directory)
    assert "Answers of an earlier student of this run are left out" in card
    assert "| test.jsonl | 5 |" not in card

    limbeck.evaluate(run, corpora, out=answers / "again", **asked)
    assert len(read_evaluations(run.directory)["again"].answers) == 5
    assert "| test.jsonl | 5 |" in model_card(run.directory)
