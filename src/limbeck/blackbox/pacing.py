"""How many calls may be under way at once: what a server can take, found by asking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets calls through, at most `limit` of them at a time.

    It begins at `most`. A server that is asked too much halves it (`slower`), down to one; each answer raises it by
    1/limit (`faster`), so that after as many answers as calls are under way there is room for one more, up to `most`.
    Calls that were let through before a halving do not halve it again: a burst that fails together counts once.

    >>> gate = Gate(8)
    >>> with gate.turn() as first, gate.turn() as second:
    ...     gate.slower(first)
    ...     gate.slower(second)
    >>> gate.limit
    4
    >>> for _ in range(5):
    ...     gate.faster()
    >>> gate.limit
    5
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._under_way = 0
        self._halvings = 0
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """The calls that may be under way now."""
        return int(self._limit)

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Wait until there is room, and take it. Gives the number of halvings so far, for `slower`."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
            halvings = self._halvings
        try:
            yield halvings
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def slower(self, halvings: int) -> None:
        """Halve the limit, unless it was halved since this call was let through."""
        with self._changed:
            if halvings == self._halvings:
                self._limit = max(1.0, self._limit / 2)
                self._halvings += 1

    def faster(self) -> None:
        """An answer came: room for 1/limit of a call more."""
        with self._changed:
            self._limit = min(float(self._most), self._limit + 1 / self.limit)
            self._changed.notify_all()
