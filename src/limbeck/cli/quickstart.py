"""`limbeck quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    data: Annotated[Path | None, typer.Option(help="Your own rows; the starter corpus if not given.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="How long it may take.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs and page.")] = Path("quickstart"),
    fast: Annotated[bool, typer.Option("--fast", help="The same path in 2 to 3 minutes.")] = False,
    tune_teacher: Annotated[
        bool, typer.Option("--tune-teacher", help="Fine-tune the teacher on the data first.")
    ] = False,
) -> None:
    """Distil and score a real pretrained pair on this machine, in minutes."""
    from limbeck.studies.first_run import quickstart as first_run

    page = first_run(data=data, minutes=minutes, out=out, fast=fast, tune_teacher=tune_teacher)
    typer.echo(f"page: {page}")
