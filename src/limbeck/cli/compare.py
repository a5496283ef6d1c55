"""`limbeck compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_runs
from limbeck.cli.terminal import print_json, width


def compare(
    one: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", autocompletion=complete_runs)],
    other: Annotated[Path, typer.Argument(help="The folder of another.", metavar="RUN", autocompletion=complete_runs)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where two runs differ: recipe, environment, and the first step whose metrics do.

    Exit code 0: metrics are the same as far as both went, times aside; 1: they differ.
    """
    from limbeck.inspection import compare as compare_runs

    found = compare_runs(one, other)
    if as_json:
        print_json(found.values())
    else:
        typer.echo(found.text(width()), nl=False)
    raise typer.Exit(0 if found.first is None else 1)
