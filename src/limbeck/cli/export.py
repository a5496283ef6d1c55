"""`limbeck export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_runs
from limbeck.cli.terminal import say


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", autocompletion=complete_runs)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; it must not hold anything.")],
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="All weights with LoRA's in them, or the adapter alone.")
    ] = True,
    licence: Annotated[str | None, typer.Option(help="The student's licence, for its card: apache-2.0")] = None,
) -> None:
    """Write a run's student as a plain model folder with its card."""
    from limbeck.publishing import conversion_command
    from limbeck.publishing import export as write_folder

    folder = write_folder(run, out, merge=merge, licence=licence)
    typer.echo(f"model: {folder}")
    if merge:
        say(f"for llama.cpp, in its checkout: {conversion_command(folder.absolute())}")
