"""`limbeck explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from limbeck.cli.completing import complete_methods
from limbeck.cli.terminal import print_json, width


def explain(
    method: Annotated[
        str,
        typer.Argument(
            help="A method or preset, a recipe file, or the folder of a run.",
            metavar="METHOD",
            autocompletion=complete_methods,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a method is made of, with its formulas, and how each field stands to its paper."""
    from limbeck.inspection import explain as explain_method

    explanation = explain_method(method)
    if as_json:
        print_json(explanation.values())
    else:
        typer.echo(explanation.text(width()), nl=False)
