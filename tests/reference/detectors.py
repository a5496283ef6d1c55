"""The detectors beside MGSR's (arXiv 2407.10068, Eq. 3) in loops, for one response at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence


def heuristic(
    tokens: Sequence[int],
    surprises: Sequence[float],
    nucleus: Sequence[float],
    *,
    loop_tokens: int | None,
    rise: float | None,
    rise_after: int,
    rise_floor: float,
    top_p: float | None,
) -> list[float]:
    """Score of each token of one response, eligible or not: loop, else rise, else outside of the nucleus, else −inf."""
    return [
        _loop(tokens, i, loop_tokens)
        or _rise(surprises[:i], surprises[i], rise=rise, after=rise_after, floor=rise_floor)
        or (nucleus[i] if top_p is not None and nucleus[i] >= top_p else -math.inf)
        for i in range(len(tokens))
    ]


def _loop(tokens: Sequence[int], i: int, size: int | None) -> float | None:
    if size is None or i + size > len(tokens):
        return None
    wanted = list(tokens[i : i + size])
    return 3.0 if any(list(tokens[k : k + size]) == wanted for k in range(i)) else None


def _rise(before: Sequence[float], surprise: float, *, rise: float | None, after: int, floor: float) -> float | None:
    known = [each for each in before if math.isfinite(each)]
    if rise is None or len(known) < after:
        return None
    z = (surprise - statistics.fmean(known)) / max(statistics.pstdev(known), floor)
    if math.isinf(z):
        return 2.0 if z > 0 else None
    return 1 + z / (1 + z) if z > rise else None


def attention_received(
    maps: Sequence[Sequence[Sequence[Sequence[float]]]],
    *,
    is_response: Sequence[bool],
    sees: Callable[[int, int, int], bool],
) -> list[float]:
    """Mean over layers and heads of what the response tokens behind each token, that see it, attend to it on average.

    `maps[l][h][k][i]` is the share of token k's attention that i has; `sees(l, k, i)`: whether layer l lets k see i.
    """
    found = []
    for i in range(len(is_response)):
        in_layers = []
        for layer, heads in enumerate(maps):
            readers = [k for k in range(i + 1, len(is_response)) if is_response[k] and sees(layer, k, i)]
            in_heads = [math.fsum(head[k][i] for k in readers) / len(readers) if readers else 0.0 for head in heads]
            in_layers.append(statistics.fmean(in_heads))
        found.append(statistics.fmean(in_layers))
    return found
