"""The tables of methods and parts in the README and in docs/methods.md say what the registries hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from limbeck.losses import DIVERGENCES, TARGETS, TOKEN_TERMS, TOKEN_WEIGHTS
from limbeck.methods import METHODS, PRESETS, Method, to_config
from limbeck.sequences import SOURCES

ROOT = Path(__file__).parents[2]
PARTS = {"Sequences": SOURCES, "Token terms": TOKEN_TERMS, "Divergences": DIVERGENCES}


def _rows(text: str) -> dict[str, list[str]]:
    """The cells of every table row whose first cell is one backquoted word, by that word."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        row = re.match(r"\| `([^`]+)` \| (.*) \|$", line)
        if row:
            assert row.group(1) not in found, f"{row.group(1)} stands twice"
            found[row.group(1)] = [cell.strip() for cell in row.group(2).split(" | ")]
    return found


def _section(page: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", (ROOT / page).read_text(), re.M | re.S)
    assert found is not None, f"{page} has no section '{heading}'"
    return found.group(1)


def _short(part: Any) -> str:
    """A part in few words: match(jsd 0.5), mixture(student 0.5, fixed)."""
    plain = dict(part)
    kind = plain.pop("kind")
    if kind == "mixture":
        return f"mixture({_short(plain['first'])} {plain['share']:g}, {_short(plain['second'])})"
    if kind == "match":
        assert (plain["target"], plain["weight"]) == ({"kind": "teacher"}, {"kind": "uniform"})
        return f"match({_short(plain['divergence'])})"
    return " ".join([kind, *(f"{value:g}" for value in plain.values() if value is not None)])


def _cells(method: Method) -> list[str]:
    supervised = method.weights.supervised
    plain = to_config(method)
    return [_short(plain["sequences"]), _short(plain["token"]), f"{supervised:g}" if supervised else "–"]


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_the_table_of_methods_is_the_registry(page: str) -> None:
    assert set(METHODS) <= set(PRESETS)
    methods = {name: make() for name, make in PRESETS.items()}
    assert _rows(_section(page, "Methods")) == {name: _cells(method) for name, method in methods.items()}
    assert all((method.weights.token, method.reduction) == (1.0, "token") for method in methods.values())


@pytest.mark.parametrize("heading", PARTS)
def test_the_tables_of_parts_are_the_registries(heading: str) -> None:
    rows = _rows(_section("docs/methods.md", heading))
    assert set(rows) == set(PARTS[heading])
    for kind, entry in PARTS[heading].items():
        assert rows[kind][0] == (", ".join(_field(each) for each in dataclasses.fields(entry)) or "–"), kind


def _field(field: Any) -> str:
    # Where a range is given, pydantic leaves its own record as the default.
    made = field.default.get_default() if isinstance(field.default, FieldInfo) else field.default
    factory = field.default.default_factory if isinstance(field.default, FieldInfo) else field.default_factory
    if factory is not None and factory is not dataclasses.MISSING:
        made = to_config(factory())["kind"]
    if made is dataclasses.MISSING:
        return f"`{field.name}`"
    return f"`{field.name}` = {'null' if made is None else made}"


def test_the_page_names_every_target_weight_and_field() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for registry in (TARGETS, TOKEN_WEIGHTS):
        assert f"has one kind, `{'`, `'.join(registry)}`" in page
    assert set(_rows(page.split("## Methods")[0])) == {each.name for each in dataclasses.fields(Method)}


def test_the_readme_names_every_divergence() -> None:
    section = _section("README.md", "Methods")
    assert [name for name in DIVERGENCES if f"`{name}`" not in section] == []
