"""The tables of methods and parts in the README and in docs/methods.md say what the registries hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from limbeck.losses import CLIP_NETWORKS, DIVERGENCES, SPAN_TERMS, TARGETS, TOKEN_TERMS, TOKEN_WEIGHTS
from limbeck.losses.dac import ClippedKL
from limbeck.losses.policy_gradient import ReverseKLGradient
from limbeck.methods import METHODS, PRESETS, SLOTS, Method, to_config
from limbeck.revision import DETECTORS, REVISERS, Measures
from limbeck.sequences import SCHEDULES, SOURCES
from limbeck.spans import EXTRACTORS

ROOT = Path(__file__).parents[2]
PARTS = {
    "Sequences": SOURCES,
    "Schedules": SCHEDULES,
    "Revision": REVISERS,
    "Detectors": DETECTORS,
    "Token terms": TOKEN_TERMS,
    "Targets": TARGETS,
    "Divergences": DIVERGENCES,
    "Clip networks": CLIP_NETWORKS,
    "Span terms": SPAN_TERMS,
    "Extractors": EXTRACTORS,
}


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
    """A part in few words: match(jsd 0.5), mixture(student 0.5, fixed), dac-kl(mlp, features full)."""
    if part is None:
        return "–"
    plain = dict(part)
    kind = plain.pop("kind")
    if kind == "mixture":
        return f"mixture({_short(plain['first'])} {plain['share']:g}, {_short(plain['second'])})"
    if kind == "match":
        assert (plain["target"], plain["weight"]) == ({"kind": "teacher"}, {"kind": "uniform"})
        assert plain["temperature_square_scaled"] == 1.0
        return f"match({_short(plain['divergence'])})"
    if kind == "replay":
        flags = ["replay_on_mixed"] if plain["replay_on_mixed"] else []
        assert (plain["capacity"], plain["fresh"]) == (1000, "decreasing")
        return f"replay({', '.join([_short(plain['source']), _short(plain['schedule']), *flags])})"
    if kind in ("teacher", "adaptive"):
        usual = to_config((SOURCES | SCHEDULES)[kind]())
        changed = ", ".join(f"{key} {value:g}" for key, value in plain.items() if value != usual[key])
        return f"{kind} {changed}".rstrip()
    if kind in ("scrg", "dac-kl", "correlation", "rollouts", "reverse-kl-gradient"):
        registry = next(each for each in SLOTS.values() if kind in each)
        usual = to_config(registry[kind]())
        changed = [f"{key} {_yaml(value)}" for key, value in plain.items() if value != usual[key]]
        inside = [value["kind"] for value in plain.values() if isinstance(value, dict)]
        return f"{kind}({', '.join(inside + changed)})" if inside or changed else kind
    return " ".join([kind, *(f"{value:g}" for value in plain.values() if value is not None)])


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cells(method: Method) -> list[str]:
    plain, supervised = to_config(method), method.weights.supervised
    parts = [_short(plain[slot]) for slot in ("sequences", "revision", "token", "span")]
    return [*parts, f"{supervised:g}" if supervised else "–"]


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_the_table_of_methods_is_the_registry(page: str) -> None:
    assert set(METHODS) <= set(PRESETS)
    methods = {name: make() for name, make in PRESETS.items()}
    assert _rows(_section(page, "Methods")) == {name: _cells(method) for name, method in methods.items()}
    assert all((method.weights.token, method.reduction) == (1.0, "token") for method in methods.values())
    assert all(method.weights.span == 1.0 for method in methods.values())


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
    return f"`{field.name}` = {_yaml(made)}"


def test_the_page_names_every_weight_and_field() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    assert f"has one kind, `{'`, `'.join(TOKEN_WEIGHTS)}`" in page
    assert set(_rows(page.split("## Methods")[0])) == {each.name for each in dataclasses.fields(Method)}


def test_the_readme_names_every_divergence() -> None:
    section = _section("README.md", "Methods")
    assert [name for name in DIVERGENCES if f"`{name}`" not in section] == []


def _keys(part: Any) -> set[str]:
    """All keys of a plain record and of those inside it."""
    if not isinstance(part, dict):
        return set()
    return set(part).union(*(_keys(value) for value in part.values()))


def test_recipes_of_the_page_show_every_field_of_mgsr() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    shown = [yaml.safe_load(block)["method"] for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)]
    of_mgsr = [method for method in shown if method["base"] == "mgsr"]
    fields = _keys({**to_config(METHODS["mgsr"]()), "sequences": None}) | _keys(to_config(CLIP_NETWORKS["fixed"]()))
    assert fields - set().union(*(_keys(method) for method in of_mgsr)) == {"sequences"}


def test_the_page_names_all_that_is_measured() -> None:
    section = _section("docs/methods.md", "What a run of MGSR logs")
    revised = Measures(rows=1, revised=1, corrections=1, positions=1, mismatches=1, kl=1.0, place=1.0, kl_corrected=1.0)
    measured = [*(f"token/{name}" for name in ClippedKL.measures), *revised.row()]
    assert [name for name in measured if f"`{name}`" not in section] == []
    section = _section("docs/methods.md", "What a run of MiniLLM logs")
    assert [name for name in ReverseKLGradient().measures if f"`token/{name}`" not in section] == []
