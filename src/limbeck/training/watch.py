"""What is looked at beside the loss, and when."""

from __future__ import annotations

from collections.abc import Mapping

_EARLY = frozenset({1, 2, 4, 8, 16, 32})


def is_watched(step: int, *, every: int) -> bool:
    """Whether each term's own gradient is taken at this step: at 1, 2, 4, 8, 16, 32 and every `every`.

    >>> [step for step in range(1, 101) if is_watched(step, every=50)]
    [1, 2, 4, 8, 16, 32, 50, 100]
    """
    return step in _EARLY or step % every == 0


def gradient_shares(norms: Mapping[str, float]) -> dict[str, float]:
    """Each term's part of the summed gradient norms with respect to the hidden states.

    >>> gradient_shares({"token": 3.0, "supervised": 1.0})
    {'token': 0.75, 'supervised': 0.25}
    """
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}
