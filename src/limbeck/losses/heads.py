"""A language-model head: the only road from hidden states to log-probabilities over the shared vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

# Each chunk reads the head's weight four times over; below this many tokens that costs more than it saves memory.
_LEAST_TOKENS = 256
_CPU_CHUNK_BYTES = 24 * 2**20
_GPU_CHUNK_BYTES = 256 * 2**20
# Below this many, a chunk's products are as slow as single tokens'.
_FEWEST_TOKENS = 32
# Blocks of [c V] that exist at once at most: both distributions, their exponentials, the gradient, and what terms make.
_BLOCKS = 8
_ROOM_SHARE = 4
# What a thread's second-level cache holds three or four times.
_CACHED_NUMBERS = 2**17


@dataclass(frozen=True, kw_only=True)
class Head:
    """`z = softcap·tanh(scale·(h·Wᵀ + b) / softcap)` over the first `size` ids, −inf where `shared` is false.

    `weight` is `[V_model, D]`, or None where the "hidden states" are logits already (the dense path). `size` and
    `shared` are the pair's vocabulary rule; softmax comes after them, so that dropped ids carry no probability.
    """

    weight: Float[Tensor, "width D"] | None
    bias: Float[Tensor, " width"] | None = None
    size: int
    shared: Bool[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def raw(self, hidden: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
        """The linear part, in the dtype of `hidden`: a tensor of its own, that its owner may overwrite."""
        if self.weight is None:
            return hidden[:, : self.size].clone()
        weight, bias = self.weight[: self.size], self.bias
        bias = None if bias is None else bias[: self.size].to(hidden.dtype)
        return functional.linear(hidden, weight.to(hidden.dtype), bias)

    def logits(self, raw: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
        """Scale, soft cap and vocabulary mask, in float32 or better; `raw` itself where none of them is to be done."""
        logits = raw if raw.dtype == torch.float64 else raw.float()
        if self.weight is not None:
            if self.scale != 1.0:
                logits = logits * self.scale
            if self.softcap is not None:
                logits = torch.tanh(logits / self.softcap) * self.softcap
        if self.shared is not None:
            logits = logits.masked_fill(~self.shared, -torch.inf)
        return logits

    def log_probabilities(self, raw: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
        """Logits and log-softmax, in float32 or better; differentiable in `raw`."""
        return torch.log_softmax(self.logits(raw), dim=-1)

    def __call__(self, hidden: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
        """Log-probabilities `[n V]` of hidden states `[n D]`."""
        logits = self.logits(self.raw(hidden))
        return torch.log_softmax(logits, dim=-1) if logits.requires_grad else overwriting_log_softmax(logits)

    def detached(self) -> Head:
        """The same head, cut off from the graph and cast once to nothing: parameters without gradient."""
        weight = None if self.weight is None else self.weight.detach()
        bias = None if self.bias is None else self.bias.detach()
        return replace(self, weight=weight, bias=bias)

    def in_dtype(self, dtype: torch.dtype) -> Head:
        """The same head with its weight in `dtype`, so that chunks do not cast it again and again."""
        weight = None if self.weight is None else self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=weight, bias=bias)


@torch.no_grad()
def overwriting_log_softmax(logits: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
    """`torch.log_softmax(logits, dim=-1)`, without gradient; on a CPU it takes the place of `logits` in memory."""
    if logits.device.type != "cpu":
        return torch.log_softmax(logits, dim=-1)
    for tile in tiles(logits, numbers=_CACHED_NUMBERS * torch.get_num_threads()):
        logits[tile] = torch.log_softmax(logits[tile], dim=-1)
    return logits


def tiles(block: Float[Tensor, "n V"], *, numbers: int) -> Iterator[slice]:
    """Rows of a block, on a CPU so few at a time that they hold about `numbers` numbers; elsewhere all at once.

    >>> list(tiles(torch.empty(5, 10), numbers=25))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows = max(1, numbers // block.shape[1]) if block.device.type == "cpu" else len(block)
    for first in range(0, len(block), rows or 1):
        yield slice(first, min(first + rows, len(block)))


def auto_chunk(vocabulary_size: int, device_type: str, *, room: int | None = None) -> int:
    """Scored tokens a chunk: so few that blocks of `[c V]` are small beside the head's gradient, so many that reading
    the head's weight anew for each chunk does not count.

    With `room`, bytes that are free for them and for what comes beside, fewer where the blocks of so many would take
    more than a quarter of it: a power of two, of at least 32.

    >>> auto_chunk(49_152, "cpu"), auto_chunk(4_096, "cpu")
    (256, 1536)
    >>> [auto_chunk(49_152, "cpu", room=gigabytes * 10**9) for gigabytes in (8, 1, 0)]
    [256, 128, 32]
    """
    limit = _CPU_CHUNK_BYTES if device_type == "cpu" else _GPU_CHUNK_BYTES
    most = max(_LEAST_TOKENS, limit // (4 * vocabulary_size) + 7 & ~7)
    fitting = most if room is None else room // (_ROOM_SHARE * _BLOCKS * 4 * vocabulary_size)
    return most if fitting >= most else max(_FEWEST_TOKENS, 1 << max(0, fitting.bit_length() - 1))
