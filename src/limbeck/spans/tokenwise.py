"""Spans by place alone: windows of tokens, and whole responses."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.spans.pieces import Interval


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Window:
    """Windows of `size` tokens, one after the other: s_i = [i·size, (i + 1)·size), the last one shorter.

    The plainest span there is: no grammar, no language, no text. It says how much of a gain is due to phrases. A last
    window of one token has no pair and is left out. Limbeck's own.

    >>> Window(size=3).of_tokens([5, 6, 7, 8, 9])
    ((0, 3), (3, 5))
    """

    size: int = Field(default=8, ge=2)

    def of_tokens(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        """The windows of these tokens."""
        return tuple((first, min(first + self.size, len(ids))) for first in range(0, len(ids), self.size))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Whole:
    """The whole response as one span: s_1 = [0, n). All neighbours are pairs, of equal weight in their response.

    A special token inside of a response parts it. There is no limit: a long response is one long span. Limbeck's own.

    >>> Whole().of_tokens([5, 6, 7])
    ((0, 3),)
    """

    def of_tokens(self, ids: Sequence[int]) -> tuple[Interval, ...]:
        """All of these tokens."""
        return ((0, len(ids)),) if len(ids) else ()
