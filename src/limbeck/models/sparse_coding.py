"""Some classes of each token with their log-probabilities, as bytes: ids by their gaps, numbers in 1/2048 nat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 2048
"""Steps a nat: a probability is off by at most a factor of exp(1/4096), 0.024 %."""
_NOTHING = 65535
_FLOOR = 65534
_MOST = 255


@dataclass(frozen=True, kw_only=True)
class CodedTokens:
    """n tokens: `counts[i]` classes of token i; their ids as `ids`, their log-probabilities as `codes`; `rest` codes.

    An id is written as its gap to the one before, in groups of 7 bits, the lowest first; all but the last group of an
    id have the highest bit set. A code is −log p in 1/2048 nat, at most 32 nats; 65535 is a mass of 0.
    """

    counts: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    codes: NDArray[np.uint16]
    rest: NDArray[np.uint16]

    @property
    def num_bytes(self) -> int:
        """All arrays together."""
        return sum(int(array.nbytes) for array in (self.counts, self.ids, self.codes, self.rest))


def most_bytes_a_token(*, classes: int, vocabulary_size: int) -> int:
    """What a token of so many classes takes at most.

        1 + 2·m + 2·m + ⌊V / 2¹⁴⌋ + 2       m classes, V < 2²¹: at most ⌊V / 2¹⁴⌋ gaps need a third byte

    >>> most_bytes_a_token(classes=33, vocabulary_size=49_152), most_bytes_a_token(classes=33, vocabulary_size=256_000)
    (138, 150)
    """
    assert vocabulary_size < 1 << 21
    return 3 + 4 * classes + vocabulary_size // (1 << 14)


def encoded(
    ids_nm: NDArray[np.int64], logp_nm: NDArray[np.float64], *, counts_n: NDArray[np.int64], rest_n: NDArray[np.float64]
) -> CodedTokens:
    """The first `counts_n` entries of each row, whose ids ascend without repetition; `rest_n` in nats too.

    >>> ids, logp = np.array([[3, 200]]), np.log([[0.5, 0.25]])
    >>> coded = encoded(ids, logp, counts_n=np.array([2]), rest_n=np.log([0.25]))
    >>> coded.ids.tolist(), coded.codes.tolist(), coded.num_bytes
    ([3, 196, 1], [1420, 2839], 10)
    """
    assert counts_n.max(initial=0) <= _MOST, f"at most {_MOST} classes a token"
    is_there = np.arange(ids_nm.shape[1]) < counts_n[:, None]
    before = np.concatenate([np.full((len(ids_nm), 1), -1), ids_nm[:, :-1]], axis=1)
    return CodedTokens(
        counts=counts_n.astype(np.uint8),
        ids=_packed((ids_nm - before - 1)[is_there]),
        codes=_quantised(logp_nm[is_there]),
        rest=_quantised(rest_n),
    )


def decoded(coded: CodedTokens) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids and log-probabilities `[n m]`, m the largest count, and those of the rest `[n]`; each token adds up to 1.

    An entry behind a token's last has the id −1 and the log-probability −inf.

    >>> ids, logp = np.array([[3, 200], [7, 7]]), np.log([[0.5, 0.25], [0.9, 0.0001]])
    >>> coded = encoded(ids, logp, counts_n=np.array([2, 1]), rest_n=np.log([0.25, 0.1]))
    >>> found, values, rest = decoded(coded)
    >>> found.tolist(), np.exp(values).round(3).tolist(), np.exp(rest).round(3).tolist()
    ([[3, 200], [7, -1]], [[0.5, 0.25], [0.9, 0.0]], [0.25, 0.1])
    """
    counts_n = coded.counts.astype(np.int64)
    gaps = _unpacked(coded.ids)
    ends_n = counts_n.cumsum()
    running = np.concatenate([[0], (gaps + 1).cumsum()])
    base_n = running[ends_n - counts_n]
    width = int(counts_n.max(initial=0))
    is_there = np.arange(width) < counts_n[:, None]
    ids_nm = np.full((len(counts_n), width), -1, dtype=np.int64)
    ids_nm[is_there] = running[1:] - 1 - np.repeat(base_n, counts_n)
    logp_nm = np.full((len(counts_n), width), -np.inf)
    logp_nm[is_there] = _numbers(coded.codes)
    rest_n = _numbers(coded.rest)
    total_n = np.logaddexp(np.logaddexp.reduce(logp_nm, axis=1, initial=-np.inf), rest_n)
    return ids_nm, logp_nm - total_n[:, None], rest_n - total_n


def _packed(gaps: NDArray[np.int64]) -> NDArray[np.uint8]:
    sizes = 1 + (gaps >= 1 << 7) + (gaps >= 1 << 14) + (gaps >= 1 << 21)
    ends = sizes.cumsum()
    out = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for group in range(int(sizes.max(initial=0))):
        has = sizes > group
        bits = (gaps[has] >> (7 * group)) & 127
        out[(ends - sizes)[has] + group] = bits | np.where(sizes[has] > group + 1, 128, 0)
    return out


def _unpacked(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    if not len(data):
        return np.zeros(0, dtype=np.int64)
    is_last = data < 128
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    number = np.concatenate([[0], is_last[:-1].cumsum()])
    shift = 7 * (np.arange(len(data)) - starts[number])
    found: NDArray[np.int64] = np.add.reduceat((data.astype(np.int64) & 127) << shift, starts)
    return found


def _quantised(logp: NDArray[np.float64]) -> NDArray[np.uint16]:
    steps = np.where(np.isneginf(logp), _NOTHING, np.clip(np.rint(-logp * STEPS), 0, _FLOOR))
    return steps.astype(np.uint16)


def _numbers(codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    return np.where(codes == _NOTHING, -np.inf, -codes.astype(np.float64) / STEPS)
