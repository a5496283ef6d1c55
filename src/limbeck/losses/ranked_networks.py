"""Clip networks that go along the classes in the order of the teacher's probability: convolutional and recurrent.

Both see x_k = (log p_k, log q_k) of the k-th likeliest class, scaled, and four numbers about the whole token. They end
in one layer that is 0 at the start, so that they begin as the MLP does, with bounds that are wide open.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from limbeck.losses.clip_features import SUMMARY_FEATURES, classes_and_summary
from limbeck.losses.clip_networks import Bounds, ordered_bounds

_SEEN = 2
_STRIDE = 2


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Convolutional:
    """Two convolutions along the ranks, each of which halves their number, then mean and maximum over what is left.

        h = GELU(conv(GELU(conv(x))))        conv: `channels` outputs, `kernel` neighbours, every second place
        a, b = Linear([mean_k h, max_k h, summary])
        υ = a + 6,  λ = υ − softplus(b + 12)        (MGSR, arXiv 2407.10068, Eq. 6, has an MLP in its place)

    1,546 weights at any number of classes. A token of K classes takes about K·(kernel + channels·(kernel/4 + 3/2))
    numbers of memory: 25 thousand at K = 512, and 2.4 million with features "full" at V = 49,152.
    """

    channels: int = Field(default=16, ge=1)
    kernel: int = Field(default=5, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)

    reads_ranks: ClassVar[bool] = True

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        """The network, its last layer 0."""
        return _ConvolutionalModule(self.channels, self.kernel, generator)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recurrent:
    """A GRU (Cho et al., arXiv 1406.1078) along the ranks, from the tail to the likeliest class, then one layer.

        h_j = GRU(h_{j−1}, x of `classes_per_step` neighbours),  h_0 = 0
        a, b = Linear([h of the last step, summary])
        υ = a + 6,  λ = υ − softplus(b + 12)        (MGSR, arXiv 2407.10068, Eq. 6, has an MLP in its place)

    The classes that hold the mass are read last. 2,442 weights at any number of classes. Its ceil(K / classes_per_step)
    steps wait for each other: 32 at K = 512, but 3,072 with features "full" at V = 49,152, where more classes a step
    are in place.
    """

    hidden: int = Field(default=16, ge=1)
    classes_per_step: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)

    reads_ranks: ClassVar[bool] = True

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        """The network, its last layer 0."""
        return _RecurrentModule(self.hidden, self.classes_per_step, generator)


class _ConvolutionalModule(nn.Module):
    def __init__(self, channels: int, kernel: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kernel = kernel
        self.first_weight = nn.Parameter(_drawn(channels, _SEEN * kernel, generator=generator))
        self.first_bias = nn.Parameter(torch.zeros(channels))
        self.second_weight = nn.Parameter(_drawn(channels, channels * kernel, generator=generator))
        self.second_bias = nn.Parameter(torch.zeros(channels))
        self.last_weight = nn.Parameter(torch.zeros(2, 2 * channels + SUMMARY_FEATURES))
        self.last_bias = nn.Parameter(torch.zeros(2))

    def forward(self, features: Float[Tensor, "n F"]) -> Bounds:
        """The bounds of each token."""
        seen_n2k, summary_n4 = classes_and_summary(features)
        inner_nck = self._along(seen_n2k, self.first_weight, self.first_bias)
        inner_nck = self._along(inner_nck, self.second_weight, self.second_bias)
        found = torch.cat([inner_nck.mean(-1), inner_nck.amax(-1), summary_n4], dim=-1)
        return ordered_bounds(functional.linear(found, self.last_weight, self.last_bias))

    def _along(self, inner_nck: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A convolution as a matrix product: cuDNN's gradient of one differs from run to run."""
        before = self.kernel // 2
        padded = functional.pad(inner_nck, (before, self.kernel - 1 - before))
        windows = padded.unfold(-1, self.kernel, _STRIDE).transpose(1, 2).flatten(2)
        return functional.gelu(functional.linear(windows, weight, bias)).transpose(1, 2)


class _RecurrentModule(nn.Module):
    def __init__(self, hidden: int, classes_per_step: int, generator: torch.Generator) -> None:
        super().__init__()
        self.classes_per_step = classes_per_step
        self.input_weight = nn.Parameter(_drawn(3 * hidden, _SEEN * classes_per_step, generator=generator))
        self.input_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.state_weight = nn.Parameter(_drawn(3 * hidden, hidden, generator=generator))
        self.state_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.last_weight = nn.Parameter(torch.zeros(2, hidden + SUMMARY_FEATURES))
        self.last_bias = nn.Parameter(torch.zeros(2))

    def forward(self, features: Float[Tensor, "n F"]) -> Bounds:
        """The bounds of each token."""
        seen_n2k, summary_n4 = classes_and_summary(features)
        size = self.classes_per_step
        padded = functional.pad(seen_n2k, (0, -seen_n2k.shape[-1] % size))
        steps = padded.reshape(*padded.shape[:2], padded.shape[-1] // size, size).transpose(1, 2).flatten(2)
        state_nh = steps.new_zeros(len(steps), self.state_weight.shape[1])
        weights = (self.input_weight, self.state_weight, self.input_bias, self.state_bias)
        for step_nx in reversed(steps.unbind(1)):
            state_nh = torch.gru_cell(step_nx, state_nh, *weights)
        found = torch.cat([state_nh, summary_n4], dim=-1)
        return ordered_bounds(functional.linear(found, self.last_weight, self.last_bias))


def _drawn(outputs: int, inputs: int, *, generator: torch.Generator) -> Tensor:
    """A matrix from U(−1/√inputs, 1/√inputs)."""
    bound = 1.0 / math.sqrt(inputs)
    return torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
