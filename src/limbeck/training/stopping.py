"""What ends a run before its end: signals, no memory, no disk space; and how each is told apart."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError

from limbeck.errors import Stopped
from limbeck.training.signatures import SIGNATURES
from limbeck.training.watch import Sign

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StopRequest:
    """Whether somebody asked the run to stop after its step."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.is_set = False
        self._announce = announce

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
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
        # The signal may have come in the middle of a print, which cannot be entered twice.
        with contextlib.suppress(RuntimeError):
            self._announce("stopping after this step (once more: stop at once)")


def how_to_resume(run: Path) -> str:
    """The command that goes on with a run, on as many processes of this machine as there are now."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    launched = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    return f"{launched}limbeck train {shlex.quote(str(run))} --resume"


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
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise Stopped(
            f"no space left on the disk of {run}; what was written before is whole.\n"
            f"  make room, then: {how_to_resume(run)}"
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room; safetensors wraps the system's error into text."""
    if isinstance(error, SafetensorError):
        return any(f"(os error {number})" in str(error) for number in _FULL)
    return isinstance(error, OSError) and error.errno in _FULL
