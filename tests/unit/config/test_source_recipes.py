"""Recipes of teacher-written and replayed responses: what they may say, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher, needs_teacher, only_fixed, student_draws
from limbeck.errors import ConfigError, UnknownName
from limbeck.losses import ForwardKL, Likelihood, Match, SkewForwardKL, SkewReverseKL
from limbeck.methods import METHODS, PRESETS, Method, from_config, to_config
from limbeck.sequences import Adaptive, Constant, Fixed, Linear, Mixture, Replay, Student, TeacherWritten

MINE = [
    "seqkd",
    "seqkd:kl",
    "imitkd:buffered",
    "gkd:buffered",
    "distillm",
    "distillm:small",
    "distillm:gpt2-base",
    "distillm:openllama",
    "mgsr:off-policy",
]


def loaded(method: dict[str, Any], *overrides: str, teacher: str | None = "big") -> Method:
    models = {"student": "small", **({"teacher": teacher} if teacher else {})}
    recipe = {"method": method, "models": models, "data": {"corpus": "starter"}, "run": "runs/x"}
    return Recipe.load(recipe, list(overrides)).built_method()


def test_the_records_of_the_methods() -> None:
    assert METHODS["seqkd"]() == Method(sequences=TeacherWritten(1.0, 1.0, 0, None), token=Likelihood())
    adaptive = Adaptive(initial=0.0, increase=0.1, rise=0.1, check_every=None)
    replay = Replay(Student(), adaptive, capacity=1000, fresh="decreasing", replay_on_mixed=False)
    assert METHODS["distillm"]() == Method(sequences=replay, token=Match(SkewReverseKL(0.1)))
    assert PRESETS["distillm:gpt2-base"]().token == Match(SkewForwardKL(0.1))
    assert PRESETS["distillm:small"]().sequences == Replay(schedule=Adaptive(initial=0.5))
    assert PRESETS["distillm:openllama"]().sequences == Replay(schedule=Adaptive(initial=0.2, rise=0.2))
    assert PRESETS["imitkd:buffered"]().sequences == Replay(schedule=Constant(1.0), replay_on_mixed=True)
    assert PRESETS["gkd:buffered"]().sequences == Replay(schedule=Constant(0.5), replay_on_mixed=True)
    assert PRESETS["seqkd:kl"]().token == Match(ForwardKL())
    off, on = PRESETS["mgsr:off-policy"](), METHODS["mgsr"]()
    assert (off.sequences, off.revision, off.token, off.span, off.weights) == (
        Replay(),
        on.revision,
        on.token,
        on.span,
        on.weights,
    )


@pytest.mark.parametrize("name", MINE)
def test_a_recorded_method_is_read_back(name: str) -> None:
    plain = to_config(PRESETS[name]())
    assert from_config({"base": name, **plain}, allow_import=False) == PRESETS[name]()


def test_parts_change_one_field_at_a_time() -> None:
    method = loaded(
        {"base": "mgsr:off-policy", "sequences": {"schedule": {"initial": 0.3, "check_every": 5}}},
        "method.sequences.fresh=increasing",
        "method.sequences.source.horizon=8",
    )
    assert method.sequences == Replay(
        source=Student(horizon=8), schedule=Adaptive(initial=0.3, check_every=5), fresh="increasing"
    )
    method = loaded({"base": "distillm"}, "method.sequences.schedule={kind: linear, last: 0.5}")
    assert method.sequences == Replay(schedule=Linear(last=0.5))
    method = loaded({"base": "gkd", "sequences": {"second": {"kind": "teacher", "temperature": 0.7}}})
    assert method.sequences == Mixture(Student(), TeacherWritten(temperature=0.7), 0.5)


def test_who_asks_the_teacher_and_who_draws() -> None:
    found = {
        name: (needs_teacher(method), matches_teacher(method), student_draws(method.sequences))
        for name, method in (
            (name, PRESETS[name]()) for name in ("sft", "kd", "seqkd", "seqkd:kl", "distillm", "gkd", "minillm")
        )
    }
    assert found == {
        "sft": (False, False, False),
        "kd": (True, True, False),
        "seqkd": (True, False, False),
        "seqkd:kl": (True, True, False),
        "distillm": (True, True, True),
        "gkd": (True, True, True),
        "minillm": (True, True, True),
    }
    assert only_fixed(Mixture(Fixed(), Fixed()))
    assert not only_fixed(TeacherWritten())
    assert not only_fixed(Replay())


@pytest.mark.parametrize(
    ("method", "overrides", "says"),
    [
        ({"base": "distillm", "sequences": {"capacity": 31}}, [], "capacity is 31, less than the 32 rows"),
        ({"base": "distillm"}, ["train.batch_rows=1001"], "capacity is 1000, less than the 1001 rows"),
        ({"base": "distillm", "sequences": {"schedule": {"rise": -0.1}}}, [], "rise"),
        ({"base": "distillm", "sequences": {"schedule": {"initial": 2}}}, [], "initial"),
        ({"base": "distillm", "sequences": {"capacity": 0}}, [], "capacity"),
        ({"base": "distillm"}, ["validate.every=null"], "follows the validation loss, but validate.every is null"),
        ({"base": "distillm", "sequences": {"source": "fixed"}}, [], "only responses that the student draws"),
        ({"base": "distillm", "sequences": {"source": "teacher"}}, [], "source"),
        ({"base": "gkd:buffered", "sequences": {"fresh": "constant"}}, [], "replay_on_mixed never reads"),
        ({"base": "gkd", "sequences": {"first": "replay"}}, [], "which the mixture around it has tossed already"),
        ({"base": "gkd", "sequences": {"second": "mixture"}}, [], "which the mixture around it has tossed already"),
        ({"base": "seqkd", "revision": "scrg"}, [], "but seqkd learns from the teacher's responses only"),
        ({"base": "seqkd"}, ["watch.rows=3"], "watch.rows is 3, which nothing reads"),
        ({"base": "seqkd"}, ["data.train_on=all"], "data.train_on is 'all'"),
        ({"base": "seqkd"}, ["sampling.temperature=0.7", "validate.metric=loss"], "sampling.temperature is 0.7"),
        ({"base": "seqkd", "sequences": {"top_p": 0}}, [], "top_p"),
        ({"base": "seqkd", "sequences": {"cache": ""}}, [], "cache"),
    ],
)
def test_what_does_not_fit_is_refused(method: dict[str, Any], overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        loaded(method, *overrides)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"base": "distilm"}, "distillm"),
        ({"base": "distillm", "sequences": {"shedule": "constant"}}, "schedule"),
        ({"base": "distillm", "sequences": {"schedule": "adaptiv"}}, "adaptive"),
        ({"base": "distillm", "sequences": {"schedule": {"kind": "constant", "initial": 1}}}, "initial"),
        ({"base": "seqkd", "sequences": {"cach": "x"}}, "cache"),
        ({"base": "kd", "sequences": "teachers"}, "teacher"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(method: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        loaded(method)


def test_a_schedule_that_never_looks_needs_no_validation() -> None:
    loaded({"base": "gkd:buffered"}, "validate.every=null")


@pytest.mark.parametrize("base", ["seqkd", "distillm"])
def test_they_need_a_teacher(base: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.teacher is missing"):
        loaded({"base": base}, teacher=None)


@pytest.mark.parametrize(
    "method",
    [
        {"base": "imitkd", "sequences": {"kind": "best-of"}, "token": {"kind": "likelihood"}},
        {"base": "gkd", "sequences": {"first": {"kind": "best-of"}}, "token": {"kind": "likelihood"}},
        {"base": "distillm", "sequences": {"source": {"kind": "best-of"}}, "token": {"kind": "likelihood"}},
    ],
)
def test_a_part_of_the_source_that_asks_the_teacher_makes_the_method_ask_it(method: dict[str, Any]) -> None:
    assert matches_teacher(loaded(method))
    with pytest.raises(ConfigError, match=r"models\.teacher is missing"):
        loaded(method, teacher=None)
