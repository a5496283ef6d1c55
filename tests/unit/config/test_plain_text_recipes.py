"""Plain text and its weight: each is refused without the other, and any method takes both."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError
from limbeck.inspection import explain
from limbeck.methods import METHODS

MODELS = {"teacher": "big", "student": "small"}


def recipe(base: str, **changed: Any) -> dict[str, Any]:
    models = {"student": "small"} if base == "sft" else MODELS
    return {
        "method": {"base": base, "weights": {"plain_text": 0.5}},
        "models": models,
        "data": {"corpus": "starter", "plain_text": "text.jsonl"},
        **changed,
    }


@pytest.mark.parametrize("base", METHODS)
def test_any_method_takes_it(base: str) -> None:
    loaded = Recipe.load(recipe(base))
    objective = loaded.built_method().objective()
    assert objective.scales["plain_text"] == 0.5
    assert objective.names.index("plain_text") > 0
    assert "plain_text" not in objective.row_names
    assert "plain_text" not in METHODS[base]().objective().names
    assert Recipe.load(loaded).values() == loaded.values()


@pytest.mark.parametrize(
    ("changed", "overrides", "said"),
    [
        ({"method": {"base": "kd"}}, [], r"data\.plain_text is 'text\.jsonl', which nothing reads"),
        ({"data": {"corpus": "starter"}}, [], r"weights\.plain_text is 0\.5, but data\.plain_text names no text"),
        ({}, ["method.weights.token=0"], r"weights\.plain_text is the only weight of kd"),
        ({}, ["method.weights.plain_text=-1"], r"a weight is a finite number of at least 0"),
        ({}, ["data.plain_text=7"], r"a \.txt file, or JSON lines"),
    ],
)
def test_one_without_the_other_is_refused(changed: dict[str, Any], overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.load(recipe("kd", **changed), overrides)


def test_it_is_explained() -> None:
    text = explain(Recipe.load(recipe("minillm", method={"base": "minillm", "weights": {"plain_text": 1}}))).text()
    assert "loss = 1 · token + 1 · plain_text\n" in text
    assert "plain_text: likelihood of plain text [changed: none in minillm]" in text or "plain_text: likelihood" in text
    assert "−log q_θ(d_i|d_<i)" in text
    assert "  weight = 1.0 [changed: 0.0 in minillm]" in text
    assert "a language-modelling loss on a pre-training corpus is added" in explain("minillm").text(200)
