from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.cli import main
from limbeck.inspection import explain


def test_it_prints_the_explanation_at_the_terminals_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["explain", "mgsr"]) == 0
    assert capsys.readouterr().out == explain("mgsr").text(60)


def test_json_is_the_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: {base: mgsr, span: null}\n")
    assert main(["explain", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == explain(recipe).values()


def test_an_unknown_name_ends_with_code_2_and_a_suggestion(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["explain", "msgr"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Did you mean 'mgsr'?" in said.err
    assert main(["explain", str(tmp_path / "nothing.yaml")]) == 2
    assert main(["explain"]) == 2
    assert main(["explain", "--help"]) == 0
    assert "METHOD" in capsys.readouterr().out


def test_a_pipe_gets_plain_text() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "limbeck", "explain", "gkd"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert done.stdout.decode() == explain("gkd").text(80)
    assert b"\x1b" not in done.stdout
