"""`limbeck push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_runs
from limbeck.cli.terminal import print_json, show, width


def push(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", autocompletion=complete_runs)],
    to: Annotated[str, typer.Option("--to", help="The repository.", metavar="ORG/NAME")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files and card; nothing is sent.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="All weights with LoRA's in them, or the adapter alone.")
    ] = True,
    licence: Annotated[str | None, typer.Option(help="The student's licence, for its card: apache-2.0")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Upload a run's student with its card to the Hugging Face hub."""
    from limbeck.publishing import push as upload
    from limbeck.reporting.tables import Column, Number, Row, Table

    done = upload(run, to, dry_run=dry_run, private=private, merge=merge, licence=licence)
    if as_json:
        print_json(done.values())
        return
    rows = tuple(Row(cells=(name, Number(value=size / 1e6, digits=2))) for name, size in done.files)
    typer.echo(Table(columns=(Column(title="file"), Column(title="MB")), rows=rows).text(width=width()))
    if dry_run:
        typer.echo(done.card)
        show([f"nothing was sent; without --dry-run these files go to {done.repository}"])
    else:
        typer.echo(f"pushed: {done.url}")
