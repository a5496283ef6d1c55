"""What a person sees while a run goes on: one live line in a terminal, a sober line now and then in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from limbeck.reporting.durations import duration

_PIPE_SECONDS = 30.0


class _Console(Console):
    """A console whose reader may go away (head, a closed connection) without ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Progress:
    """Prints steps, validations and notes of the main rank; silent on the others.

    Under `--quiet` (LIMBECK_QUIET) warnings alone are printed.
    """

    def __init__(self, *, steps: int, is_main: bool, stream: Any = None) -> None:
        self._console = _Console(file=stream or sys.stderr, highlight=False, soft_wrap=False)
        self._steps = steps
        self._is_main = is_main
        self._is_quiet = os.environ.get("LIMBECK_QUIET", "0") not in ("", "0")
        self._first: tuple[float, int] | None = None
        self._printed = 0.0

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._is_main and (text.startswith("warning") or not self._is_quiet):
            self._clear()
            self._console.print(Text(text), soft_wrap=True)

    def step(self, row: Mapping[str, Any]) -> None:
        """A step was taken."""
        if not self._is_main or self._is_quiet:
            return
        now, step = time.monotonic(), int(row["step"])
        if self._first is None:
            self._first = (now - float(row["time"]["seconds"]), step - 1)
        left = (now - self._first[0]) / max(1, step - self._first[1]) * (self._steps - step)
        parts = _parts(row, steps=self._steps, seconds_left=left)
        line = "".join(parts)
        if self._console.is_terminal:
            width = self._console.width - 1
            self._write("\r" + _fitting(parts, width).ljust(width))
        elif now - self._printed >= _PIPE_SECONDS or step in (1, self._steps):
            self._printed = now
            self._console.print(Text(line), soft_wrap=True)

    def validation(self, row: Mapping[str, Any]) -> None:
        """A validation was done."""
        parts = [f"validation at step {row['step']}: loss {row['loss']:.4f}"]
        parts.append(f"cross-entropy {row['cross_entropy']:.4f}")
        if "rouge_l" in row:
            parts.append(f"ROUGE-L {100 * row['rouge_l']:.2f}")
        self.note(", ".join(parts) + (" (best so far, kept)" if row["is_best"] else ""))

    def _clear(self) -> None:
        if self._console.is_terminal:
            self._write("\r" + " " * (self._console.width - 1) + "\r")

    def _write(self, text: str) -> None:
        # A terminal that is gone (EIO) is a reader that went away too.
        with contextlib.suppress(OSError):
            self._console.file.write(text)
            self._console.file.flush()


def _parts(row: Mapping[str, Any], *, steps: int, seconds_left: float) -> list[str]:
    """What a line is put together from; each part but the first begins with its distance from the one before."""
    drawn = 1.0 - sum(row["origin"].get(writer, 0.0) for writer in ("reference", "teacher"))
    terms = [f" {name} {value:.4f}" for name, value in row["terms"].items()]
    return [
        f"step {row['step']}/{steps}",
        f"  {duration(seconds_left)} left ",
        *terms,
        f"  {row['time']['tokens_per_second']:.0f} tokens/s",
        f"  {drawn:.0%} drawn",
    ]


def _fitting(parts: Sequence[str], width: int) -> str:
    """As many parts as have room, from the left: half a number would be another number.

    >>> _fitting(["step 7/9", "  3 s left ", " token 0.1234"], 25)
    'step 7/9  3 s left '
    """
    line = parts[0][:width]
    for part in parts[1:]:
        if len(line) + len(part) > width:
            break
        line += part
    return line
