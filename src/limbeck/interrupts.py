"""Being asked to stop: SIGTERM as Ctrl-C, and one request told from a second one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PASSED_ON_SECONDS = 1.0


class Requests:
    """Tells a second request to stop from the first one passed on.

    A launcher, and the parent of worker processes, send SIGTERM to processes that Ctrl-C in their terminal has reached
    already, or that a scheduler has signalled with all others. A person's second Ctrl-C is a request of its own.
    """

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def is_new(self, number: int) -> bool:
        """Whether this signal, which came now, asks for something that the one before did not."""
        now, before = time.monotonic(), self._last
        self._last = (now, number)
        if before is None or signal.SIGTERM not in (number, before[1]):
            return True
        return now - before[0] > _PASSED_ON_SECONDS


@contextmanager
def interrupting() -> Iterator[None]:
    """Inside, SIGTERM raises `KeyboardInterrupt` as Ctrl-C does; a request that is passed on raises it once.

    Only the main thread may set handlers; elsewhere, and where a signal is ignored (nohup, a shell's background), all
    stays as it is.
    """
    before = {}
    requests = Requests()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if requests.is_new(number):
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and handler is not None:
                before[number] = handler
                signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
