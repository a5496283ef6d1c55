"""The programs of examples/ run from their own command lines, with tiny models and few rows."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.testing import ScriptedServer, save_tiny, save_toy

_FOLDER = Path(__file__).parents[2] / "examples"
_PROGRAMS = sorted(path.stem for path in _FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows."""
    folder = tmp_path_factory.mktemp("examples")
    save_tiny(folder / "teacher", seed=1, layers=3)
    save_tiny(folder / "student", seed=2)
    save_toy(folder / "train.jsonl", 24)
    save_toy(folder / "test.jsonl", 4, seed=7)
    sums = [{"id": f"{a}-{b}", "question": f"{a}+{b}?", "answer": a + b} for a in range(2, 8) for b in range(2, 8)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    return folder


def _main(name: str) -> Callable[[list[str]], None]:
    found: Any = runpy.run_path(str(_FOLDER / f"{name}.py"), run_name=f"examples.{name}")
    return found["main"]  # type: ignore[no-any-return]


def _models(place: Path) -> list[str]:
    return ["--teacher", str(place / "teacher"), "--student", str(place / "student")]


_TINY = ["--steps", "2", "--batch-rows", "4", "--max-length", "64"]


def test_own_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "own-data"
    _main("own_data")([str(place / "train.jsonl"), *_models(place), *_TINY, "--out", str(out)])
    said = capsys.readouterr().out
    assert re.search(r"before: ROUGE-L \d+\.\d % over 3 rows", said)
    assert re.search(r"after: ROUGE-L \d+\.\d % over 3 rows", said)
    assert (out / "run" / "student" / "config.json").is_file()
    # What is scored is not trained on.
    held = {json.loads(line)["instruction"] for line in (out / "test.jsonl").read_text().splitlines()}
    assert len((out / "test.jsonl").read_text().splitlines()) == 3
    samples = [json.loads(line) for line in (out / "run" / "samples.jsonl").read_text().splitlines()]
    assert samples
    assert held


def test_own_divergence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program: Any = runpy.run_path(str(_FOLDER / "own_divergence.py"), run_name="examples.own_divergence")
    target, student = (torch.randn(3, 7).log_softmax(-1) for _ in range(2))
    by_hand = -(target.exp() * student.exp()).sqrt().sum(-1).log() * 2
    torch.testing.assert_close(program["Renyi"](alpha=0.5)(target_logp=target, student_logp=student), by_hand)
    kl = (target.exp() * (target - student)).sum(-1)
    near = program["Renyi"](alpha=0.9999)(target_logp=target, student_logp=student)
    torch.testing.assert_close(near, kl, rtol=1e-2, atol=1e-2)
    out = place / "own-divergence"
    program["main"]([str(place / "train.jsonl"), *_models(place), *_TINY, "--out", str(out)])
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if "cross-entropy" in line] == ["renyi", "forward-kl"]
    assert "Renyi" in (out / "renyi" / "recipe.yaml").read_text()


def test_undo_http(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def solve(body: Any) -> str:
        left, right = map(int, re.findall(r"(\d+)\+(\d+)\?", body["messages"][-1]["content"])[-1])
        return f"{left} + {right} = {left + right}\n#### {left + right}"

    sizes = ["--probe", "4", "--held-out", "6", "--rounds", "1", "--max-prompt", "32", "--max-new-tokens", "24"]
    with ScriptedServer(solve) as server:
        asked = [
            str(place / "sums.jsonl"),
            "--url",
            server.url,
            "--model",
            "adder",
            "--student",
            str(place / "student"),
        ]
        _main("undo_http")([*asked, *sizes, "--out", str(place / "undo")])
        calls = len(server.bodies)
        assert {body["model"] for body in server.bodies} == {"adder"}
        # The second time, everything is there.
        _main("undo_http")([*asked, *sizes, "--out", str(place / "undo")])
        assert len(server.bodies) == calls > 0
    said = capsys.readouterr().out
    assert "money" in said
    assert (place / "undo" / "report.html").is_file()


def test_study(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*_TINY, "--methods", "sft,kd", "--seeds", "0"]
    asked = [str(place / "train.jsonl"), str(place / "test.jsonl"), *_models(place), *sizes]
    _main("study")([*asked, "--out", str(place / "study")])
    said = capsys.readouterr().out
    assert "Methods on train.jsonl" in said
    assert "sft" in said
    assert "kd" in said
    assert "failed" not in said


def test_every_program_is_short_described_and_run_here() -> None:
    page = (_FOLDER / "README.md").read_text()
    here = Path(__file__).read_text()
    for name in _PROGRAMS:
        text = (_FOLDER / f"{name}.py").read_text()
        assert f"]({name}.py)" in page
        assert f"def test_{name}(" in here
        assert len(text.splitlines()) <= 100
        assert f"python examples/{name}.py" in text
    assert len(_PROGRAMS) == 4
