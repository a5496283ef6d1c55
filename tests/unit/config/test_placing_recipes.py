"""Where the teacher's weights are: what goes together, and what nothing would read."""

from __future__ import annotations

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError

BASE = ["models.teacher=Y", "models.lora={rank: 2}", "models.teacher_is_base=true"]


def _loaded(base: str, *overrides: str) -> Recipe:
    models = {"student": "Y"} if base == "sft" else {"student": "Y", "teacher": "X"}
    return Recipe.load({"method": {"base": base}, "models": models, "data": {"corpus": "dolly"}}, list(overrides))


@pytest.mark.parametrize(
    ("base", "overrides"),
    [
        ("kd", ["models.teacher_bits=8"]),
        ("seqkd", ["models.teacher_bits=4"]),
        ("mgsr", ["models.teacher_offload=true", "cache.kind=off"]),
        ("gkd", BASE),
    ],
)
def test_what_is_taken(base: str, overrides: list[str]) -> None:
    whole = _loaded(base, *overrides)
    assert Recipe.load(whole.values()) == whole


@pytest.mark.parametrize(
    ("base", "overrides", "says"),
    [
        ("kd", ["models.teacher_bits=2"], "models.teacher_bits is 2; allowed: null, 8 or 4"),
        ("kd", ["models.teacher_bits=8", "models.teacher_offload=true"], "delete one of the two"),
        ("sft", ["models.teacher_bits=8"], "models.teacher_bits is 8, which nothing reads: there is no teacher"),
        ("sft", ["models.teacher_offload=true"], "models.teacher_offload is true, which nothing reads"),
        ("seqkd", ["models.teacher_offload=true"], "the teacher of seqkd only writes text"),
        ("seqkd", [*BASE], "models.teacher_is_base is true, which nothing reads"),
        ("gkd", ["models.teacher=Y", "models.teacher_is_base=true"], "models.lora is null: training all weights"),
        ("gkd", [*BASE, "models.teacher=X"], "models.teacher is 'X' and models.student 'Y'"),
        ("gkd", [*BASE, "train.strategy=fsdp"], "but train.strategy is fsdp"),
        ("gkd", [*BASE, "models.teacher_dtype=bf16"], "models.teacher_dtype is 'bf16', which nothing reads"),
        ("gkd", [*BASE, "models.teacher_offload=true"], "models.teacher_offload is true, which nothing reads"),
        (
            "kd",
            ["cache.kind=offline", "cache.path=x", "models.teacher_bits=8"],
            "teacher_bits is 8, which nothing reads: the teacher was read into x",
        ),
    ],
)
def test_what_contradicts_or_is_unread_is_refused(base: str, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _loaded(base, *overrides)
    assert says in str(refused.value)
    assert "set on the command line" in str(refused.value)
