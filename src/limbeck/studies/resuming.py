"""What a person is told who stops something of many parts: the one command that goes on with all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from limbeck.errors import Stopped

SAME_AGAIN = "Give the same command again to go on"


@contextmanager
def same_command_goes_on() -> Iterator[None]:
    """Inside, Ctrl-C and a part that stops become `Stopped` of the whole, without the part's own advice.

    >>> with same_command_goes_on():
    ...     raise Stopped("stopped after step 3 of 8.\\n  go on with: limbeck train out/runs/kd --resume")
    Traceback (most recent call last):
    limbeck.errors.Stopped: stopped after step 3 of 8.
      Give the same command again to go on
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(f"stopped; what was written is whole.\n  {SAME_AGAIN}") from error
    except Stopped as error:
        reason = str(error).split("\n")[0]
        raise Stopped(f"{reason}\n  {SAME_AGAIN}") from error
