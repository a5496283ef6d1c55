"""No field of a method of the library is without a word on how it stands to its paper, and no word is stale."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from limbeck.config.sections import SECTIONS
from limbeck.inspection.formulas import FORMULAS, formulas_of
from limbeck.inspection.papers import PAPERS
from limbeck.inspection.readings import OTHERWISE, Paper, Reading
from limbeck.methods import METHODS, PRESETS, Method

papers = pytest.mark.parametrize("name", PAPERS)
presets = pytest.mark.parametrize("name", PRESETS)


def _fields(component: Any) -> Iterator[tuple[type, str, Any]]:
    """Every field of a component and of the components inside it."""
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        yield type(component), field.name, value
        if dataclasses.is_dataclass(value):
            yield from _fields(value)


def _uncovered(method: Method, paper: Paper) -> list[str]:
    return [
        f"{component.__name__}.{name}"
        for component, name, value in _fields(method)
        if paper.reading(component, name, value) is None
    ]


def test_every_method_has_its_paper() -> None:
    assert list(PAPERS) == list(METHODS)


@presets
def test_every_field_has_a_reading_or_is_as_in_the_paper(name: str) -> None:
    forgotten = _uncovered(PRESETS[name](), PAPERS[name.partition(":")[0]])
    assert forgotten == [], "write a reading, or PRINTED, into limbeck/inspection (mgsr.py, papers.py)"


def test_a_field_that_is_forgotten_is_found() -> None:
    paper, presets = PAPERS["mgsr"], [preset() for name, preset in PRESETS.items() if name.startswith("mgsr")]
    assert all(_uncovered(preset, paper) == [] for preset in presets)
    used = {(component, name) for preset in presets for component, name, _ in _fields(preset)}
    for key in used:
        less = dataclasses.replace(paper, fields={each: paper.fields[each] for each in paper.fields if each != key})
        found = {tuple(_uncovered(preset, less)) for preset in presets} - {()}
        assert found == {(f"{key[0].__name__}.{key[1]}",)}


@presets
def test_what_is_open_or_differs_has_the_papers_words_and_a_reason(name: str) -> None:
    paper = PAPERS[name.partition(":")[0]]
    found = [paper.reading(component, field, value) for component, field, value in _fields(PRESETS[name]())]
    assert [each for each in found if each is not None and each.standing != "printed" and not _is_told(each)] == []


def _is_told(reading: Reading) -> bool:
    return bool(reading.paper and reading.reason)


@papers
def test_what_stands_beside_fields_is_told_and_named(name: str) -> None:
    for component, readings in PAPERS[name].beside.items():
        assert all(_is_told(each) and each.about for each in readings), component
        assert len({each.about for each in readings}) == len(readings)


@papers
def test_no_reading_is_of_a_field_or_value_that_is_gone(name: str) -> None:
    for (component, field), readings in PAPERS[name].fields.items():
        hints = get_type_hints(component, include_extras=True)
        assert field in {each.name for each in dataclasses.fields(component)}, (component, field)
        if isinstance(readings, Reading) or get_origin(hints[field]) is not Literal:
            continue
        choices = set(get_args(hints[field]))
        assert set(readings) - {OTHERWISE} <= choices
        assert OTHERWISE in readings or choices <= set(readings), (component, field)


@papers
def test_settings_are_keys_of_a_recipe(name: str) -> None:
    for key in PAPERS[name].settings:
        section, _, field = key.partition(".")
        assert field in {each.name for each in dataclasses.fields(SECTIONS[section])}, key


@presets
def test_every_component_has_a_formula(name: str) -> None:
    values = [value for _, _, value in _fields(PRESETS[name]()) if dataclasses.is_dataclass(value)]
    components = [value for value in values if type(value).__name__ != "Weights"]
    assert [type(each).__name__ for each in components if not formulas_of(each)] == []


def _cited(text: str) -> set[str]:
    """Equations and arXiv numbers; "Eq. 5-8" is four equations."""
    found = set(re.findall(r"\d{4}\.\d{5}", text))
    for first, last in re.findall(r"Eq\. (\d+)(?:-(\d+))?", text):
        found |= {f"Eq. {number}" for number in range(int(first), int(last or first) + 1)}
    return found


@pytest.mark.parametrize("component", FORMULAS, ids=lambda component: component.__name__)
def test_sources_of_formulas_are_those_of_the_docstrings(component: type) -> None:
    used = [value for preset in PRESETS.values() for _, _, value in _fields(preset()) if type(value) is component]
    made = used or ([] if any(each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
                              for each in dataclasses.fields(component)) else [component()])  # fmt: skip
    docstring = _cited(inspect.getdoc(component) or "") | {"2407.10068"}
    for each in made:
        cited = _cited(" ".join(formula.source for formula in formulas_of(each)))
        assert cited <= docstring, component
