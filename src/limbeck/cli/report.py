"""`limbeck report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_runs


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...", autocompletion=complete_runs)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about one or several runs."""
    from limbeck.reporting.runs import report as write_report

    typer.echo(f"page: {write_report(runs, out)}")
