"""docs/paper-map.md is true: functions exist and cite their source, tests exist, recipe fields are taken."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError

ROOT = Path(__file__).parents[2]
COLUMNS = ["what", "formula", "cited as", "function", "tests", "recipe field"]
BASES = [
    {"method": {"base": base}, "models": {"teacher": "big", "student": "small"}} for base in ("gkd", "mgsr", "minillm")
]


def _table() -> list[dict[str, str]]:
    lines = [line for line in (ROOT / "docs" / "paper-map.md").read_text().splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert head == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


ROWS = _table()
row = pytest.mark.parametrize("row", ROWS, ids=[each["what"] for each in ROWS])


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell.replace("\\|", "|"))


def _resolved(path: str) -> Any:
    """The function, class or method of a dotted path."""
    names = path.split(".")
    for end in range(len(names) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(names[:end]))
        except ModuleNotFoundError:
            continue
        for name in names[end:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


@row
def test_the_function_exists_and_cites_its_source(row: dict[str, str]) -> None:
    (path,) = _quoted(row["function"])
    text = " ".join((inspect.getdoc(_resolved(path)) or "").split())
    sources = row["cited as"].split(", ") if row["cited as"] != "–" else _quoted(row["formula"])
    assert sources
    assert [source for source in sources if " ".join(source.split()) not in text] == []


@row
def test_the_tests_exist(row: dict[str, str]) -> None:
    named = _quoted(row["tests"])
    assert named
    for test in named:
        file, _, name = test.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), test


@row
def test_the_recipe_field_is_taken_and_changes_the_recipe(row: dict[str, str]) -> None:
    if row["recipe field"] == "–":
        return
    (override,) = _quoted(row["recipe field"])
    loaded = [(Recipe.load(base), _changed(base, override)) for base in BASES]
    differences = [before.difference(after) for before, after in loaded if after is not None]
    assert differences, f"neither gkd, mgsr nor minillm takes {override}"
    parent, default = override.partition("=")[0].rpartition(".")[0], {"validate.metric=rouge-l"}
    assert override in default or any(each.key.startswith(parent) for found in differences for each in found)


def _changed(base: dict[str, Any], override: str) -> Recipe | None:
    """The base with the override; None where the base has no such part."""
    try:
        return Recipe.load(base, [override])
    except ConfigError:
        return None


def test_every_equation_of_mgsr_has_its_row() -> None:
    cited = " ".join(row["cited as"] for row in ROWS if row["cited as"].startswith(("MGSR", "Eq.")))
    ranges = re.findall(r"Eq\. (\d+)(?:-(\d+))?", cited)
    numbers = {number for first, last in ranges for number in range(int(first), int(last or first) + 1)}
    assert set(range(1, 12)) <= numbers
