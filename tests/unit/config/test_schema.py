from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli import main
from limbeck.config import Recipe
from limbeck.config.schema import configuration_page, recipe_schema
from limbeck.config.sections import SECTIONS, keys_of
from limbeck.methods import PRESETS

_PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def _allows(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema that a recipe's schema uses."""
    if "$ref" in schema:
        schema = {
            **root["$defs"][schema["$ref"].rsplit("/", 1)[-1]],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    if "anyOf" in schema and not any(_allows(each, value, root) for each in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
             "null": type(None)}  # fmt: skip
    if "type" in schema:
        is_bool = isinstance(value, bool) and schema["type"] != "boolean"
        if is_bool or not isinstance(value, kinds[schema["type"]]):
            return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
        high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
        if (low is not None and value < low) or (above is not None and value <= above):
            return False
        if (high is not None and value > high) or (below is not None and value >= below):
            return False
    is_short = isinstance(value, str) and len(value) < schema.get("minLength", 0)
    if is_short or (isinstance(value, str) and not re.search(schema.get("pattern", ""), value)):
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if any(key not in value for key in schema.get("required", ())):
            return False
        if schema.get("additionalProperties") is False and any(key not in known for key in value):
            return False
        return all(_allows(known[key], inner, root) for key, inner in value.items() if key in known)
    return True


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


@pytest.mark.parametrize("base", PRESETS)
def test_every_resolved_recipe_is_allowed(base: str, schema: dict[str, Any]) -> None:
    teacher = {} if base.startswith("sft") else {"teacher": "t"}
    values = Recipe.load({"method": {"base": base}, "models": {"student": "s", **teacher}}).values()
    assert _allows(schema, values, schema)


@pytest.mark.parametrize(
    "change",
    [{"nonsense": {}}, {"train": {"stepz": 1}}, {"train": {"batch_rows": 0}}, {"train": {"schedule": "step"}},
     {"method": {}}, {"method": {"base": "gdk"}}, {"method": {"base": "gkd", "token": "nothing"}}, {"models": {}},
     {"track": {"kind": "mlflow"}}, {"sampling": {"top_p": 0}}, {"models": {"student": "s", "lora": {"rnk": 2}}}],
)  # fmt: skip
def test_what_a_recipe_may_not_hold_is_refused(change: dict[str, Any], schema: dict[str, Any]) -> None:
    plain = {"method": {"base": "gkd"}, "models": {"student": "s", "teacher": "t"}}
    assert _allows(schema, plain, schema)
    assert not _allows(schema, {**plain, **change}, schema)


def test_every_key_has_its_meaning_and_default(schema: dict[str, Any]) -> None:
    for name, section in SECTIONS.items():
        properties = schema["$defs"][section.__name__]["properties"]
        assert set(properties) == set(keys_of(section)), name
        for key, about in keys_of(section).items():
            assert about.meaning in properties[key]["description"]
    assert schema["$defs"]["TrainSection"]["properties"]["learning_rate"]["default"] == 5e-4
    json.dumps(schema)


def test_the_page_is_true() -> None:
    assert _PAGE.read_text() == configuration_page(), "python -m limbeck.config.schema > docs/configuration.md"


def test_the_page_names_every_key() -> None:
    page = _PAGE.read_text()
    for name, section in SECTIONS.items():
        for key in keys_of(section):
            assert f"| `{name}.{key}` |" in page


def test_init_prints_the_schema(capsys: pytest.CaptureFixture[str], schema: dict[str, Any]) -> None:
    assert main(["init", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema))
    assert main(["init"]) == 2
    assert "--data" in capsys.readouterr().err
