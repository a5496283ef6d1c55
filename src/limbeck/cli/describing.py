"""The page of every verb with its arguments and options, made from the verbs themselves.

`python -m limbeck.cli.describing > docs/reference/commands.md`
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from limbeck.cli.entry import app

_INTRODUCTION = """# Every option of every verb

What `--help` says behind each verb, in one page. It is made from the code by `python -m limbeck.cli.describing`; a test
compares them. What verbs have in common, exit codes and environment variables: [the command line](../cli.md).
"""
_IN_BRACKETS = re.compile(r"\s*\[([^\[\]]+)\]$")
_SHOWN_ELSEWHERE = ("help", "install_completion", "show_completion")


def commands_page() -> str:
    """docs/reference/commands.md: each verb with its usage, what it does, its arguments and its options.

    >>> "## `limbeck train`" in commands_page(), "| `--resume` | Go on with a run" in commands_page()
    (True, True)
    """
    command: Any = typer.main.get_command(app)
    parts = [_INTRODUCTION]
    for words, verb in _verbs(("limbeck",), command):
        parts.append("\n".join(_section(words, verb)))
    return "\n".join(parts)


def _verbs(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with the words that call it; those of a group come after the group."""
    for name, verb in getattr(command, "commands", {}).items():
        yield (*words, name), verb
        yield from _verbs((*words, name), verb)


def _section(words: tuple[str, ...], verb: Any) -> list[str]:
    name = " ".join(words)
    # A verb of a group stands one level below it.
    lines = [f"{'#' * len(words)} `{name}`", "", inspect.cleandoc(verb.help or "").replace("\f", "").strip(), ""]
    if hasattr(verb, "commands"):
        return lines
    context = verb.make_context(name, [], resilient_parsing=True)
    lines += ["```", " ".join([name, *verb.collect_usage_pieces(context)]), "```", ""]
    shown = [each for each in verb.params if each.name not in _SHOWN_ELSEWHERE]
    for kind in ("argument", "option"):
        rows = [_row(*each.get_help_record(context)) for each in shown if each.param_type_name == kind]
        if rows:
            lines += [f"| {kind} | meaning |", "|---|---|", *rows, ""]
    return lines


def _row(spelling: str, meaning: str) -> str:
    """What `--help` says of an argument or option; its default and limits at the end."""
    limits = _IN_BRACKETS.search(meaning)
    if limits is not None:
        meaning = f"{meaning[: limits.start()].rstrip()} *{limits.group(1).replace('x>=', 'at least ')}*"
    cells = (f"`{spelling}`", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(commands_page(), end="")
