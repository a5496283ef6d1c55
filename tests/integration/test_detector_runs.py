"""Tiny runs with each detector of the error token: they train, are told by their recipe, and resume exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.methods import to_config
from limbeck.revision import DETECTORS, SCRG, AttentionArgmax, Heuristic, KLDArgmax, RandomToken
from training_kit import Models, assert_same_run, metrics, recipe, start, start_and_kill, tensors

MADE = {
    "kld-argmax": KLDArgmax(direction="teacher-student"),
    "random": RandomToken(),
    "heuristic": Heuristic(loop_tokens=2, top_p=0.5),
    "attention": AttentionArgmax(),
}


def _settings(models: Models, kind: str, *, rounds: int = 1) -> dict[str, Any]:
    scrg = SCRG(detector=MADE[kind], rounds=rounds)
    return recipe(models, "imitkd", method={"revision": to_config(scrg)}, train={"seed": 5})


def _steps(run: Path) -> list[dict[str, Any]]:
    return [row for row in metrics(run) if row["kind"] == "step"]


def test_every_detector_has_a_run() -> None:
    assert list(MADE) == list(DETECTORS)


@pytest.mark.parametrize("kind", MADE)
def test_a_run_corrects_and_says_by_what(kind: str, models: Models, tmp_path: Path) -> None:
    start({**_settings(models, kind), "watch": {"rows": 2}}, tmp_path / "run", "train.steps=3")
    steps = _steps(tmp_path / "run")
    assert len(steps) == 3
    assert all(0 < step["revision"]["revised_rows"] <= 1 for step in steps)
    assert {name for step in steps for name in step["origin"]} >= {"revised"}
    read_back = Recipe.load(tmp_path / "run" / "recipe.yaml").built_method()
    assert read_back.revision == SCRG(detector=MADE[kind])
    shown = [json.loads(line) for line in (tmp_path / "run" / "tokens.jsonl").read_text().splitlines()]
    assert len(shown) == 2
    assert any(row.get("corrected") for row in shown)


def test_detectors_choose_differently(models: Models, tmp_path: Path) -> None:
    """Of the same draws: the first step's rows, the teacher's tokens and their KL are one run's as another's."""
    found = []
    for kind in MADE:
        start(_settings(models, kind), tmp_path / kind, "train.steps=1", "validate.every=null")
        found.append(_steps(tmp_path / kind)[0]["revision"])
    assert len({each["mismatches"] for each in found}) == 1
    assert max(each["kl"] for each in found) == pytest.approx(min(each["kl"] for each in found), rel=1e-4)
    assert len({(each["kl_corrected"], each["place"]) for each in found}) == len(MADE)


def test_a_random_choice_resumes_exactly_and_belongs_to_the_seed(models: Models, tmp_path: Path) -> None:
    settings = _settings(models, "random", rounds=2)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    start(settings, tmp_path / "other", "train.seed=6")
    weights, others = tensors(tmp_path / "whole"), tensors(tmp_path / "other")
    assert any(not weights[name].equal(others[name]) for name in weights)
