"""Where DAC-KL clips: small networks from a token's two distributions to a lower and an upper bound.

A network gives two logits a token, `lower` and `upper`; σ of them are the paper's l and u (MGSR, arXiv 2407.10068,
Eq. 6). Learned ones start wide open, l = 0.0025 and u = 0.9975, so that training begins close to forward KL.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ConfigError

_UPPER_START, _WIDTH_START = 6.0, 12.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """The logits of l and u, one of each a token; ±inf where a bound is open."""

    lower: Float[Tensor, " n"]
    upper: Float[Tensor, " n"]


@runtime_checkable
class ClipNetwork(Protocol):
    """A component that builds a module from features `[n F]` to `Bounds`, with l ≤ u."""

    @property
    def learning_rate(self) -> float:
        """The peak learning rate of its parameters; it follows the student's schedule. 0 where nothing is learned."""
        ...

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        """A module of its own weights, drawn from the generator."""
        ...


@runtime_checkable
class RankedClipNetwork(Protocol):
    """A clip network to which the order of the classes means something. It never sees them in the vocabulary's order:
    its features are log p and log q of the classes by rank, and four summaries; with features "full", of all V."""

    reads_ranks: ClassVar[bool]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MLP:
    """Two layers, `Linear(F, hidden) → GELU → Linear(hidden, 2)`: Eq. 6's f_sub, whose sizes the paper leaves open.

    υ = a + 6,  λ = υ − softplus(b + 12),  u = σ(υ),  l = σ(λ) ≤ u        a, b: its outputs, both 0 at the start
    """

    hidden: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        """The network, its last layer 0."""
        return _MLPModule(num_features, self.hidden, generator)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FixedBounds:
    """The same bounds for every token, learned by nobody: l = `lower`, u = `upper`. 0 and 1 are open: forward KL.

    >>> bounds = FixedBounds(0.0, 0.5).build(4, generator=torch.Generator())(torch.zeros(1, 4))
    >>> bounds.lower.tolist(), bounds.upper.tolist()
    ([-inf], [0.0])
    """

    lower: float = Field(default=0.0, ge=0.0, lt=1.0)
    upper: float = Field(default=1.0, gt=0.0, le=1.0)

    @property
    def learning_rate(self) -> float:
        """0: nothing is learned."""
        return 0.0

    @model_validator(mode="after")
    def _check_order(self) -> FixedBounds:
        if self.lower > self.upper:
            raise ValueError(f"lower is {self.lower} and upper {self.upper}; lower may not be above upper")
        return self

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        """A module without parameters."""
        return _FixedModule(lower=_logit(self.lower), upper=_logit(self.upper))


def network_of(part: ClipNetwork, num_features: int, *, generator: torch.Generator) -> nn.Module:
    """The network of a component, which may be somebody's own. Raises `ConfigError` for one that is to learn and has no
    parameters, such as layers in a plain list."""
    network = part.build(num_features, generator=generator)
    if part.learning_rate > 0 and not any(each.requires_grad for each in network.parameters()):
        raise ConfigError(
            f"the clip network {type(network).__name__} has no parameters, so that it would learn nothing; a network "
            "that learns nothing has learning_rate 0"
        )
    return network


def bounds_of(network: nn.Module, features_nF: Float[Tensor, "n F"]) -> Bounds:
    """What a network, which may be somebody's own, says of each token.

    Raises `ConfigError` for what is no `Bounds` of one number a token each, for l > u, and for bounds without gradient
    of a network with parameters: gates would be of other tokens, shut, or open for ever.
    """
    found = network(features_nF)
    wanted = features_nF.shape[:1]
    name = type(network).__name__
    if not isinstance(found, Bounds) or not found.lower.shape == found.upper.shape == wanted:
        gave = f"a {type(found).__name__}"
        if isinstance(found, Bounds):
            gave = f"bounds of shapes {list(found.lower.shape)} and {list(found.upper.shape)}"
        raise ConfigError(
            f"the clip network {name} gave {gave} for {wanted[0]} tokens; allowed: limbeck.losses.Bounds with a lower "
            f"and an upper of shape {list(wanted)}"
        )
    is_learned = torch.is_grad_enabled() and any(each.requires_grad for each in network.parameters())
    if is_learned and not (found.lower.requires_grad or found.upper.requires_grad):
        raise ConfigError(
            f"the bounds of the clip network {name} have no gradient, so that it would learn nothing: they do not "
            "depend on its parameters, or were detached from them"
        )
    # The library's own are in order as they are made; to look waits for the device.
    if not type(network).__module__.startswith("limbeck.") and bool((found.lower > found.upper).any()):
        raise ConfigError(f"the clip network {name} gave a lower bound above the upper one; allowed: lower ≤ upper")
    return found


class _MLPModule(nn.Module):
    def __init__(self, num_features: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(num_features)
        first = torch.empty(hidden, num_features).uniform_(-bound, bound, generator=generator)
        self.first_weight = nn.Parameter(first)
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second_weight = nn.Parameter(torch.zeros(2, hidden))
        self.second_bias = nn.Parameter(torch.zeros(2))

    def forward(self, features: Float[Tensor, "n F"]) -> Bounds:
        """The bounds of each token."""
        hidden_nh = functional.gelu(functional.linear(features, self.first_weight, self.first_bias))
        return ordered_bounds(functional.linear(hidden_nh, self.second_weight, self.second_bias))


def ordered_bounds(outputs_n2: Float[Tensor, "n 2"]) -> Bounds:
    """υ = a + 6,  λ = υ − softplus(b + 12): bounds in order for any a and b, and wide open where both are 0.

    >>> bounds = ordered_bounds(torch.zeros(1, 2))
    >>> round(bounds.lower.sigmoid().item(), 4), round(bounds.upper.sigmoid().item(), 4)
    (0.0025, 0.9975)
    """
    a_n, b_n = outputs_n2.unbind(-1)
    upper_n = a_n + _UPPER_START
    return Bounds(lower=upper_n - functional.softplus(b_n + _WIDTH_START), upper=upper_n)


class _FixedModule(nn.Module):
    def __init__(self, *, lower: float, upper: float) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, features: Float[Tensor, "n F"]) -> Bounds:
        """The bounds of each token."""
        return Bounds(
            lower=features.new_full((len(features),), self.lower), upper=features.new_full((len(features),), self.upper)
        )


def _logit(share: float) -> float:
    if share in (0.0, 1.0):
        return math.inf if share else -math.inf
    return math.log(share) - math.log1p(-share)
