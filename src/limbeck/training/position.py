"""Where a run is, and when its next checkpoint is due."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run is; everything of it goes into a checkpoint. `consumed` counts rows over all ranks."""

    step: int = 0
    consumed: int = 0
    best: float | None = None
    best_step: int | None = None
    without_improvement: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields; `Position(**fields)` is the inverse."""
        return dict(vars(self))


@dataclass
class Clock:
    """When the next checkpoint is due: every so many minutes, or twenty times what the last write took."""

    minutes: float
    cost: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Whether it is time to write one."""
        return time.monotonic() - self.last >= max(60 * self.minutes, 20 * self.cost)

    def wrote(self, seconds: float) -> None:
        """One was written, in so many seconds."""
        self.cost, self.last = seconds, time.monotonic()
