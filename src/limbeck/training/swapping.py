"""A teacher that reads other rows than the student: which row teaches which, and which of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from limbeck.losses.objective import Objective
from limbeck.types import Sequences


def teaching_rows(objective: Objective, drawn: Sequences) -> Callable[[Sequence[int]], Sequences | None]:
    """For rows of a step by their numbers: the rows that the teacher reads in their place.

    None for them unless a term's target is of other rows (`reads_other_row`).
    """
    if not of_other_rows(objective):
        return lambda group: None
    teachers = next_with_response(drawn.scored.sum(dim=1).tolist())
    return lambda group: drawn.rows([teachers[row] for row in group])


def of_other_rows(objective: Objective) -> frozenset[str]:
    """The terms whose teacher reads other rows than the student."""
    return frozenset(name for name, term in objective.terms.items() if getattr(term, "reads_other_row", False))


def next_with_response(lengths: Sequence[int]) -> list[int]:
    """For each row the next one, around the end, that has a scored token; itself where no other has one.

    >>> next_with_response([3, 0, 2]), next_with_response([4])
    ([2, 2, 0], [0])
    """
    count = len(lengths)
    return [
        next((other % count for other in range(row + 1, row + count) if lengths[other % count]), row)
        for row in range(count)
    ]


def tokens_of(learned: Sequences, *, read: Sequences) -> Int[Tensor, " N"]:
    """For each scored token of `learned`, row after row, the token of `read` that teaches it: k = i mod |y′|.

    Row r of one is taught by row r of the other. A row of `read` without a token teaches nothing, and only a row
    without one may have it.
    """
    counts, sources = learned.scored.sum(dim=1).tolist(), read.scored.sum(dim=1).tolist()
    pieces, first = [torch.empty(0, dtype=torch.long)], 0
    for count, source in zip(counts, sources, strict=True):
        assert source or not count, "a row with a response is taught by one with a response"
        pieces.append(first + torch.arange(count) % max(source, 1))
        first += source
    return torch.cat(pieces)
