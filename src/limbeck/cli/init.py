"""`limbeck init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.terminal import print_json, say


def init(
    data: Annotated[Path | None, typer.Option(help="Your rows: a .jsonl, .json or .gz file.")] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    teacher: Annotated[str | None, typer.Option(help="Hub id, folder or packaged name.")] = None,
    student: Annotated[str | None, typer.Option(help="Hub id, folder or packaged name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes instead, for editors.")
    ] = False,
) -> None:
    """Write a commented recipe for your own rows."""
    from limbeck.preflight.starting import write_recipe

    if schema:
        from limbeck.config.schema import recipe_schema

        print_json(recipe_schema())
        return
    if data is None:
        raise typer.BadParameter("name your rows", param_hint="--data")
    recipe = write_recipe(data, out=out, teacher=teacher, student=student, force=force, say=say)
    typer.echo(f"recipe: {recipe}")
    say(f"next: read it, then: limbeck train {recipe}")
