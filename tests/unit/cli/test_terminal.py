"""What every verb has in common: the page that describes them, exit codes, JSON, quiet, colour, and a light start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer

import limbeck
import limbeck.errors
from limbeck.cli import entry, main, terminal
from limbeck.cli.entry import app
from limbeck.errors import LimbeckError
from limbeck.preflight import Diagnosis, Finding
from limbeck.preflight.findings import Severity
from limbeck.reporting.tables import Column, Number, Row, Table
from limbeck.training.progress import Progress

_PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
_HEAVY = ("torch", "transformers", "datasets", "nltk", "numpy", "accelerate")


def _verbs() -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    return dict(command.commands)


def _first_cells(heading: str) -> list[str]:
    section = _PAGE.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `?([\w-]+)`? \|", section, re.M)[1:]


def test_the_page_names_every_verb_and_no_other() -> None:
    assert _first_cells("# The command line") == list(_verbs())


def test_the_page_names_every_exit_code_and_no_other() -> None:
    raised = {
        each.exit_code
        for each in vars(limbeck.errors).values()
        if isinstance(each, type) and issubclass(each, LimbeckError)
    }
    own = {0, entry._FAILED, entry._RESUMABLE, entry._INTERRUPTED}
    own |= {
        Diagnosis(findings=(Finding(check="", severity=each, message=""),)).exit_code for each in get_args(Severity)
    }
    assert {int(code) for code in _first_cells("## Exit codes")} == raised | own


def test_verbs_that_print_a_table_print_json() -> None:
    listed = re.search(r"verb that prints a table: ([^|]*)\|", _PAGE)
    assert listed is not None
    named = set(re.findall(r"`([\w-]+)`", listed.group(1)))
    has_json = set()
    for name, verb in _verbs().items():
        leaves = [verb, *getattr(verb, "commands", {}).values()]
        has_json |= {name for leaf in leaves if any("--json" in each.opts for each in leaf.params)}
    assert named == has_json
    assert {"quickstart", "evaluate", "doctor", "plan", "compare", "explain", "push"} <= named


def _table() -> Table:
    rows = tuple(Row(cells=(f"corpus {i}", Number(value=i / 3, low=0.0, high=1.0))) for i in range(2))
    return Table(columns=(Column(title="corpus"), Column(title="ROUGE-L")), rows=rows)


def test_evaluate_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    results = SimpleNamespace(
        table=lambda scores=(): _table(), perplexity=lambda: {"a": float("inf")}, categories=lambda score: _table()
    )
    monkeypatch.setitem(vars(limbeck), "evaluate", lambda *given, **settings: results)
    assert main(["evaluate", "m", "--corpora", "a", "--json", "--categories"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["scores"][1]["ROUGE-L"] == {"value": 1 / 3, "low": 0.0, "high": 1.0}
    assert values["perplexity"] == {"a": None}
    assert values["categories"] == values["scores"]


def test_quiet_leaves_results_and_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def train(*given: Any, **settings: Any) -> SimpleNamespace:
        progress = Progress(steps=2, is_main=True)
        progress.note("a note")
        progress.note("warning: repetition at step 1")
        row = {"step": 1, "terms": {}, "origin": {}, "time": {"seconds": 1.0, "tokens_per_second": 1.0}}
        progress.step(row)
        return SimpleNamespace(directory=Path("runs/x"), best=None)

    monkeypatch.setitem(vars(limbeck), "train", train)
    monkeypatch.delenv(terminal.QUIET, raising=False)
    assert main(["train", "r.yaml", "--quiet"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("run: runs/x\n", "warning: repetition at step 1\n")
    assert terminal.QUIET not in os.environ
    assert main(["train", "r.yaml"]) == 0
    said = capsys.readouterr()
    assert "a note" in said.err
    assert "step 1/2" in said.err
    data = tmp_path / "mine.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    assert main(["init", "--data", str(data), "--out", str(tmp_path / "r.yaml"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"recipe: {tmp_path / 'r.yaml'}\n"


@pytest.mark.parametrize(
    ("is_terminal", "no_colour", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_a_terminal_without_no_color(
    is_terminal: bool,
    no_colour: str,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("NO_COLOR", no_colour)
    assert terminal.has_colour() is coloured
    seen: list[str] = []
    monkeypatch.setattr("typer.echo", seen.append)
    terminal.print_marked("error   disk: full\n        -> make room")
    assert ("\x1b" in seen[0]) is coloured
    assert seen[0].endswith("disk: full")
    assert seen[1] == "        -> make room"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--help"], ["chat", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    loaded = f"[name for name in {_HEAVY!r} if name in sys.modules]"
    code = f"import sys; from limbeck.cli import main; main({arguments!r}); print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_the_shell_completes_verbs() -> None:
    environment = {**os.environ, "_LIMBECK_COMPLETE": "complete_bash", "COMP_WORDS": "limbeck com", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "limbeck"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["compare"]


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_has_enough_is_no_error(reader: str) -> None:
    command = f'{sys.executable} -c \'from limbeck.cli import main; import sys; sys.exit(main(["explain", "mgsr"]))\''
    done = subprocess.run(
        ["bash", "-c", f"{command} | {reader}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""
