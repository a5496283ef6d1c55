"""Whether the `cache` section of a recipe would keep anything that is asked for again."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from limbeck.config.placing import unread_placing
from limbeck.config.sections import CacheSection, ModelsSection, TrainSection, ValidateSection


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a method asks the teacher: whether for distributions at all, and the sources that its own is made of."""

    method: Any
    reads_teacher: bool
    leaves: list[Any]
    base: str

    def repeats(self) -> Literal["every", "some", "none"]:
        """Which rows come again with the same tokens: fixed and written ones, replayed and collected ones."""
        from limbeck.sequences import Collecting, Fixed, Replay, TeacherWritten

        lasting = [isinstance(part, Fixed | TeacherWritten) for part in self.leaves]
        if all(lasting):
            return "every"
        return "some" if any(lasting) or isinstance(self.method.sequences, Replay | Collecting) else "none"


_WAY_OUT = "set cache.kind to off"


def unread_cache(
    cache: CacheSection,
    asked: Asked,
    *,
    models: ModelsSection,
    train: TrainSection,
    validate: ValidateSection,
) -> list[tuple[str, str]]:
    """The key and the error of a cache that nothing would read, or that cannot hold what the method asks the teacher.

    A key at its default counts as not set.
    """
    found = _unread_keys(cache)
    if found or cache.kind == "off":
        return found
    key, said, base = "cache.kind", f"cache.kind is {cache.kind}", asked.base
    if not asked.reads_teacher:
        return [(key, f"{said}, but {base} never reads a teacher's distributions; {_WAY_OUT}")]
    if cache.kind == "offline":
        return _offline(cache, models=models, method=asked.method, base=base)
    repeats = asked.repeats()
    if repeats == "none":
        return [(key, f"{said}, but every response of {base} is drawn anew and read once; {_WAY_OUT}")]
    is_read_once = train.steps is None and train.epochs == 1 and validate.every in (None, "epoch")
    if repeats == "every" and is_read_once:
        return [(key, f"{said}, but train.epochs is 1: each row is read once; {_WAY_OUT}, or raise train.epochs")]
    return []


def _unread_keys(cache: CacheSection) -> list[tuple[str, str]]:
    standard = CacheSection()
    if cache.path is not None and cache.kind != "offline":
        message = f"cache.path is '{cache.path}', which only cache.kind: offline reads, but it is {cache.kind}"
        return [("cache.path", f"{message}; delete it, or set cache.kind to offline")]
    if cache.max_gb != standard.max_gb and cache.kind not in ("memory", "disk"):
        message = f"cache.max_gb is {cache.max_gb:g}, which only cache.kind: memory and disk read"
        return [("cache.max_gb", f"{message}; delete it, or set cache.kind")]
    return []


def _offline(cache: CacheSection, *, models: ModelsSection, method: Any, base: str) -> list[tuple[str, str]]:
    if cache.path is None:
        message = "cache.kind is offline, but cache.path is missing; name the folder of a cache"
        return [("cache.path", f"{message}, made by: limbeck cache build RECIPE --out DIR")]
    from limbeck.sequences import Fixed

    if method.revision is not None or not isinstance(method.sequences, Fixed):
        message = f"cache.kind is offline, but {base} asks the teacher about responses that are not in the corpus"
        return [("cache.kind", f"{message}.\n  An offline cache goes with method.sequences: fixed (kd); {_WAY_OUT}")]
    return unread_placing(models, f"the teacher was read into {cache.path}")
