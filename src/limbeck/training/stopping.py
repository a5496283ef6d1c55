"""What ends a run before its end: signals, no memory, no disk space; and how each is told apart."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from limbeck.errors import Stopped
from limbeck.files import is_disk_full
from limbeck.interrupts import Requests
from limbeck.training.rundir import RECIPE
from limbeck.training.signatures import SIGNATURES
from limbeck.training.watch import Sign

_OWN_PART = re.compile(r"\bkind: ['\"]?[\w.]+:\w")


class StopRequest:
    """Whether somebody asked the run to stop after its step."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.is_set = False
        self._announce = announce
        self._requests = Requests()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, Ctrl-C and SIGTERM only set the request; a second one raises `KeyboardInterrupt` at once.

        Only the main thread may set handlers; elsewhere signals are somebody else's business.
        """
        before = {}
        with contextlib.suppress(ValueError):
            before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self._requests.is_new(number):
            return
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
        # The signal may have come in the middle of a print, which cannot be entered twice.
        with contextlib.suppress(RuntimeError):
            self._announce("stopping after this step (once more: stop at once)")


def how_to_resume(run: Path) -> str:
    """The command that goes on with a run, on as many processes of this machine as there are now.

    With parts of one's own that is the recipe that was written for it: code is imported from no other.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    launched = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    recipe = run / RECIPE
    has_own_parts = recipe.is_file() and _OWN_PART.search(recipe.read_text(encoding="utf-8", errors="replace"))
    return f"{launched}limbeck train {'YOUR_RECIPE.yaml' if has_own_parts else shlex.quote(str(run))} --resume"


def past_a_signature(run: Path, signs: Sequence[Sign], *, where: str) -> str:
    """What a run under --strict says at its end; the processes beside the main one know of no sign themselves."""
    again = how_to_resume(run)
    if not signs:
        return f"stopped by --strict {where}: a failure signature, which the main process tells of."
    first = signs[0]
    key = f"watch.{SIGNATURES[first.name].key}"
    return (
        f"stopped by --strict {where}: {', '.join(sign.name for sign in signs)}; everything is saved.\n"
        f"  {first.message}\n"
        f"  {first.advice}\n"
        f"  go on all the same with: {again}\n"
        f"  or with another threshold (now {first.threshold:g}; null = never): {again} --strict {key}=NUMBER"
    )


@contextmanager
def full_disk_stops(run: Path) -> Iterator[None]:
    """Turns a full disk into `Stopped`: the last whole checkpoint is untouched, so that the run can go on."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise Stopped(
            f"no space left on the disk of {run}; what was written before is whole.\n"
            f"  make room, then: {_how_to_go_on(run)}"
        ) from error


@contextmanager
def interruption_stops(run: Path) -> Iterator[None]:
    """Turns an interruption at once (not after a step) into `Stopped`, where there is a run that can go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not has_begun(run):
            raise
        raise Stopped(
            f"stopped at once; the run goes on from what was saved last.\n  go on with: {how_to_resume(run)}"
        ) from error


def has_begun(run: Path) -> bool:
    """Whether a run is there that `--resume` goes on with."""
    return (run / RECIPE).is_file()


def _how_to_go_on(run: Path) -> str:
    return how_to_resume(run) if has_begun(run) else "the same command again"
