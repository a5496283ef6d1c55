"""`limbeck chat`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from limbeck.cli.completing import complete_models
from limbeck.cli.terminal import width
from limbeck.errors import ConfigError


def chat(
    model: Annotated[
        str,
        typer.Argument(
            help="A run, a model's folder, a hub id or a packaged name.", metavar="RUN", autocompletion=complete_models
        ),
    ],
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="The teacher's answers beside it.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Another teacher than the run's.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 = greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Smallest set of this mass.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Decoding seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Talk to a student, and to its teacher beside it; a line is a turn, Ctrl-D ends it."""
    if sys.stdin is None:
        raise ConfigError("limbeck chat reads from standard input, which is closed")
    from limbeck.evaluation import Decoding
    from limbeck.inspection import chat as talk_on
    from limbeck.inspection import open_talk

    decoding = Decoding(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    talk = open_talk(
        model, side_by_side=side_by_side or teacher is not None, teacher=teacher, decoding=decoding, seed=seed,
        device=device,
    )  # fmt: skip
    is_person = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A text in another encoding is asked as well as can be, and does not end the talk.
        sys.stdin.reconfigure(errors="replace")
    talk_on(talk, read=lambda: input("> " if is_person else ""), write=typer.echo, width=width(), help=is_person)
    if is_person:
        typer.echo()
