"""Recipes of MGSR: what they may say, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError, UnknownName
from limbeck.losses import CLIP_NETWORKS, DACKL, MLP, Correlation, FixedBounds
from limbeck.methods import METHODS, PRESETS, Method, Weights, from_config, to_config
from limbeck.revision import SCRG, AttentionArgmax, Heuristic, KLDArgmax, RandomToken
from limbeck.sequences import Fixed, Mixture, Student


def loaded(method: dict[str, Any], *overrides: str, teacher: str | None = "big") -> Method:
    models = {"student": "small", **({"teacher": teacher} if teacher else {})}
    recipe = {"method": method, "models": models, "data": {"corpus": "starter"}, "run": "runs/x"}
    return Recipe.load(recipe, list(overrides)).built_method()


def test_mgsr_is_the_record_of_the_paper() -> None:
    assert METHODS["mgsr"]() == Method(
        sequences=Mixture(Student(), Fixed(), 0.5),
        revision=SCRG(detector=KLDArgmax(direction="student-teacher"), rounds=1, greedy=False),
        token=DACKL(clip=MLP(), features="topk", coordinate="mass", normalise="teacher"),
        span=Correlation(),
        weights=Weights(token=1.0, supervised=1.0, span=1.0),
        reduction="token",
    )
    assert PRESETS["mgsr:full"]().token == DACKL(features="full")
    assert PRESETS["mgsr:literal"]().token == DACKL(features="full", coordinate="value", normalise="none")


@pytest.mark.parametrize("name", ["mgsr", "mgsr:full", "mgsr:literal"])
def test_a_recorded_method_is_read_back(name: str) -> None:
    plain = to_config(PRESETS[name]())
    assert from_config({"base": name, **plain}, allow_import=False) == PRESETS[name]()
    assert from_config({"base": "custom", **plain}, allow_import=False) == PRESETS[name]()


def test_parts_change_one_field_at_a_time() -> None:
    method = loaded(
        {"base": "mgsr", "revision": {"rounds": 3, "detector": {"direction": "teacher-student"}}},
        "method.token.clip=fixed",
        "method.token.top=64",
        "method.span.extractor.max_words=6",
        "method.weights.span=2",
    )
    assert method.revision == SCRG(detector=KLDArgmax(direction="teacher-student"), rounds=3)
    assert method.token == DACKL(clip=FixedBounds(), top=64)
    assert method.weights.span == 2.0
    assert method.span is not None
    assert method.span.extractor.max_words == 6


@pytest.mark.parametrize(
    ("written", "detector"),
    [
        ("kld-argmax", KLDArgmax()),
        ("random", RandomToken()),
        ({"kind": "random"}, RandomToken()),
        ("heuristic", Heuristic()),
        ({"kind": "heuristic", "loop_tokens": 6, "rise": None}, Heuristic(loop_tokens=6, rise=None)),
        ({"kind": "attention"}, AttentionArgmax()),
    ],
)
def test_a_detector_is_read_dumped_and_read_back(written: Any, detector: Any) -> None:
    method = loaded({"base": "mgsr", "revision": {"detector": written}})
    assert method.revision == SCRG(detector=detector)
    plain = to_config(method)
    assert from_config({"base": "mgsr", **plain}, allow_import=False) == method
    assert loaded({"base": "mgsr"}, f"method.revision.detector={json.dumps(plain['revision']['detector'])}") == method


@pytest.mark.parametrize("clip", ["mlp", "conv", "rnn", "fixed"])
def test_every_clip_network_is_a_word_of_a_recipe(clip: str) -> None:
    method = loaded({"base": "mgsr", "token": {"clip": clip, "coordinate": "rank", "normalise": "rest"}})
    assert method.token == DACKL(clip=CLIP_NETWORKS[clip](), coordinate="rank", normalise="rest")
    assert from_config({"base": "custom", **to_config(method)}, allow_import=False) == method


def test_the_variants_that_have_a_gradient_are_taken() -> None:
    for token in (
        {"clip": "fixed", "gates": "hard"},
        {"gates": "straight-through"},
        {"clip": "fixed", "parts": "target"},
        {"parts": "dense"},
        {"clip_objective": "detached", "size_weight": 0.1, "coverage_weight": 1, "least_mass": 0.95},
    ):
        assert isinstance(loaded({"base": "mgsr", "token": token}).token, DACKL)


def test_parts_of_mgsr_go_onto_another_base() -> None:
    method = loaded({"base": "gkd", "revision": "scrg", "span": "correlation"})
    assert (method.revision, method.span) == (SCRG(), Correlation())


def test_parts_are_taken_away() -> None:
    method = loaded({"base": "mgsr", "revision": None, "span": None})
    assert (method.revision, method.span) == (None, None)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"base": "kd", "revision": "scrg"}, r"corrects what the student draws, but kd learns from the corpus's"),
        ({"base": "mgsr", "sequences": "fixed"}, r"method\.revision corrects what the student draws"),
        ({"base": "gkd", "weights": {"span": 2}}, r"method\.weights\.span is 2, which nothing reads: gkd has no span"),
        ({"base": "mgsr", "weights": {"span": 0}}, r"method\.span is set, but method\.weights\.span is 0"),
        ({"base": "mgsr", "token": {"features": "full", "top": 64}}, r"top is 64, which features 'full' never reads"),
        ({"base": "mgsr", "token": {"clip": {"kind": "fixed", "lower": 0.9, "upper": 0.1}}}, r"lower may not be above"),
        ({"base": "mgsr", "token": {"gates": "hard"}}, r"gates 'hard' give a learned clip no gradient"),
        ({"base": "mgsr", "token": {"parts": "target"}}, r"parts 'target' keep one class whatever the clip says"),
        ({"base": "mgsr", "token": {"clip_objective": "detached"}}, r"gives the clip nothing to learn from"),
        ({"base": "mgsr", "token": {"clip": "fixed", "size_weight": 1}}, r"are of a clip that is learned"),
        ({"base": "mgsr", "token": {"clip": "fixed", "clip_objective": "detached"}}, r"are of a clip that is learned"),
        ({"base": "mgsr", "token": {"least_mass": 0.5}}, r"nothing reads while coverage_weight is 0"),
        (
            {"base": "mgsr", "token": {"parts": "target", "clip": {"kind": "fixed", "lower": 0.1}}},
            r"clip has bounds, which parts 'target' never reads",
        ),
        (
            {"base": "mgsr", "token": {"parts": "target", "clip": "fixed", "normalise": "both"}},
            r"is 0 for every student",
        ),
        ({"base": "mgsr", "token": {"size_weight": -1}}, r"size_weight"),
        ({"base": "kd", "token": {"target": {"kind": "top-k"}}}, r"k: Field required|missing.*k"),
        (
            {"base": "kd", "token": {"target": {"kind": "top-k", "k": 5}, "divergence": "reverse-kl"}},
            r"infinite for every student",
        ),
        ({"base": "kd", "token": {"temperature_square_scaled": 0}}, r"temperature_square_scaled"),
        ({"base": "mgsr", "revision": {"rounds": 0}}, r"rounds"),
        ({"base": "mgsr", "revision": {"detector": {"kind": "heuristic", "top_p": 2}}}, r"top_p"),
        (
            {"base": "mgsr", "revision": {"detector": {"kind": "heuristic", "rise": None, "rise_after": 9}}},
            r"rise_after is 9 and rise_floor 0\.5, which nothing reads",
        ),
        ({"base": "mgsr", "token": {"softness": 0}}, r"softness"),
        ({"base": "custom", "token": "likelihood"}, r"method\.sequences is missing; a method of base 'custom'"),
    ],
)
def test_what_does_not_fit_together_is_refused(method: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        loaded(method)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"base": "mgrs"}, "mgsr"),
        ({"base": "mgsr", "revision": {"detector": "kld-argmx"}}, "kld-argmax"),
        ({"base": "mgsr", "revision": {"detector": "heuristics"}}, "heuristic"),
        ({"base": "mgsr", "revision": {"detector": {"kind": "heuristic", "loop_token": 3}}}, "loop_tokens"),
        ({"base": "mgsr", "revision": {"detector": {"kind": "random", "direction": "student-teacher"}}}, "direction"),
        ({"base": "mgsr", "revision": {"round": 2}}, "rounds"),
        ({"base": "mgsr", "token": {"clip": "mpl"}}, "mlp"),
        ({"base": "mgsr", "token": {"clip": "cnov"}}, "conv"),
        ({"base": "mgsr", "token": {"clip": {"kind": "conv", "chanels": 8}}}, "channels"),
        ({"base": "kd", "token": {"target": "nuceus"}}, "nucleus"),
        ({"base": "kd", "token": {"temperature": 2}}, "temperature_square_scaled"),
        ({"base": "mgsr", "token": {"divergence": "jsd"}}, "divergence"),
        ({"base": "mgsr", "token": {"clip": {"kind": "fixed", "learning_rate": 1}}}, "learning_rate"),
        ({"base": "mgsr", "span": {"extractor": "phrase"}}, "phrases"),
        ({"base": "mgsr", "weights": {"spans": 1}}, "span"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(method: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        loaded(method)


def test_a_revision_needs_a_teacher() -> None:
    method = {"base": "imitkd", "token": "likelihood", "revision": "scrg"}
    with pytest.raises(ConfigError, match=r"models\.teacher is missing"):
        loaded(method, teacher=None)
