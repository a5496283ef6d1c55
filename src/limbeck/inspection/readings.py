"""How the value of a field stands to the paper that a method is from: the record, and how it is looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Standing = Literal["printed", "open", "differs"]


@dataclass(frozen=True)
class Reading:
    """What a paper says about a value, in few words, and why Limbeck's default is what it is.

    `standing`: "printed" as the paper has it; "open" the paper does not say, or says two things; "differs" otherwise
    than the paper has it. `about` names what is read, where that is no field of a recipe.
    """

    standing: Standing
    paper: str = ""
    reason: str = ""
    about: str = ""


PRINTED = Reading("printed")
"""As in the paper, with nothing to add."""

OTHERWISE = "any other value"
"""The key of a reading for all values that have none of their own."""

Readings = Reading | Mapping[Any, Reading]
"""One reading for any value of a field, or one for each value; of a component its type stands for it."""

Fields = Mapping[tuple[type, str], Readings]
"""Readings by component type and field."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The source of a method, and how Limbeck's components and settings stand to it.

    `fields` by component type and field; `beside` by component type, what is no field; `settings` by dotted key of a
    recipe, what surrounds a method.
    """

    name: str
    source: str
    fields: Fields
    beside: Mapping[type, tuple[Reading, ...]] = field(default_factory=dict)
    settings: Mapping[str, Readings] = field(default_factory=dict)

    def reading(self, component: type, name: str, value: Any) -> Reading | None:
        """The reading of this value of a component's field; None where the table holds none."""
        return of_value(self.fields.get((component, name)), value)


def of_value(readings: Readings | None, value: Any) -> Reading | None:
    """The reading of a value among those of its field.

    >>> readings = {1.0: PRINTED, OTHERWISE: Reading("differs", "all weights are 1")}
    >>> of_value(readings, 1.0).standing, of_value(readings, 0.5).standing, of_value({1.0: PRINTED}, 0.5)
    ('printed', 'differs', None)
    """
    if readings is None or isinstance(readings, Reading):
        return readings
    key = type(value) if dataclasses.is_dataclass(value) else value
    found = readings.get(key) if isinstance(key, str | bool | int | float | type | None) else None
    return found or readings.get(OTHERWISE)
