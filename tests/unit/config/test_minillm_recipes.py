"""Recipes of MiniLLM: what they may say, and what is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError
from limbeck.losses import ReverseKLGradient
from limbeck.methods import METHODS, PRESETS, Method, Weights, from_config, to_config
from limbeck.sequences import CollectedRollouts


def loaded(method: dict[str, Any] | Method, *overrides: str, teacher: str | None = "big") -> Method:
    models = {"student": "small", **({"teacher": teacher} if teacher else {})}
    recipe = {"method": method, "models": models, "data": {"corpus": "starter"}, "run": "runs/x"}
    return Recipe.load(recipe, list(overrides)).built_method()


def test_minillm_is_the_record_of_the_paper() -> None:
    assert METHODS["minillm"]() == Method(
        sequences=CollectedRollouts(teacher_share=0.2, rows=256, epochs=4),
        token=ReverseKLGradient(single_step=True, gamma=1.0, length_normalised=True, whitened=True, clip=0.2),
        weights=Weights(token=1.0, supervised=0.0),
        reduction="token",
    )
    code = PRESETS["minillm:code"]().token
    assert code == ReverseKLGradient(returns_from="own", gamma=0.95, reward_scale=2.0, reward_limit=100.0)


@pytest.mark.parametrize("name", ["minillm", "minillm:code"])
def test_a_recorded_method_is_read_back(name: str) -> None:
    plain = to_config(PRESETS[name]())
    assert from_config({"base": name, **plain}, allow_import=False) == PRESETS[name]()
    assert loaded({"base": "custom", **plain}) == PRESETS[name]()
    assert loaded(PRESETS[name]()) == PRESETS[name]()


def test_fields_change_one_at_a_time() -> None:
    method = loaded(
        {"base": "minillm", "sequences": {"rows": 64}},
        "method.token.clip=0.1",
        "method.token.weigh_single_step=true",
        "method.sequences.teacher_share=0",
        "sampling.temperature=0.7",
    )
    assert method.sequences == CollectedRollouts(teacher_share=0.0, rows=64, epochs=4)
    assert method.token == ReverseKLGradient(clip=0.1, weigh_single_step=True)


def test_rollouts_go_with_other_terms() -> None:
    method = loaded({"base": "gkd", "sequences": "rollouts"}, "sampling.top_p=0.9")
    assert method.sequences == CollectedRollouts()


@pytest.mark.parametrize(
    ("method", "overrides", "says"),
    [
        (
            {"base": "minillm"},
            ["sampling.top_p=0.9"],
            r"sampling\.top_p is 0\.9, which never draws some of the student",
        ),
        ({"base": "minillm"}, ["models.dropout=true"], r"models\.dropout is true, but minillm weighs a token by how"),
        (
            {"base": "minillm"},
            ["models.lora={rank: 4, alpha: 8, dropout: 0.1}"],
            r"models\.lora\.dropout is 0\.1, .* set it to 0",
        ),
        ({"base": "minillm"}, ["sampling.top_k=20"], r"sampling\.top_k is 20, which never draws"),
        ({"base": "minillm"}, ["sampling.temperature=0"], r"sampling\.temperature is 0\.0, which never draws"),
        ({"base": "minillm"}, ["train.batch_rows=24"], r"batch_rows is 24, which does not divide the 256 of"),
        ({"base": "minillm", "sequences": {"rows": 16}}, [], r"batch_rows is 32, which does not divide the 16 of"),
        ({"base": "minillm", "weights": {"supervised": 1}}, [], r"weights\.supervised is 1, but minillm reads rows"),
        ({"base": "minillm", "revision": "scrg"}, [], r"method\.revision corrects rows that were just drawn"),
        ({"base": "minillm", "sequences": "student"}, [], r"method\.token learns from how its rows were drawn"),
        ({"base": "gkd", "token": "reverse-kl-gradient"}, [], r"set method\.sequences to rollouts"),
        ({"base": "gkd", "sequences": {"first": "rollouts"}}, [], r"method\.sequences\.first gathers a collection"),
        (
            {"base": "minillm", "token": {"single_step": False}},
            ["validate.metric=loss"],
            r"validate\.metric is loss, but without method\.token\.single_step",
        ),
        ({"base": "minillm", "token": {"weigh_single_step": True, "single_step": False}}, [], r"nothing to weigh"),
        ({"base": "minillm", "sequences": {"teacher_share": 1}}, [], r"teacher_share"),
        ({"base": "minillm", "sequences": {"epochs": 0}}, [], r"epochs"),
    ],
)
def test_what_does_not_go_together_is_refused(method: dict[str, Any], overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded(method, *overrides)


def test_a_teacher_is_needed_even_without_the_exact_part() -> None:
    for method in ({"base": "minillm"}, {"base": "minillm", "token": {"single_step": False}}):
        with pytest.raises(ConfigError, match=r"models\.teacher is missing"):
            loaded(method, teacher=None)
    assert loaded({"base": "minillm", "token": {"single_step": False}}).token == ReverseKLGradient(single_step=False)
