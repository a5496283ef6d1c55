"""An option that is a setting elsewhere is answered with the setting."""

from __future__ import annotations

import pytest
import typer

from limbeck.cli import main
from limbeck.cli.entry import app
from limbeck.cli.slips import meant_settings


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "r.yaml", "--steps", "3"], "train.steps=3"),
        (["train", "r.yaml", "--steps=3"], "train.steps=3"),
        (["train", "r.yaml", "--learning-rate", "--resume"], "train.learning_rate=VALUE"),
        (["plan", "r.yaml", "--train.steps", "3"], "train.steps=3"),
        (["study", "table1", "--max-length", "64"], "data.max_length=64"),
        (["train", "r.yaml", "--every"], "validate.every=VALUE or watch.every=VALUE"),
    ],
)
def test_the_setting_is_named(arguments: list[str], told: str) -> None:
    found = meant_settings(typer.main.get_command(app), arguments)
    assert found == f"settings are given as KEY=VALUE, without dashes: {told}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "r.yaml", "--resume"],
        ["train", "r.yaml", "--stpes", "3"],
        ["fetch", "--steps"],
        [],
        ["undo"],
        ["undo", "run", "r.yaml", "--epochs", "2"],
    ],
)
def test_nothing_is_said_where_nothing_is_known(arguments: list[str]) -> None:
    assert meant_settings(typer.main.get_command(app), arguments) == ""


def test_it_follows_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe.yaml", "--steps", "3"]) == 2
    told = capsys.readouterr().err
    assert told.index("No such option: --steps") < told.index("train.steps=3")
