"""`limbeck init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[Path, typer.Option(help="Your rows: a .jsonl, .json or .gz file.")],
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    teacher: Annotated[str | None, typer.Option(help="Hub id, folder or packaged name.")] = None,
    student: Annotated[str | None, typer.Option(help="Hub id, folder or packaged name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented recipe for your own rows."""
    from limbeck.preflight.starting import write_recipe

    recipe = write_recipe(data, out=out, teacher=teacher, student=student, force=force)
    typer.echo(f"recipe: {recipe}\nnext: read it, then: limbeck train {recipe}")
