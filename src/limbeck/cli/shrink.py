"""`limbeck shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_models


def shrink(
    model: Annotated[
        str,
        typer.Argument(help="A hub id, a folder or a packaged name.", metavar="MODEL", autocompletion=complete_models),
    ],
    layers: Annotated[str, typer.Option(help="How many layers to keep, or their numbers: 0,1,2,5")],
    out: Annotated[Path, typer.Option(help="Folder of the smaller model.")],
    mlp_width: Annotated[int | None, typer.Option(min=1, help="Units of each MLP to keep.")] = None,
) -> None:
    """Make a smaller student out of a model by leaving out layers."""
    from limbeck.errors import ModelError

    keep = _layers(layers)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already; choose another folder with --out, or remove it")
    from limbeck.models import load_model, load_tokenizer, save_student
    from limbeck.models import shrink as shrink_model

    small = shrink_model(load_model(model), layers=keep, mlp_width=mlp_width)
    ends = small.generation_config.eos_token_id
    stops = [] if ends is None else [ends] if isinstance(ends, int) else ends
    save_student(small, load_tokenizer(model), out, stop_ids=stops)
    typer.echo(f"model: {out} ({small.num_parameters() / 1e6:.1f} million parameters)")


def _layers(text: str) -> int | list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' is neither a number nor a list like 0,1,2", param_hint="--layers"
        ) from error
    return numbers if "," in text else numbers[0]
