"""From rows to numbers: means over seeds and corpora, standard errors, bootstrap intervals.

Rows are reduced in one order everywhere: first over the decoding seeds of an example, then over the examples of a
corpus, then over corpora. Examples are the unit of resampling: seeds of one example are not independent. The corpora of
an average are what was chosen, not drawn: each is resampled within itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import DataError
from limbeck.records import AnswerRow
from limbeck.seeds import Seeds

Example = str | tuple[str, str]
"""An example: its id, or, of several corpora, the corpus and its id there."""

_Key = TypeVar("_Key", str, tuple[str, str])
# Resampled examples held at once: 32 MB of indices.
_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and the bounds that 95 % of its bootstrap replicates lie between."""

    mean: float
    low: float
    high: float
    num_examples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether both bounds lie on one side of zero; a bound of exactly zero does not."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class CorpusMean:
    """The mean over a corpus's examples, each averaged over its seeds, with the standard error over examples."""

    mean: float
    error: float
    num_examples: int
    num_seeds: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Each corpus's mean, and their plain average (corpora weigh the same whatever their size)."""

    corpora: dict[str, CorpusMean]
    mean: float
    error: float


def by_example(rows: Iterable[AnswerRow | Mapping[str, object]], *, score: str) -> dict[str, dict[str, float]]:
    """The score of every example, averaged over its decoding seeds: corpus -> id -> mean.

    Takes answer rows, or the dictionaries that their JSON lines hold. Raises `DataError` for a row without this score,
    for a number that is not finite, for one answer given twice, and where the examples of a corpus were not all
    answered with the same seeds: a mean over different seeds would compare unequal things.
    """
    return {
        corpus: {name: math.fsum(seeds.values()) / len(seeds) for name, seeds in examples.items()}
        for corpus, examples in _by_seed(rows, score=score).items()
    }


def summarise(rows: Iterable[AnswerRow | Mapping[str, object]], *, score: str) -> Summary:
    """Mean over seeds, then examples, then corpora, with standard errors.

        error of a corpus = s / √n, s the sample standard deviation of its n examples' means (NaN for n = 1)
        error of the mean over C corpora = √(Σ error²) / C

    Raises what `by_example` raises.
    """
    corpora = {corpus: _corpus_mean(examples) for corpus, examples in _by_seed(rows, score=score).items()}
    return Summary(
        corpora=corpora,
        mean=math.fsum(one.mean for one in corpora.values()) / len(corpora),
        error=math.sqrt(math.fsum(one.error**2 for one in corpora.values())) / len(corpora),
    )


def by_corpus(values_by_id: Mapping[_Key, float]) -> list[list[float]]:
    """The values of each corpus, in the order of corpora and ids; plain ids are of one corpus.

    >>> by_corpus({("b", "1"): 3.0, ("a", "2"): 2.0, ("a", "1"): 1.0}), by_corpus({"x": 5.0})
    ([[1.0, 2.0], [3.0]], [[5.0]])
    """
    corpora: dict[str, list[float]] = {}
    for id in sorted(values_by_id):
        corpora.setdefault(id[0] if isinstance(id, tuple) else "", []).append(float(values_by_id[id]))
    return list(corpora.values())


def weighted(values_by_id: Mapping[_Key, float]) -> NDArray[np.float64]:
    """The values in the order of corpora and ids, each times N / (C n_c): their plain mean is the corpora's mean.

    >>> weighted({("a", "1"): 1.0, ("a", "2"): 1.0, ("b", "1"): 4.0}).tolist()
    [0.75, 0.75, 6.0]
    """
    corpora, total = by_corpus(values_by_id), len(values_by_id)
    return np.array([value * total / (len(corpora) * len(each)) for each in corpora for value in each])


def mean_over(values_by_id: Mapping[_Key, float]) -> float:
    """The mean over examples, of several corpora the mean of their means; NaN for none.

    >>> mean_over({("a", "1"): 1.0, ("a", "2"): 1.0, ("b", "1"): 4.0})
    2.5
    """
    corpora = by_corpus(values_by_id)
    return math.fsum(math.fsum(each) / len(each) for each in corpora) / len(corpora) if corpora else math.nan


def mean_interval(values_by_id: Mapping[_Key, float], *, seed: int, draws: int = 10_000) -> Interval:
    """The mean of one arm's examples with a 95 % percentile bootstrap interval over examples.

    Of several corpora it is the mean of their means, and examples are resampled within their corpus. Depends on ids,
    values, `seed` and `draws`, not on the mapping's order. A corpus of one example has no spread to resample: the
    interval is all numbers. Raises `DataError` for none, and for a value that is not finite.

    >>> interval = mean_interval({"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0}, seed=0)
    >>> interval.mean, interval.low, interval.high
    (0.5, 0.0, 1.0)
    """
    if not values_by_id:
        raise DataError("there is no example to average; evaluate at least one")
    for id, value in values_by_id.items():
        if not math.isfinite(value):
            raise DataError(f"the value of example '{_name(id)}' is {value}; a mean needs finite numbers")
    mean, sizes = mean_over(values_by_id), tuple(map(len, by_corpus(values_by_id)))
    if min(sizes) == 1:
        return Interval(mean=mean, low=-math.inf, high=math.inf, num_examples=len(values_by_id))
    replicates = _replicates(weighted(values_by_id), sizes=sizes, seed=seed, draws=draws)
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high), num_examples=len(values_by_id))


def paired_bootstrap(
    a_by_id: Mapping[_Key, float], b_by_id: Mapping[_Key, float], *, seed: int, draws: int = 10_000
) -> Interval:
    """The mean difference a − b over the same examples, with a 95 % percentile bootstrap interval as `mean_interval`'s.

    Examples are resampled, each with both its values, so that what makes an example hard for both arms cancels.
    Raises `DataError` unless both have exactly the same ids.

    >>> paired_bootstrap({"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 1.5}, seed=0).excludes_zero
    True
    """
    if a_by_id.keys() != b_by_id.keys():
        only_a, only_b = sorted(a_by_id.keys() - b_by_id.keys()), sorted(b_by_id.keys() - a_by_id.keys())
        raise DataError(
            "a paired comparison needs the same examples on both sides\n"
            f"  only in the first: {_some(only_a)}\n  only in the second: {_some(only_b)}\n"
            "  evaluate both on the same rows, or compare those they share"
        )
    return mean_interval({name: a_by_id[name] - b_by_id[name] for name in a_by_id}, seed=seed, draws=draws)


def statistic_interval(
    columns: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int,
    draws: int = 10_000,
) -> Interval:
    """A function of the means of several columns (examples down), with a 95 % percentile bootstrap interval.

    `statistic` takes means [n columns] to values [n]; examples are resampled with all their columns. A ratio of sums is
    a ratio of means. One example has no spread to resample: its interval is all numbers. Raises `DataError` for none,
    and where the statistic of the whole is not finite; replicates that are not (0/0) are left out.

    >>> found = statistic_interval(np.array([[1.0, 2.0], [3.0, 6.0]]), lambda m: m[:, 1] / m[:, 0], seed=0)
    >>> found.mean, found.low, found.high
    (2.0, 2.0, 2.0)
    """
    if not len(columns):
        raise DataError("there is no example to average; evaluate at least one")
    mean = float(statistic(columns.mean(axis=0, keepdims=True))[0])
    if not math.isfinite(mean):
        raise DataError(f"the statistic of {len(columns)} examples is {mean}, not a finite number")
    if len(columns) == 1:
        return Interval(mean=mean, low=-math.inf, high=math.inf, num_examples=1)
    values = statistic(_replicates(columns, sizes=(len(columns),), seed=seed, draws=draws))
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high), num_examples=len(columns))


def _replicates(values: NDArray[np.float64], *, sizes: tuple[int, ...], seed: int, draws: int) -> NDArray[np.float64]:
    """Means of resampled examples, which lie corpus after corpus; of several columns each."""
    if draws * len(values) <= _AT_ONCE:
        return np.asarray(values[_chosen(seed, sizes, draws)].mean(axis=1))
    return np.concatenate([values[chosen].mean(axis=1) for chosen in _draws(seed, sizes, draws)])


def _draws(seed: int, sizes: tuple[int, ...], draws: int) -> Iterator[NDArray[np.int64]]:
    """Which examples each replicate is made of, as many of each corpus as it has; some replicates at a time."""
    generator = Seeds(seed).child("bootstrap").generator()
    begins = np.cumsum((0, *sizes[:-1]))
    at_once = max(1, _AT_ONCE // sum(sizes))
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        drawn = [generator.integers(size, size=(count, size)) for size in sizes]
        yield np.concatenate([begin + each for begin, each in zip(begins, drawn, strict=True)], axis=1)


@functools.lru_cache(maxsize=1)
def _chosen(seed: int, sizes: tuple[int, ...], draws: int) -> NDArray[np.int64]:
    """All of them: the comparisons of a table resample alike."""
    return np.concatenate(list(_draws(seed, sizes, draws)))


def _corpus_mean(examples: Mapping[str, Mapping[int, float]]) -> CorpusMean:
    values = [math.fsum(seeds.values()) / len(seeds) for seeds in examples.values()]
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((value - mean) ** 2 for value in values)
    error = math.sqrt(spread / (count - 1) / count) if count > 1 else math.nan
    return CorpusMean(mean=mean, error=error, num_examples=count, num_seeds=len(next(iter(examples.values()))))


def _by_seed(rows: Iterable[AnswerRow | Mapping[str, object]], *, score: str) -> dict[str, dict[str, dict[int, float]]]:
    values: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        corpus, seed, name, value = _fields(row, score=score)
        seeds = values.setdefault(corpus, {}).setdefault(name, {})
        if seed in seeds:
            raise DataError(f"example '{name}' of {corpus} is answered twice with seed {seed}; keep one of the rows")
        seeds[seed] = value
    if not values:
        raise DataError("there is no answer row to average; evaluate at least one example")
    for corpus, examples in values.items():
        _refuse_unequal_seeds(corpus, examples)
    return values


def _fields(row: AnswerRow | Mapping[str, object], *, score: str) -> tuple[str, int, str, float]:
    fields = row.to_json() if isinstance(row, AnswerRow) else row
    corpus, name, seed, scores = (fields[key] for key in ("corpus", "id", "seed", "scores"))
    assert isinstance(scores, Mapping), "an answer row as `AnswerRow.to_json` writes it"
    assert isinstance(seed, int), "an answer row as `AnswerRow.to_json` writes it"
    if score not in scores:
        known = ", ".join(sorted(scores)) or "none"
        raise DataError(f"example '{name}' of {corpus} has no score '{score}'\n  its scores: {known}")
    value = float(scores[score])
    if not math.isfinite(value):
        raise DataError(
            f"example '{name}' of {corpus}, seed {seed}: the score '{score}' is {value}, not a finite number"
        )
    return str(corpus), seed, str(name), value


def _refuse_unequal_seeds(corpus: str, examples: Mapping[str, Mapping[int, float]]) -> None:
    every = set().union(*examples.values())
    for name, seeds in examples.items():
        if seeds.keys() != every:
            raise DataError(
                f"example '{name}' of {corpus} is not answered with the seeds {sorted(every - seeds.keys())}\n"
                f"  others have {sorted(every)}; finish the evaluation, or average over the seeds that all have"
            )


def _name(id: Example) -> str:
    return id if isinstance(id, str) else "/".join(id)


def _some(ids: Sequence[Example]) -> str:
    names = [_name(id) for id in ids]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
