"""The packaged templates, rendered with everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("limbeck.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, values: Mapping[str, object]) -> str:
    """A template of `reporting/templates` with its values; a value it names and does not get is an error."""
    return _environment().get_template(template).render(values)


def packaged(name: str) -> str:
    """A file of `reporting/templates` as it is."""
    return (resources.files("limbeck.reporting") / "templates" / name).read_text(encoding="utf-8")
