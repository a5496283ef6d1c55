"""`limbeck quickstart`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.terminal import print_json, say


def quickstart(
    data: Annotated[Path | None, typer.Option(help="Your own rows; the starter corpus if not given.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="How long it may take.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs and page.")] = Path("quickstart"),
    fast: Annotated[bool, typer.Option("--fast", help="The same path in 2 to 3 minutes.")] = False,
    tune_teacher: Annotated[
        bool, typer.Option("--tune-teacher", help="Fine-tune the teacher on the data first.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end.")] = False,
) -> None:
    """Distil and score a real pretrained pair on this machine, in minutes."""
    from limbeck.studies.first_run import quickstart as first_run

    told = (lambda text: typer.echo(text, err=True)) if as_json else say
    page = first_run(data=data, minutes=minutes, out=out, fast=fast, tune_teacher=tune_teacher, say=told)
    if not as_json:
        typer.echo(f"page: {page}")
        return
    scored = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("answers/*/scored.json"))}
    print_json({"page": str(page), "models": scored})
