"""What verbs print with: the terminal's width, JSON, and colour where a person wants to see it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import typer

QUIET = "LIMBECK_QUIET"
"""The environment variable that `--quiet` sets: no progress and no notes, only results, warnings and errors."""

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
