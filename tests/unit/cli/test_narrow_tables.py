"""Every verb that prints a table prints JSON, and is readable in a narrow window."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from typing import Any

import pytest
import typer

import limbeck.preflight
from limbeck.blackbox.planning import UndoPlan
from limbeck.cli import main
from limbeck.cli.entry import app
from limbeck.cli.terminal import fitted

# What a verb without `--json` prints, in words: no table.
_NO_TABLE = {
    "init": "the name of a file",
    "train": "folder and best step",
    "report": "the name of a file",
    "chat": "a talk",
    "export": "the name of a folder",
    "shrink": "the name of a folder",
    "fetch": "the name of a folder",
    "cache build": "one line",
    "cache verify": "one line",
    "undo replay": "folder and number of files",
    "undo export": "names of files",
}
# Have `--json`, and take too long to be called here.
_LONG = {"quickstart", "study", "undo run", "undo resume", "undo transfer"}
_NUMBER = re.compile(r"\d(?:[\d,.]*\d)?")
_WIDTHS = (40, 60)


def _leaves() -> dict[str, Any]:
    """Every verb and verb of a verb, by its name."""
    command: Any = typer.main.get_command(app)
    found = {}
    for name, verb in command.commands.items():
        inner = getattr(verb, "commands", None)
        found |= {f"{name} {each}": one for each, one in inner.items()} if inner else {name: verb}
    return found


def test_every_verb_prints_json_or_no_table(finished: Any) -> None:
    has_json = {name for name, verb in _leaves().items() if any("--json" in each.opts for each in verb.params)}
    assert has_json | set(_NO_TABLE) == set(_leaves())
    assert not has_json & set(_NO_TABLE)
    called = {name.split(" --")[0] for name in finished.commands()}
    assert called | _LONG == has_json


@pytest.mark.parametrize(
    "verb",
    ["explain", "doctor", "plan", "evaluate", "compare", "push", "study --table", "study --dry-run", "cache info",
     "undo plan", "undo status", "undo report"],
)  # fmt: skip
def test_json_is_one_value_on_standard_output(verb: str, finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(finished.commands()) >= {verb}
    assert main([*finished.commands()[verb], "--json"]) in (0, 1)
    values = json.loads(capsys.readouterr().out)
    assert values
    expected = {"study --table": "tables", "study --dry-run": "rows", "undo plan": "stages", "undo status": "rounds",
                "undo report": "summary", "cache info": "tokens", "evaluate": "scores"}  # fmt: skip
    if verb in expected:
        assert values[expected[verb]], verb


def _lines(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> list[str]:
    assert main(arguments) in (0, 1)
    said = capsys.readouterr().out
    return [re.sub(r"\(\d+ GB free\)", "", line) for line in said.split("\n")]


def _numbers(lines: list[str]) -> Counter[str]:
    return Counter(number for line in lines for number in _NUMBER.findall(line))


@pytest.mark.parametrize(
    "verb",
    ["explain", "doctor", "plan", "evaluate", "compare", "study --table", "study --dry-run", "cache info", "undo plan",
     "undo status", "undo report"],
)  # fmt: skip
def test_a_narrow_window_breaks_no_number(
    verb: str, finished: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if verb in ("doctor", "plan"):
        # Free memory and the speed of this machine are other ones at each call.
        whole = getattr(limbeck.preflight, verb)(finished.recipe, **({"weights": False} if verb == "doctor" else {}))
        monkeypatch.setitem(vars(limbeck.preflight), verb, lambda *given, **settings: whole)
    monkeypatch.setenv("COLUMNS", "400")
    wide = _lines(capsys, finished.commands()[verb])
    for columns in _WIDTHS:
        monkeypatch.setenv("COLUMNS", str(columns))
        narrow = _lines(capsys, finished.commands()[verb])
        long = [line for line in narrow if len(line) > columns and len(line.split()) > 1]
        # The name of a file or folder stays behind its word: it is there to be copied.
        assert [line for line in long if not re.match(r"\s*[\w-]+: \S+$", line)] == []
        assert _numbers(wide) - _numbers(narrow) == Counter()


@pytest.mark.parametrize("columns", _WIDTHS)
def test_help_fits_a_narrow_window(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ["", *_leaves()]:
        assert main([*name.split(), "--help"]) == 0
        said = capsys.readouterr().out.split("\n")
        assert [line for line in said if len(line) > columns and len(line.split()) > 1] == [], name


def test_an_error_fits_a_narrow_window(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["explain", "msgr"]) == 2
    whole = capsys.readouterr().err
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["explain", "msgr"]) == 2
    said = capsys.readouterr().err
    assert max(map(len, said.split("\n"))) <= 40
    assert said.split() == whole.split()


def test_lines_break_at_spaces_alone() -> None:
    assert fitted("run: /a/very/long/folder/of/a/run", columns=12) == "run:\n  /a/very/long/folder/of/a/run"
    assert fitted("    12,345 tokens of 67,890", columns=16) == "    12,345\n      tokens of\n      67,890"
    # What has room is not touched: columns of a table stay where they are.
    assert fitted("a   b\n\n  c", columns=9) == "a   b\n\n  c"


def test_a_plan_adds_up(finished: Any) -> None:
    from limbeck.blackbox.planning import Planned

    stages = tuple(Planned(arm="a", round=i, calls=3, prompt_tokens=5, completion_tokens=7) for i in range(2))
    plan = UndoPlan(stages=stages, questions={"train": 3}, shared_tokens=0, money=0.5, minutes=1.0, what="a rule")
    values = plan.values()
    assert (values["calls"], values["prompt_tokens"], values["completion_tokens"]) == (6, 10, 14)
    assert list(values["stages"]) == [dataclasses.asdict(each) for each in stages]
