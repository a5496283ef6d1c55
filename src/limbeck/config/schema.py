"""The recipe as a JSON schema for editors, and as a page for people: both made from the sections, word for word."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter

from limbeck.config.reading import scalar
from limbeck.config.recipes import LENGTHENING, Recipe
from limbeck.config.sections import SECTIONS, keys_of, section_inside

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

_INTRODUCTION = """# Configuration

Every key of a recipe. This page is made from the code by `python -m limbeck.config.schema`; a test compares them.

`limbeck init --data my.jsonl` writes a recipe with every key, and `limbeck init --schema` prints a JSON schema of
recipes: saved as `recipe.schema.json` and named in a recipe's first line,
`# yaml-language-server: $schema=recipe.schema.json`, it lets editors complete and check keys. `section.key=value`
behind `limbeck train recipe.yaml` sets a key for one run. A key that no section has, and one that nothing would read,
are errors. `method` is described in [methods.md](methods.md).
"""
_END = """## `run`

The folder of the run; it must not exist yet. Default: `runs/` and the name of the recipe's file, or of the method.

## What may change when a run goes on

{keys}. Everything else is an error under `--resume`.
"""


def recipe_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of recipe files: keys, types, choices, bounds, defaults and meanings.

    Editors complete and check a recipe by it. It says what each key may be, not what goes together (a run says that),
    and of `method` its base and its parts by kind.
    """
    schema: dict[str, Any] = TypeAdapter(Recipe).json_schema()
    definitions = schema["$defs"]
    for section in _all_sections():
        for name, key in keys_of(section).items():
            definitions[section.__name__]["properties"][name]["description"] = _described(key.meaning, key.allowed)
    schema["properties"]["method"] = _method_schema()
    schema["required"] = ["method", "models"]
    titles = {"title": "Limbeck recipe", "description": "What a run of `limbeck train` does. docs/configuration.md"}
    return {"$schema": _DRAFT, **schema, **titles}


def configuration_page() -> str:
    """docs/configuration.md: every key with its default, what it may be and what it means."""
    parts = [_INTRODUCTION]
    for name, section in SECTIONS.items():
        parts += [f"## `{name}`\n", f"{(section.__doc__ or '').strip()}\n", *_table(section, prefix=name), ""]
        for key in keys_of(section):
            inner = section_inside(section, key)
            if inner is not None:
                parts += [f"### `{name}.{key}`\n", f"{(inner.__doc__ or '').strip()}\n"]
                parts += [*_table(inner, prefix=""), ""]
    may_change = ", ".join(f"`{key}*`" if key.endswith(".") else f"`{key}`" for key in LENGTHENING)
    parts.append(_END.format(keys=may_change))
    return "\n".join(parts)


def _all_sections() -> list[type]:
    found = list(SECTIONS.values())
    inner = (section_inside(section, key) for section in found for key in keys_of(section))
    return [*found, *dict.fromkeys(each for each in inner if each is not None)]


def _described(meaning: str, allowed: str) -> str:
    return f"{meaning} ({allowed})" if allowed else meaning


def _method_schema() -> dict[str, Any]:
    """`method`: a base, weights, the reduction, and parts by their kinds."""
    from limbeck.methods import CUSTOM, PRESETS, Weights
    from limbeck.slots import SLOTS

    def part(slot: str) -> dict[str, Any]:
        kind = {"anyOf": [{"enum": sorted(SLOTS[slot])}, {"type": "string", "pattern": r"^[\w.]+:\w+$"}]}
        as_mapping = {"type": "object", "properties": {"kind": kind}}
        return {"anyOf": [kind, as_mapping, {"type": "null"}]}

    number = {"type": "number", "minimum": 0}
    weights = {each.name: number for each in dataclasses.fields(Weights)}
    properties: dict[str, Any] = {
        "base": {"enum": [*PRESETS, CUSTOM], "description": "the method or preset that the other keys change"},
        **{slot: part(slot) for slot in ("sequences", "revision", "token", "span")},
        "weights": {"type": "object", "properties": weights, "additionalProperties": False},
        "reduction": {"enum": ["token", "sequence"]},
    }
    return {
        "type": "object",
        "description": "docs/methods.md, or limbeck explain METHOD",
        "properties": properties,
        "required": ["base"],
        "additionalProperties": False,
    }


def _table(section: type, *, prefix: str) -> list[str]:
    defaults = {field.name: _default(field) for field in dataclasses.fields(section)}
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for name, key in keys_of(section).items():
        shown = f"{prefix}.{name}" if prefix else name
        cells = (f"`{shown}`", defaults[name], key.allowed, key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING and not hasattr(field.default, "default_factory"):
        value = field.default
    else:
        factory = getattr(field.default, "default_factory", None) or field.default_factory
        if factory is dataclasses.MISSING:
            return "has to be given"
        value = factory()
    return f"`{scalar(list(value) if isinstance(value, tuple) else value)}`"


if __name__ == "__main__":
    print(configuration_page(), end="")
