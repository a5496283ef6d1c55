"""`limbeck plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_recipes
from limbeck.cli.terminal import print_json, width


def plan(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe file, or the folder of a run.", metavar="RECIPE", autocompletion=complete_recipes
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings on top of it: train.steps=100", metavar="KEY=VALUE")
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="Plan for these instead of this machine: 4xA100-80G")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a recipe will take of memory, disk and time, without loading a weight.

    Exit code 0: it fits; 1: it does not.
    """
    from limbeck.preflight import plan as estimate

    needs = estimate(recipe, *(settings or []), gpus=gpus)
    if as_json:
        print_json(needs.values())
    else:
        typer.echo(needs.text(width()), nl=False)
    raise typer.Exit(0 if needs.fits else 1)
