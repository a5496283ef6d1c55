"""A study's result as Markdown, plain text, LaTeX, CSV or HTML. No torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError, UnknownName
from limbeck.reporting.page import render_page
from limbeck.reporting.tables import Table
from limbeck.studies.builtin import INJECTED_ERRORS
from limbeck.studies.detections import Detections
from limbeck.studies.study_page import study_page
from limbeck.studies.tables import result_of
from limbeck.studies.verdicts import Verdict


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What is printed: headings with tables, and what was judged."""

    title: str
    tables: tuple[tuple[str, Table], ...]
    verdicts: tuple[Verdict, ...]


FORMATS = ("markdown", "text", "latex", "csv", "html")


def check_format(name: str, known: Sequence[str] = FORMATS) -> None:
    """Raises `UnknownName` for a format that there is not."""
    if name not in known:
        raise UnknownName.among("format", name, known, "--format")


def check_against(study: str, arm: str) -> None:
    """Raises `ConfigError` for a study whose table has no arm that others are compared with."""
    if study == INJECTED_ERRORS and arm:
        raise ConfigError("injected-errors compares detectors, and has no arm that others are compared with")


def printed(rows: Path, study: str, *, format: str = "markdown", against: str = "") -> str:
    """The tables and verdicts of a study from its rows alone, with differences from its baseline or from the arm
    `against`. Raises `DataError` and `UnknownName`."""
    check_format(format)
    result = _shown(rows, study, against=against)
    if format == "html" and study == INJECTED_ERRORS:
        return "\n".join(f"<h2>{title}</h2>\n{table.html()}" for title, table in result.tables)
    if format == "html":
        return render_page(study_page(rows, study, against=against))
    if format == "csv":
        return "\n".join(table.csv() for _, table in result.tables)
    if format == "latex":
        return "\n".join(f"% {title}\n{table.latex()}" for title, table in result.tables) + _lines(result, "% ")
    if format == "text":
        width = shutil.get_terminal_size((120, 24)).columns
        return "\n\n".join(f"{title}\n{table.text(width=width)}" for title, table in result.tables) + _lines(result, "")
    return "\n".join(f"## {title}\n\n{table.markdown()}" for title, table in result.tables) + _lines(result, "- ")


def result_values(rows: Path, study: str, *, against: str = "") -> dict[str, Any]:
    """The same as plain values, for JSON: tables by title, and verdicts with what they are due to."""
    result = _shown(rows, study, against=against)
    return {
        "title": result.title,
        "tables": {title: table.values() for title, table in result.tables},
        "verdicts": [
            {"claim": each.claim, "judgement": each.judgement, "compared": [one.text() for one in each.compared]}
            for each in result.verdicts
        ],
    }


def _shown(rows: Path, study: str, *, against: str) -> _Shown:
    check_against(study, against)
    if study == INJECTED_ERRORS:
        found = Detections.read(rows / study)
        return _Shown(title="Injected errors", tables=found.tables(), verdicts=())
    result = result_of(rows, study, against=against)
    return _Shown(title=result.title, tables=result.tables, verdicts=result.verdicts)


def _lines(result: _Shown, before: str) -> str:
    return "".join(f"\n{before}{verdict.text()}" for verdict in result.verdicts) + ("\n" if result.verdicts else "")
