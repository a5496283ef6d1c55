"""Thresholds of failure signatures in a recipe: what may be set, and what nothing would read."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from limbeck.config import Recipe, WatchSection, resumable_difference
from limbeck.config.sections import THRESHOLDS
from limbeck.errors import ConfigError

FIXED = {"base": "mgsr", "sequences": "fixed", "revision": None}


def _loaded(method: Any, *overrides: str, teacher: str | None = "big") -> Recipe:
    method = method if isinstance(method, dict) else {"base": method}
    models = {"student": "small", **({"teacher": teacher} if teacher else {})}
    return Recipe.load({"method": method, "models": models, "data": {"corpus": "starter"}}, list(overrides))


@pytest.mark.parametrize(
    ("method", "override", "says"),
    [
        ("gkd", "revision_harm=0.5", "watch.revision_harm is 0.5, which nothing reads: gkd revises nothing; delete it"),
        ("gkd", "revision_harm=null", "watch.revision_harm is null, which nothing reads"),
        ({"base": "imitkd", "token": "likelihood", "revision": "scrg"}, "revision_harm=0.5", "no term of imitkd reads"),
        ("gkd", "clip_collapsed=0.5", "watch.clip_collapsed is 0.5, which nothing reads: gkd has no clip"),
        ("gkd", "clip_unstable=0.5", "gkd has no clip"),
        ({"base": "mgsr", "weights": {"token": 0}}, "clip_collapsed=0.5", "mgsr has no clip"),
        ("gkd", "span_dominates=0.5", "gkd has no span term"),
        ({"base": "mgsr", "span": None}, "span_dominates=0.5", "mgsr has no span term"),
        ("kd", "repetition=0.25", "kd learns from the corpus's responses only"),
        ("seqkd", "repetition=0.25", "seqkd learns from the teacher's responses only"),
        ("minillm", "repetition=0.25", "minillm learns from the teacher's and student's common responses only"),
        (FIXED, "length_drift=3", "mgsr learns from the corpus's responses only"),
        ("sft", "teacher_no_better=1", "no term of sft reads a teacher"),
        ("gkd", "stale_replay=10", "gkd replays nothing"),
    ],
)
def test_a_threshold_for_what_never_happens_is_refused(method: Any, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded(method, f"watch.{override}", teacher=None if method == "sft" else "big")
    assert says in str(refused.value)
    assert str(refused.value).endswith(f"set on the command line: watch.{override}")
    assert refused.value.exit_code == 2


def test_a_teacher_that_is_never_validated_is_not_watched() -> None:
    with pytest.raises(ConfigError, match=r"validate\.every is null, so that the teacher is never validated"):
        _loaded("kd", "watch.teacher_no_better=1", "validate.every=null")


@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("sft", {"counts_nothing"}),
        ("kd", {"counts_nothing", "teacher_no_better"}),
        ("gkd", {"counts_nothing", "teacher_no_better", "repetition", "length_drift", "length_mismatch"}),
        (FIXED, {"counts_nothing", "teacher_no_better", "clip_collapsed", "clip_unstable", "span_dominates"}),
        ("mgsr", set(THRESHOLDS) - {"stale_replay"}),
        ("mgsr:off-policy", set(THRESHOLDS)),
        ("seqkd", {"counts_nothing"}),
        ("minillm", {"counts_nothing", "teacher_no_better"}),
    ],
)
def test_exactly_what_a_method_produces_may_be_set(method: Any, read: set[str]) -> None:
    other = {"counts_nothing": "5", "length_drift": "3", "length_mismatch": "3"}
    taken = set()
    for key in THRESHOLDS:
        with contextlib.suppress(ConfigError):
            override = f"watch.{key}={other.get(key, '0.25')}"
            recipe = _loaded(method, override, teacher=None if method == "sft" else "big")
            assert Recipe.load(recipe) == recipe
            taken.add(key)
    assert taken == read


@pytest.mark.parametrize("method", ["sft", "gkd"])
def test_a_key_at_its_default_counts_as_not_set(method: str) -> None:
    standard = [f"watch.{key}={getattr(WatchSection(), key)}" for key in THRESHOLDS]
    assert _loaded(method, *standard, teacher=None if method == "sft" else "big").watch == WatchSection()


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("span_dominates=1.5", "null, or a number between 0 and 1"),
        ("repetition=0", "null, or a number between 0 and 1"),
        ("length_drift=1", "null, or a number above 1"),
        ("teacher_no_better=.nan", "null, or a number"),
        ("counts_nothing=0", "null, or a whole number of at least 1"),
        ("revision_harm=-1", "null, or a number of at least 0"),
        ("stale_replay=0", "null, or a number above 0"),
        ("clip_collapsed=high", "null, or a number between 0 and 1"),
    ],
)
def test_what_a_threshold_may_be(override: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded("mgsr", f"watch.{override}")
    assert f"; allowed: {allowed}\n" in str(refused.value)


def test_thresholds_may_change_on_resume() -> None:
    old, new = _loaded("mgsr"), _loaded("mgsr", "watch.span_dominates=0.5", "watch.repetition=null")
    assert resumable_difference(old, new) == []
