"""What was probably meant by an unknown option: settings are KEY=VALUE here, and options in many other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TAKES_SETTINGS = "KEY=VALUE"


def meant_settings(command: Any, arguments: Sequence[str]) -> str:
    """A line that names the setting for an unknown option of this command line ("--steps 3"), "" where there is none.

    >>> import typer
    >>> from limbeck.cli.entry import app
    >>> print(meant_settings(typer.main.get_command(app), ["train", "recipe.yaml", "--steps", "3"]))
    settings are given as KEY=VALUE, without dashes: train.steps=3
    """
    verb = _chosen(command, arguments)
    # The recipes of `undo` have keys of their own.
    if (
        verb is None
        or "undo" in arguments[:1]
        or not any(parameter.metavar == _TAKES_SETTINGS for parameter in verb.params)
    ):
        return ""
    known = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    following = [*arguments[1:], ""]
    for argument, after in zip(arguments, following, strict=True):
        option, _, value = argument.partition("=")
        if not option.startswith("--") or option in known:
            continue
        if keys := _keys(option.removeprefix("--").replace("-", "_")):
            value = value or (after if after and not after.startswith("-") else "VALUE")
            return "settings are given as KEY=VALUE, without dashes: " + " or ".join(f"{key}={value}" for key in keys)
    return ""


def _chosen(command: Any, arguments: Sequence[str]) -> Any:
    """The verb that the arguments name, and the verb inside it where it has some; None where they name none."""
    for argument in arguments:
        command = _inside(command).get(argument, command)
    return None if _inside(command) else command


def _inside(command: Any) -> Mapping[str, Any]:
    """The verbs of a group. Some releases of typer bring a click of their own, so that its classes tell nothing."""
    found: Mapping[str, Any] = getattr(command, "commands", {})
    return found


def _keys(name: str) -> list[str]:
    """The keys of a recipe that end in this name, or are it."""
    from limbeck.config.sections import SECTIONS, keys_of

    found = [f"{section}.{key}" for section, kind in SECTIONS.items() for key in keys_of(kind)]
    return [key for key in found if name in (key, key.partition(".")[2])]
