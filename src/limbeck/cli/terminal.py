"""What verbs print with: the terminal's width, JSON, and colour where a person wants to see it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from limbeck.reporting.layout import broken_at_spaces

QUIET = "LIMBECK_QUIET"
"""The environment variable that `--quiet` sets: no progress and no notes, only results, warnings and errors."""

# Columns from which on help is laid out as ever.
_ROOMY = 60
_STYLES = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}


def width() -> int:
    """Columns of the terminal, 80 in a pipe."""
    return shutil.get_terminal_size((80, 24)).columns


def has_colour() -> bool:
    """Whether output may be coloured: in a terminal, unless NO_COLOR is set to anything (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def is_quiet() -> bool:
    """Whether only results, warnings and errors are wanted."""
    return os.environ.get(QUIET, "0") not in ("", "0")


def say(text: str) -> None:
    """A note beside a result: left out where that is wanted."""
    if not is_quiet():
        typer.echo(text)


def progress(text: str) -> None:
    """What is going on, on standard error; under `--quiet` warnings alone. Nobody need be there to read it."""
    if text.startswith("warning") or not is_quiet():
        with contextlib.suppress(OSError):
            typer.echo(text, err=True)


def show(lines: Iterable[str]) -> None:
    """Lines of a result, each broken to the width where somebody looks or `COLUMNS` is set; whole in a pipe."""
    for line in lines:
        typer.echo(fitted(line) if has_width(sys.stdout) else line)


def has_width(stream: Any) -> bool:
    """Whether lines that go there have a width to fit: in a terminal, or where `COLUMNS` says so."""
    return stream.isatty() or os.environ.get("COLUMNS", "").isdigit()


def fitted(text: str, *, columns: int | None = None) -> str:
    """The text with lines of at most `columns` (default: the terminal's), continued two columns further in.

    Lines break at spaces alone: a number, a path or an option that is longer than a line stays whole.

    >>> print(fitted("kd round 1: stop 61.0 ±4.9 %, test 58.5 ±5.0 %", columns=24))
    kd round 1: stop 61.0
      ±4.9 %, test 58.5 ±5.0
      %
    """
    return broken_at_spaces(text, width=width() if columns is None else columns)


@contextlib.contextmanager
def narrow_help(command: Any, *, columns: int) -> Iterator[None]:
    """Give option names a third of a narrow window, in which they would otherwise take 30 columns."""
    context = command.context_class
    whole = context.__dict__.get("formatter_class", context.formatter_class)

    def made(**sizes: Any) -> Any:
        formatter = whole(**sizes)
        formatter.write_dl = functools.partial(formatter.write_dl, col_max=columns // 3)
        return formatter

    if columns >= _ROOMY:
        yield
        return
    context.formatter_class = staticmethod(made)
    try:
        yield
    finally:
        context.formatter_class = whole


def print_json(values: Any) -> None:
    """One JSON value, indented; what is not a number becomes null."""
    typer.echo(json.dumps(_finite(values), ensure_ascii=False, indent=2))


def print_marked(text: str) -> None:
    """Text whose lines may begin with a severity, which is coloured where that is wanted."""
    for line in text.splitlines():
        word = line.split(" ", 1)[0]
        if word in _STYLES and has_colour():
            line = typer.style(word, fg=_STYLES[word], bold=True) + line[len(word) :]
        typer.echo(line)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value
