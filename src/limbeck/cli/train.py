"""`limbeck train`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_recipes


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe file, or the folder of a run.", metavar="RECIPE", autocompletion=complete_recipes
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings on top of it: train.steps=100", metavar="KEY=VALUE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first failure signature, saved.")] = False,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run; the same as run=DIR.")] = None,
) -> None:
    """Distil a student as a recipe says.

    A stopped run goes on with --resume and ends as if it had never been stopped. Failure signatures (docs/watching.md)
    are warned of once; with --strict the first one ends the run with exit code 1, saved.
    """
    import limbeck

    # As JSON, which is YAML: a folder's name may hold anything.
    named = [] if run is None else [f"run={json.dumps(str(run))}"]
    done = limbeck.train(recipe, *(settings or []), *named, resume=resume, strict=strict)
    if os.environ.get("RANK", "0") != "0":
        return
    typer.echo(f"run: {done.directory}")
    if done.best is not None:
        typer.echo(f"best: step {done.best['step']}")
