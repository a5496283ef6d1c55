"""`limbeck doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_recipes
from limbeck.cli.terminal import print_json, print_marked, width


def doctor(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe file, or the folder of a run.", metavar="RECIPE", autocompletion=complete_recipes
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings on top of it: train.steps=100", metavar="KEY=VALUE")
    ] = None,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Only what needs no weights: seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find out what a recipe would run into, before it runs.

    Exit code 0: nothing in the way; 1: warnings; 2: errors, or a recipe that cannot be read.
    """
    from limbeck.preflight import doctor as examine

    diagnosis = examine(recipe, *(settings or []), weights=not no_weights)
    if as_json:
        print_json(diagnosis.values())
    else:
        print_marked(diagnosis.text(width()))
    raise typer.Exit(diagnosis.exit_code)
