from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli import main
from limbeck.config import Recipe
from limbeck.errors import CheckpointError
from limbeck.inspection import compare


def _step(step: int, **fields: Any) -> dict[str, Any]:
    row = {"kind": "step", "step": step, "loss": 1.0 / step, "terms": {"token": 0.5}, "time": {"seconds": step * 0.1}}
    return {**row, **fields}


def _run(folder: Path, rows: list[dict[str, Any]], *overrides: str, threads: int = 1) -> Path:
    folder.mkdir()
    recipe = {"method": {"base": "sft"}, "models": {"student": "s"}, "run": str(folder)}
    (folder / "recipe.yaml").write_text(Recipe.load(recipe, list(overrides)).dump())
    (folder / "environment.json").write_text(json.dumps({"threads": threads, "versions": {"torch": "2.9"}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_runs_that_differ_in_time_alone_are_the_same(tmp_path: Path) -> None:
    one = _run(tmp_path / "a", [_step(1, loss=float("nan")), _step(2)])
    other = _run(tmp_path / "b", [_step(1, loss=float("nan"), time={"seconds": 9.0}), _step(2), _step(3, loss=7.0)])
    found = compare(one, other)
    assert (found.recipe, found.environment, found.first) == ((), (), None)
    assert (found.steps, found.same_steps) == ((2, 3), 2)
    assert found.same_student is None


def test_the_first_step_that_differs_field_by_field(tmp_path: Path) -> None:
    one = _run(tmp_path / "a", [_step(n) for n in range(1, 5)])
    rows = [_step(1), _step(2), _step(3, terms={"token": 0.25, "span": 1.0}), _step(4, loss=9.0)]
    found = compare(one, _run(tmp_path / "b", rows, "train.seed=1", threads=2))
    assert [(each.key, each.old, each.new) for each in found.recipe] == [("train.seed", 0, 1)]
    assert [(each.key, each.old, each.new) for each in found.environment] == [("threads", 1, 2)]
    assert found.first is not None
    assert (found.first.step, found.first.kind, found.same_steps) == (3, "step", 2)
    assert [(each.key, each.old, each.new) for each in found.first.fields] == [
        ("terms.token", 0.5, 0.25),
        ("terms.span", None, 1.0),
    ]


def test_a_number_that_became_whole_is_a_difference_and_so_is_a_row_that_is_missing(tmp_path: Path) -> None:
    one = _run(tmp_path / "a", [_step(1, loss=1.0)])
    assert compare(one, _run(tmp_path / "b", [_step(1, loss=1)])).first is not None
    valid = {"kind": "validation", "step": 1, "loss": 0.5}
    found = compare(one, _run(tmp_path / "c", [_step(1, loss=1.0), valid])).first
    assert found is not None
    assert (found.kind, found.step) == ("validation", 1)


def test_warnings_of_one_step_are_told_apart(tmp_path: Path) -> None:
    signs = [{"kind": "watch", "step": 1, "name": name} for name in ("repetition", "stale_replay")]
    one = _run(tmp_path / "a", [_step(1), *signs])
    assert compare(one, _run(tmp_path / "b", [_step(1), *signs])).first is None
    assert compare(one, _run(tmp_path / "c", [_step(1), signs[0]])).first is not None


def test_students_are_compared_byte_for_byte(tmp_path: Path) -> None:
    one, other = (_run(tmp_path / name, [_step(1)]) for name in "ab")
    for run, weights in ((one, b"1234"), (other, b"1234")):
        (run / "student").mkdir()
        (run / "student" / "model.safetensors").write_bytes(weights)
    assert compare(one, other).same_student is True
    (other / "student" / "model.safetensors").write_bytes(b"1235")
    assert compare(one, other).same_student is False


def test_what_is_no_run(tmp_path: Path) -> None:
    one = _run(tmp_path / "a", [_step(1)])
    with pytest.raises(CheckpointError, match="is not the directory of a run"):
        compare(one, tmp_path)
    shutil.copytree(one, tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text("{\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 1 cannot be read"):
        compare(one, tmp_path / "b")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    one = _run(tmp_path / "a", [_step(1)])
    other = _run(tmp_path / "b", [_step(1, loss=0.123456789012345678)], "train.learning_rate=1e-3")
    assert main(["compare", str(one), str(one)]) == 0
    assert "recipe: no difference" in capsys.readouterr().out
    assert main(["compare", str(one), str(other)]) == 1
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 60
    for words in ("train.learning_rate", "0.0005", "0.001", "loss", "the step of step 1 differs"):
        assert words in said
    assert main(["compare", str(one), str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["fields"][0]["key"] == "loss"
    assert main(["compare", str(one), str(tmp_path / "c")]) == 2
