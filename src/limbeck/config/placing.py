"""Whether the keys that say how the teacher is held would be read, and go together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.config.reading import scalar
from limbeck.config.sections import ModelsSection, TrainSection

PLACING: dict[str, Any] = {
    "teacher_dtype": "auto",
    "teacher_device": "auto",
    "teacher_bits": None,
    "teacher_offload": False,
    "teacher_is_base": False,
}
"""Keys of `models` about the teacher's weights, with their defaults."""
_OF_TEXT = ("teacher_offload", "teacher_is_base")


def unread_placing(models: ModelsSection, why: str, keys: Sequence[str] = tuple(PLACING)) -> list[tuple[str, str]]:
    """The first of the keys that is set although nothing reads it, and the error. A default counts as not set."""
    for key in keys:
        value = getattr(models, key)
        if value != PLACING[key]:
            shown = f"'{value}'" if isinstance(value, str) else scalar(value)
            return [(f"models.{key}", f"models.{key} is {shown}, which nothing reads: {why}; delete it")]
    return []


def unfit_placing(
    models: ModelsSection, train: TrainSection, *, reads_teacher: bool, base: str
) -> list[tuple[str, str]]:
    """The key and the error of a teacher that cannot be held as the recipe says; none where no teacher is named."""
    if models.teacher is None:
        return []
    if not reads_teacher:
        return unread_placing(models, f"the teacher of {base} only writes text, and is let go afterwards", _OF_TEXT)
    if models.teacher_is_base:
        return _unfit_base(models, train)
    if models.teacher_offload and models.teacher_bits is not None:
        message = f"models.teacher_offload is true and models.teacher_bits {models.teacher_bits}: weights of few bits"
        return [("models.teacher_offload", f"{message} stay where they were loaded; delete one of the two")]
    return []


def _unfit_base(models: ModelsSection, train: TrainSection) -> list[tuple[str, str]]:
    key, said = "models.teacher_is_base", "models.teacher_is_base is true"
    if models.lora is None:
        message = f"{said}, but models.lora is null: training all weights would change the teacher with the student"
        return [(key, f"{message}.\n  Set models.lora, e.g. {{rank: 16}}, or set models.teacher_is_base to false")]
    if Path(str(models.teacher)).expanduser() != Path(models.student).expanduser():
        message = f"{said}, but models.teacher is '{models.teacher}' and models.student '{models.student}'"
        return [
            (key, f"{message}: one set of weights cannot be both.\n  Name the same model in both, or set it to false")
        ]
    if train.strategy == "fsdp":
        message = f"{said}, but train.strategy is fsdp: a sharded student cannot be read as a teacher by one rank alone"
        return [(key, f"{message}; set train.strategy to ddp, or models.teacher_is_base to false")]
    others = [name for name in PLACING if name != "teacher_is_base"]
    return unread_placing(models, "the teacher is the student's own base, held as the student is", others)
