"""Which thresholds of the `watch` section a method's run would ever read."""

from __future__ import annotations

import dataclasses
from typing import Any

from limbeck.config.sections import THRESHOLDS, ValidateSection, WatchSection


def unread_thresholds(
    watch: WatchSection, *, method: Any, validate: ValidateSection, writer: str | None, base: str
) -> list[tuple[str, str]]:
    """The key and the error of each threshold that was set though nothing produces what it is compared with.

    `writer`: who writes every response where the student writes none alone; None where it does. A key at its default
    counts as not set.
    """
    missing = _missing(method, validate=validate, writer=writer)
    standard = WatchSection()
    return [
        (f"watch.{key}", f"watch.{key} is {value}, which nothing reads: {why.format(base=base)}; delete it")
        for key, why in missing.items()
        if (value := _shown(getattr(watch, key))) != _shown(getattr(standard, key))
    ]


def _missing(method: Any, *, validate: ValidateSection, writer: str | None) -> dict[str, str]:
    """What is not there to be watched, by threshold."""
    from limbeck.losses import DACKL

    objective = method.objective()
    terms = {**objective.terms, **objective.pair_terms}
    # The supervised term's pass is of the references, never of what was drawn.
    reads_teacher = bool(objective.pair_terms) or any(term.needs_teacher for term in objective.terms.values())
    found: dict[str, str] = {}
    if method.revision is None:
        found["revision_harm"] = "{base} revises nothing"
    elif not reads_teacher:
        found["revision_harm"] = "no term of {base} reads the teacher on what is revised"
    if not any(isinstance(term, DACKL) for term in terms.values()):
        found |= dict.fromkeys(("clip_collapsed", "clip_unstable"), "{base} has no clip")
    if not objective.pair_terms:
        found["span_dominates"] = "{base} has no span term"
    elif len(terms) == 1:
        found["span_dominates"] = "the span term of {base} is its only one"
    if writer is not None:
        own = ("repetition", "length_drift", "length_mismatch")
        found |= dict.fromkeys(own, f"{{base}} learns from {writer} responses only")
    if not reads_teacher:
        found["teacher_no_better"] = "no term of {base} reads a teacher"
    elif validate.every is None:
        found["teacher_no_better"] = "validate.every is null, so that the teacher is never validated"
    if not _replays(method.sequences):
        found["stale_replay"] = "{base} replays nothing"
    assert set(found) <= set(THRESHOLDS), "every threshold is a key of the watch section"
    return found


def _replays(source: Any) -> bool:
    """Whether rows of earlier steps are learned from again."""
    from limbeck.sequences import Replay

    if isinstance(source, Replay):
        return True
    parts = dataclasses.fields(source) if dataclasses.is_dataclass(source) else ()
    return any(_replays(getattr(source, part.name)) for part in parts)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
