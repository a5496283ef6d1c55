"""Dividing a number of rows among corpora by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CorpusShare:
    """One entry of `data.corpus` where that is a list: a corpus and its weight.

    A weight is the share of drawn rows that come from this corpus, relative to the other weights; it does not depend
    on how many rows the corpus has.
    """

    corpus: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


def quotas(total: int, *, weights: Sequence[int | float]) -> tuple[int, ...]:
    """Whole numbers that sum to `total`, in proportion to the weights (largest remainders).

    >>> quotas(10, weights=[1, 1, 1])
    (4, 3, 3)
    """
    exact = [total * weight / math.fsum(weights) for weight in weights]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return tuple(counts)
