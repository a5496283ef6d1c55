"""Arms against one chosen arm on the same examples: paired differences, permutation tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from limbeck.errors import DataError
from limbeck.reporting.reduce import Interval, paired_bootstrap, weighted
from limbeck.seeds import Seeds

_Key = TypeVar("_Key", str, tuple[str, str])
_DRAWS = 10_000
_ALWAYS_EXACT = 12
_AT_ONCE = 4_000_000
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm minus the baseline: the paired mean difference with its 95 % interval, and two p-values.

    `p` is the paired permutation test's, `adjusted` the same after Holm's correction over all arms that were compared.
    """

    arm: str
    gap: Interval
    p: float
    adjusted: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference would still be called one at 5 % when all arms are looked at together."""
        return self.adjusted < _LEVEL


def compare_arms(
    scores: Mapping[str, Mapping[_Key, float]], *, baseline: str, seed: int = 0, draws: int = _DRAWS
) -> tuple[Comparison, ...]:
    """Every arm but the baseline against it, in the order given; `scores` is arm → example → score.

    Of several corpora, whose examples are (corpus, id), the difference is the mean of the corpora's.

    Raises `DataError` where an arm's examples are not the baseline's, or where the baseline is not among the arms.

    >>> base = {f"e{i}": 0.0 for i in range(10)}
    >>> better = {id: 1.0 for id in base}
    >>> found = compare_arms({"sft": base, "kd": better, "same": base}, baseline="sft")
    >>> [(each.arm, each.gap.mean, round(each.adjusted, 4)) for each in found]
    [('kd', 1.0, 0.0039), ('same', 0.0, 1.0)]
    """
    if baseline not in scores:
        raise DataError(f"the baseline '{baseline}' is not among the arms: {', '.join(scores) or 'none'}")
    others = [arm for arm in scores if arm != baseline]
    found = []
    for arm in others:
        try:
            gap = paired_bootstrap(scores[arm], scores[baseline], seed=seed, draws=draws)
        except DataError as error:
            raise DataError(f"'{arm}' cannot be compared with '{baseline}': {error}") from error
        differences = weighted({id: scores[arm][id] - value for id, value in scores[baseline].items()})
        found.append((arm, gap, permutation_test(differences.tolist(), seed=seed, draws=draws)))
    adjusted = holm([p for _, _, p in found])
    return tuple(
        Comparison(arm=arm, gap=gap, p=p, adjusted=each) for (arm, gap, p), each in zip(found, adjusted, strict=True)
    )


def permutation_test(differences: Sequence[float], *, seed: int = 0, draws: int = _DRAWS) -> float:
    """Two-sided p of a paired permutation test: how often signs by chance give a mean as far from 0.

        p = #{ |Σ ±d_i| ≥ |Σ d_i| } / 2^n                       over all signs, up to 12 differences
        p = (1 + #{ … among the draws }) / (1 + draws)          beyond

    Under the null hypothesis the arms are exchangeable on each example (Fisher 1935). Depends on values, `seed` and
    `draws`. Raises `DataError` for no difference, and for one that is not finite.

    >>> permutation_test([1.0, 1.0, 1.0]), permutation_test([1.0, -1.0])
    (0.25, 1.0)
    """
    values = np.array(differences, dtype=np.float64)
    if not len(values):
        raise DataError("there is no difference to test; evaluate at least one example")
    if not np.isfinite(values).all():
        raise DataError("a difference is not a finite number; a test needs finite numbers")
    # What rounding makes of equal sums must not decide.
    observed = abs(math.fsum(values)) - 1e-12 * math.fsum(np.abs(values))
    if len(values) <= _ALWAYS_EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    generator = Seeds(seed).child("permutation").generator()
    at_once, as_far = max(1, _AT_ONCE // len(values)), 0
    for first in range(0, draws, at_once):
        shape = (min(at_once, draws - first), len(values))
        signs = 1 - 2 * generator.integers(2, size=shape)
        as_far += int((np.abs(signs @ values) >= observed).sum())
    return (1 + as_far) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given (Holm 1979).

        p̃_(k) = max_{j ≤ k} min(1, (m − j + 1) · p_(j)),  p_(1) ≤ … ≤ p_(m)

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def smallest_effect(*differences: Sequence[float], power: float = 0.8) -> float:
    """The smallest true mean difference that paired examples show at 5 % with this power; one sequence a corpus.

        δ = (z_{0.975} + z_power) · √(Σ_c s_c² / n_c) / C       normal approximation

    s_c the sample standard deviation of the n_c differences of corpus c, of C. One comparison alone: with Holm's
    correction over several more is needed. What is not seen may still be there below it. NaN where n_c is 1.

    >>> round(smallest_effect([0.0, 1.0] * 50), 3)
    0.141
    """
    from statistics import NormalDist

    quantile = NormalDist().inv_cdf
    return (quantile(0.975) + quantile(power)) * standard_error(*differences)


def standard_error(*values: Sequence[float]) -> float:
    """Of the mean over corpora, one sequence a corpus: √(Σ_c s_c² / n_c) / C; NaN where a corpus has one example.

    >>> round(standard_error([0.0, 1.0] * 50), 5)
    0.05025
    """
    from statistics import variance

    if any(len(each) < 2 for each in values):
        return math.nan
    return math.sqrt(math.fsum(variance(each) / len(each) for each in values)) / len(values)
