"""The cache section is refused where nothing would read it, or where it cannot hold what is asked."""

from __future__ import annotations

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError


def _loaded(base: str, *overrides: str, teacher: str | None = "big") -> Recipe:
    models = {"student": "small", **({"teacher": teacher} if teacher else {})}
    return Recipe.load({"method": {"base": base}, "models": models}, overrides)


def test_off_is_the_default() -> None:
    assert _loaded("kd").cache.kind == "off"


@pytest.mark.parametrize("base", ["kd", "gkd", "seqkd:kl", "minillm", "distillm", "mgsr", "mgsr:off-policy"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_rows_that_come_again_may_be_kept(base: str, kind: str) -> None:
    recipe = _loaded(base, f"cache.kind={kind}", "cache.max_gb=0.5", "train.epochs=2")
    assert (recipe.cache.kind, recipe.cache.max_gb) == (kind, 0.5)


def test_an_offline_cache_takes_the_place_of_the_teacher() -> None:
    recipe = _loaded("kd", "cache.kind=offline", "cache.path=here", teacher=None)
    assert (recipe.cache.path, recipe.models.teacher) == ("here", None)


@pytest.mark.parametrize(
    ("base", "overrides", "says"),
    [
        ("kd", ["cache.kind=memory"], "train.epochs is 1: each row is read once"),
        ("imitkd", ["cache.kind=memory", "train.epochs=2"], "drawn anew and read once"),
        ("seqkd", ["cache.kind=disk", "train.epochs=2"], "never reads a teacher's distributions"),
        ("kd", ["cache.max_gb=2"], "cache.max_gb is 2, which only cache.kind: memory and disk read"),
        ("kd", ["cache.path=x"], "which only cache.kind: offline reads"),
        ("kd", ["cache.kind=offline"], "cache.path is missing"),
        ("kd", ["cache.kind=offline", "cache.path=x", "cache.max_gb=2"], "cache.max_gb is 2"),
        ("gkd", ["cache.kind=offline", "cache.path=x"], "responses that are not in the corpus"),
        ("mgsr", ["cache.kind=offline", "cache.path=x"], "responses that are not in the corpus"),
        ("seqkd:kl", ["cache.kind=offline", "cache.path=x"], "responses that are not in the corpus"),
        ("kd", ["cache.kind=offline", "cache.path=x", "models.teacher_dtype=bf16"], "teacher_dtype is 'bf16'"),
        ("kd", ["cache.kind=ram"], "cache.kind is 'ram'; allowed: off, memory, disk, offline"),
        ("kd", ["cache.kind=memory", "cache.max_gb=0"], "cache.max_gb is 0"),
    ],
)
def test_what_nothing_would_read_is_refused(base: str, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded(base, *overrides)
    assert says in str(refused.value)
    assert "set on the command line" in str(refused.value) or "set at" in str(refused.value)
