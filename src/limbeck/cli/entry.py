"""The command `limbeck`: its verbs, and how what goes wrong becomes a message and an exit code.

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped but resumable, 130 interrupted. Heavy libraries are imported by
the verb that needs them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from limbeck.cli.cache import cache
from limbeck.cli.chat import chat
from limbeck.cli.compare import compare
from limbeck.cli.doctor import doctor
from limbeck.cli.evaluate import evaluate
from limbeck.cli.explain import explain
from limbeck.cli.export import export
from limbeck.cli.fetch import fetch
from limbeck.cli.init import init
from limbeck.cli.plan import plan
from limbeck.cli.push import push
from limbeck.cli.quickstart import quickstart
from limbeck.cli.report import report
from limbeck.cli.shrink import shrink
from limbeck.cli.slips import meant_settings
from limbeck.cli.study import study
from limbeck.cli.terminal import QUIET, fitted, has_width, narrow_help, width
from limbeck.cli.train import train
from limbeck.cli.undo import undo
from limbeck.errors import LimbeckError
from limbeck.files import is_disk_full
from limbeck.interrupts import interrupting

_NO_NAME = (errno.EROFS, errno.ENAMETOOLONG)
_NO_PLACE = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_FAILED, _BAD_INPUT, _RESUMABLE, _INTERRUPTED = 1, 2, 75, 130
# Columns of help: in a wider terminal lines would be too long to read.
_NARROWEST, _WIDEST = 20, 80

# OpenMP threads that spin while they wait take the cores from every other program: on a busy machine decoding was five
# times slower. libgomp reads this once, when torch is loaded, which no verb has done yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="limbeck",
    help="Distil large language models: a big teacher makes a small student better.",
    epilog="After any verb: --quiet (or LIMBECK_QUIET=1) prints results, warnings and errors alone; --debug (or "
    "LIMBECK_DEBUG=1) shows the traceback of an error. Exit codes: docs/cli.md.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _verb in (
    quickstart,
    init,
    explain,
    doctor,
    plan,
    train,
    evaluate,
    report,
    study,
    compare,
    chat,
    export,
    push,
    shrink,
    fetch,
):
    app.command()(_verb)
app.add_typer(cache)
app.add_typer(undo)


def _show_version(is_wanted: bool) -> bool:
    if is_wanted:
        from limbeck import __version__

        typer.echo(f"limbeck {__version__}")
        raise typer.Exit
    return is_wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Distil large language models: a big teacher makes a small student better."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. What went wrong is printed in plain text, never as a traceback unasked."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in given or os.environ.get("LIMBECK_DEBUG", "0") not in ("", "0")
    before = os.environ.get(QUIET)
    if "--quiet" in given:
        os.environ[QUIET] = "1"
    try:
        with interrupting():
            code = _run([each for each in given if each not in ("--debug", "--quiet")], is_debug=is_debug)
    finally:
        os.environ.pop(QUIET, None)
        if before is not None:
            os.environ[QUIET] = before
    if _is_one_of_several():
        from limbeck.training.world import leave

        leave(code)
    return code


def _is_one_of_several() -> bool:
    """Whether this process has joined others; without torch it has not, and torch is not imported to ask."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    return bool(distributed.get_world_size() > 1)


def _run(arguments: Sequence[str], *, is_debug: bool) -> int:
    try:
        command = typer.main.get_command(app)
        # Without a number, help is never narrower than 50 columns.
        columns = max(_NARROWEST, min(width(), _WIDEST) - 2)
        with narrow_help(command, columns=columns):
            command.main(args=list(arguments), prog_name="limbeck", terminal_width=columns)
    except SystemExit as stop:
        # What typer makes of a broken pipe.
        if isinstance(stop.__context__, BrokenPipeError):
            return _broken(stop.__context__, is_debug=is_debug)
        code = _code(stop.code)
        if code == _BAD_INPUT and (told := meant_settings(command, arguments)):
            print(f"  {told}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError as error:
        return _broken(error, is_debug=is_debug)
    except Exception as error:
        return _failed(error, is_debug=is_debug)
    return 0


def _failed(error: Exception, *, is_debug: bool) -> int:
    if is_debug:
        traceback.print_exception(error)
    message, code = _explained(error)
    is_told = is_debug or isinstance(error, LimbeckError) or code != _FAILED
    hint = "" if is_told else "\n  run again with --debug to see where"
    told = f"error: {message}{hint}"
    print(fitted(told) if has_width(sys.stderr) else told, file=sys.stderr)
    return code


def _broken(error: BrokenPipeError, *, is_debug: bool) -> int:
    """Whoever read the output (head, less) has what it wanted: no failure, as any other broken pipe is."""
    if not any(map(_is_unread, (sys.stdout, sys.stderr))):
        return _failed(error, is_debug=is_debug)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # What is still buffered would fail once more at the end of the process.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    return 0


def _is_unread(stream: Any) -> bool:
    # Some systems have no poll.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        look = select.poll()
        look.register(stream.fileno(), 0)
        return bool(look.poll(0))
    return False


def _code(code: object) -> int:
    if code is None:
        return 0
    return code if isinstance(code, int) else _FAILED


def _explained(error: Exception) -> tuple[str, int]:
    """What went wrong in words, and the exit code."""
    if isinstance(error, LimbeckError):
        return str(error), error.exit_code
    if is_disk_full(error):
        named = getattr(error, "filename2", None) or getattr(error, "filename", None)
        place = f" for {named}" if named else ""
        return (
            f"no space left on the disk{place}; make room and run the command again (train: with --resume)",
            _RESUMABLE,
        )
    if isinstance(error, _NO_PLACE) or (isinstance(error, OSError) and error.errno in _NO_NAME):
        place = error.filename2 or error.filename or "a file"
        return f"{place} cannot be used: {error.strerror or error}\n  name another place, or make it free", _BAD_INPUT
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first}", _FAILED
