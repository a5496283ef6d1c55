"""One draw from one distribution: filters, then the inverse CDF in float64 at a given uniform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

_BLOCK = 256


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Sampling:
    """How a token is drawn; complete and explicit, nothing is inherited from a model's generation_config.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 keep every class. `no_repeat_ngram` n forbids a token that would
    complete an n-gram which the row (prompt included) holds already; 0 forbids nothing. A row ends with the first of
    `stop_ids`; `banned_ids` are never drawn.
    """

    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    no_repeat_ngram: int = Field(default=0, ge=0)
    stop_ids: frozenset[int] = frozenset()
    banned_ids: frozenset[int] = frozenset()


def distribution(logp_bV: Float[Tensor, "b V"], sampling: Sampling) -> Float[Tensor, "b V"]:
    """The probabilities that a token is drawn by: temperature, then top-k, then top-p, renormalised. Not for greedy.

    top-p keeps the smallest set of most probable classes whose mass reaches p (the class that crosses p is kept).
    """
    if sampling.temperature != 1.0:
        logp_bV = torch.log_softmax(logp_bV / sampling.temperature, dim=-1)
    if sampling.top_k and sampling.top_k < logp_bV.shape[1]:
        least_b1 = torch.topk(logp_bV, sampling.top_k, dim=-1).values[:, -1:]
        logp_bV = logp_bV.masked_fill(logp_bV < least_b1, -torch.inf)
    probabilities_bV = torch.softmax(logp_bV, dim=-1)
    if sampling.top_p < 1.0:
        ordered_bV, index_bV = probabilities_bV.sort(dim=-1, descending=True, stable=True)
        before_bV = ordered_bV.double().cumsum(dim=-1) - ordered_bV
        dropped_bV = torch.zeros_like(before_bV, dtype=torch.bool).scatter(1, index_bV, before_bV >= sampling.top_p)
        probabilities_bV = probabilities_bV.masked_fill(dropped_bV, 0.0)
        probabilities_bV = probabilities_bV / probabilities_bV.sum(dim=-1, keepdim=True)
    return probabilities_bV


def draw(
    logp_bV: Float[Tensor, "b V"], *, uniforms_b: Float[Tensor, " b"], sampling: Sampling
) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """One token a row and the log-probability it was drawn with, in nats (0 for greedy).

        token = min { v : F(v) > u · F(V − 1) },  F the cumulative distribution in float64

    >>> import math
    >>> logp = torch.tensor([[0.2, 0.5, 0.3]] * 3).log()
    >>> draw(logp, uniforms_b=torch.tensor([0.1, 0.2, 0.71], dtype=torch.float64), sampling=Sampling())[0].tolist()
    [0, 1, 2]
    """
    if sampling.temperature == 0.0:
        tokens_b = logp_bV.argmax(dim=-1)
        return tokens_b, torch.zeros(len(tokens_b), device=logp_bV.device)
    probabilities_bV = distribution(logp_bV, sampling)
    tokens_b = _inverse_cdf(probabilities_bV, uniforms_b=uniforms_b.to(probabilities_bV.device))
    chosen_b = probabilities_bV.gather(1, tokens_b[:, None]).squeeze(1)
    # Rounding may push u·F(V − 1) onto F(V − 1) itself, past the last class that has any probability.
    impossible_b = chosen_b <= 0
    if bool(impossible_b.any()):
        tokens_b = torch.where(impossible_b, probabilities_bV.argmax(dim=-1), tokens_b)
        chosen_b = probabilities_bV.gather(1, tokens_b[:, None]).squeeze(1)
    return tokens_b, chosen_b.log()


def _inverse_cdf(probabilities_bV: Float[Tensor, "b V"], *, uniforms_b: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The first class whose cumulative probability in float64 is above u times the sum of all.

    The sums of blocks of classes come first, and then the classes of one block: a running sum over a whole vocabulary,
    in which each addition waits for the last, takes longer than everything else that a draw does.
    """
    padded_bV = functional.pad(probabilities_bV, (0, -probabilities_bV.shape[1] % _BLOCK))
    blocks_bKn = padded_bV.view(len(padded_bV), -1, _BLOCK)
    upto_bK = blocks_bKn.double().sum(dim=-1).cumsum(dim=-1)
    targets_b1 = uniforms_b[:, None] * upto_bK[:, -1:]
    block_b1 = torch.searchsorted(upto_bK, targets_b1, right=True).clamp(max=upto_bK.shape[1] - 1)
    before_b1 = functional.pad(upto_bK, (1, 0)).gather(1, block_b1)
    rows_b = torch.arange(len(padded_bV), device=padded_bV.device)
    inside_bn = blocks_bKn[rows_b, block_b1.squeeze(1)].double().cumsum(dim=-1) + before_b1
    place_b1 = torch.searchsorted(inside_bn, targets_b1, right=True).clamp(max=_BLOCK - 1)
    return (block_b1 * _BLOCK + place_b1).squeeze(1).clamp(max=probabilities_bV.shape[1] - 1)


class NgramBan:
    """For each row, which tokens would complete an n-gram that the row holds already."""

    def __init__(self, size: int, rows: Sequence[Sequence[int]]) -> None:
        assert size > 0
        self._size = size
        self._rows = [list(row) for row in rows]
        self._next: list[dict[tuple[int, ...], set[int]]] = [{} for _ in rows]
        for index, row in enumerate(self._rows):
            for end in range(size, len(row) + 1):
                self._remember(index, row[end - size : end])

    def _remember(self, index: int, ngram: Sequence[int]) -> None:
        self._next[index].setdefault(tuple(ngram[:-1]), set()).add(ngram[-1])

    def banned(self, index: int) -> set[int]:
        """The tokens that row `index` may not draw next."""
        row = self._rows[index]
        if len(row) < self._size - 1:
            return set()
        return self._next[index].get(tuple(row[len(row) - self._size + 1 :]), set())

    def append(self, index: int, token: int) -> None:
        """Row `index` drew `token`."""
        row = self._rows[index]
        row.append(token)
        if len(row) >= self._size:
            self._remember(index, row[-self._size :])
