"""What is looked at beside the loss, and when: each term's gradient, and signatures of a run that fails."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from limbeck.training.readings import Reading, Row
from limbeck.training.signatures import SIGNATURES

SIGN = "watch"
"""The kind of a sign's line in metrics.jsonl."""

_EARLY = frozenset({1, 2, 4, 8, 16, 32})


def is_watched(step: int, *, every: int) -> bool:
    """Whether each term's own gradient is taken at this step: at 1, 2, 4, 8, 16, 32 and every `every`.

    >>> [step for step in range(1, 101) if is_watched(step, every=50)]
    [1, 2, 4, 8, 16, 32, 50, 100]
    """
    return step in _EARLY or step % every == 0


def gradient_shares(norms: Mapping[str, float]) -> dict[str, float]:
    """Each term's part of the summed gradient norms with respect to the hidden states.

    >>> gradient_shares({"token": 3.0, "supervised": 1.0})
    {'token': 0.75, 'supervised': 0.25}
    """
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A signature that showed after a step: what was measured, the threshold, a sentence with both, and what to do."""

    name: str
    step: int
    value: float
    threshold: float
    message: str
    advice: str

    def row(self) -> dict[str, Any]:
        """The line for metrics.jsonl."""
        return {"kind": SIGN, "step": self.step, "name": self.name} | {
            key: getattr(self, key) for key in ("value", "threshold", "message", "advice")
        }


@dataclass(kw_only=True)
class Readings:
    """The first and the last readings of one rule: all that it needs to know of a run, however long."""

    name: str
    threshold: float
    first: list[Reading] = field(default_factory=list)
    last: deque[Reading] = field(default_factory=deque)

    def add(self, row: Row) -> bool:
        """Take a row in; whether it had something to read."""
        signature = SIGNATURES[self.name]
        reading = signature.read(row)
        if reading is None:
            return False
        size = signature.size(self.threshold)
        if len(self.first) < size:
            self.first.append(reading)
        self.last.append(reading)
        if len(self.last) > size:
            self.last.popleft()
        return True

    def judged(self, step: int) -> Sign | None:
        """The sign, if the rule fires on what has been read so far."""
        signature = SIGNATURES[self.name]
        if len(self.last) < signature.size(self.threshold):
            return None
        found = signature.judge(self.first, list(self.last))
        if found is None or not math.isfinite(found.value) or not signature.fires(found.value, self.threshold):
            return None
        sentence = signature.says.format(value=found.value, window=len(self.last), about=found.about)
        return Sign(
            name=self.name,
            step=step,
            value=found.value,
            threshold=self.threshold,
            message=f"{sentence}; watch.{signature.key} is {self.threshold:g}",
            advice=signature.advice,
        )


def sign_in(name: str, rows: Iterable[Row], *, threshold: float) -> Sign | None:
    """The sign that a rule sees at the last of these rows, if it has something to read there.

    >>> rows = [{"kind": "step", "step": 2**n, "gradient_shares": {"token": 0.05, "span": 0.95}} for n in range(3)]
    >>> sign_in("span-dominates", rows, threshold=0.8).value, sign_in("span-dominates", rows[:2], threshold=0.8)
    (0.95, None)
    """
    readings, is_read, step = Readings(name=name, threshold=threshold), False, 0
    for row in rows:
        is_read, step = readings.add(row), int(row.get("step", step))
    return readings.judged(step) if is_read else None


class Watch:
    """The rules of a run, by their thresholds in its recipe (`thresholds`: key to number, None = off).

    Each signature shows once a run and threshold. What a watch knows is a function of the rows of metrics.jsonl alone,
    so that a resumed run reads it back from there (`recall`) and a checkpoint holds nothing of it.
    """

    def __init__(self, thresholds: Mapping[str, float | None]) -> None:
        self._rules = [
            Readings(name=name, threshold=float(threshold))
            for name, signature in SIGNATURES.items()
            if (threshold := thresholds.get(signature.key)) is not None
        ]
        self._told: set[tuple[str, float]] = set()

    def look(self, row: Row) -> list[Sign]:
        """Take the row of a step or a validation in; the signatures that show after it for the first time."""
        signs = [
            sign
            for rule in self._rules
            if rule.add(row) and (rule.name, rule.threshold) not in self._told and (sign := rule.judged(row["step"]))
        ]
        self._told |= {(sign.name, sign.threshold) for sign in signs}
        return signs

    def recall(self, rows: Iterable[Row]) -> None:
        """Take the rows of a run that goes on in, signs included, and judge nothing: it was judged when it was new."""
        for row in rows:
            if row.get("kind") == SIGN:
                self._told.add((str(row["name"]), float(row["threshold"])))
            else:
                for rule in self._rules:
                    rule.add(row)
