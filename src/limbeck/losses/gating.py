"""How much of each class DAC-KL keeps: where a class lies, and the gate that two bounds give it there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from limbeck.losses.clip_networks import Bounds

Coordinate = Literal["mass", "value", "rank"]
GateKind = Literal["soft", "straight-through", "hard"]
Parts = Literal["both", "target", "dense"]

_CLOSEST_TO_END = 1e-6
# exp(-10⁴) = 0, and 0 · log 0 is then 0.
_SHUT = -1e4


@dataclass(frozen=True, kw_only=True)
class Gates:
    """m of k classes a token, and log m. The log of hard gates is 0 throughout: m·log m is 0 for them."""

    value: Float[Tensor, "n k"]
    log: Float[Tensor, "n k"]

    def detached(self) -> Gates:
        """The same gates without gradient."""
        return Gates(value=self.value.detach(), log=self.log.detach())


@dataclass(frozen=True, kw_only=True)
class Window:
    """The gates of a token: of the classes that have one of their own, and the one that all others share."""

    classes: Gates
    rest: Gates | None = None

    def detached(self) -> Window:
        """The same gates without gradient."""
        return Window(classes=self.classes.detached(), rest=None if self.rest is None else self.rest.detached())

    def lifted(self) -> Window:
        """Soft gates in units of the token's largest one, for losses in which their common scale cancels: without the
        likeliest class all of them may be so small that their sum is 0. Gates that are all shut stay so."""
        logs_nk = self.classes.log if self.rest is None else torch.cat([self.classes.log, self.rest.log], dim=-1)
        most_n1 = logs_nk.detach().amax(-1, keepdim=True)
        most_n1 = torch.where(most_n1 > _SHUT, most_n1, 0.0)

        def lifted(gates: Gates) -> Gates:
            log_nk = gates.log - most_n1
            return Gates(value=log_nk.exp(), log=log_nk)

        return replace(self, classes=lifted(self.classes), rest=None if self.rest is None else lifted(self.rest))


@dataclass(frozen=True, kw_only=True)
class Gating:
    """Bounds and places to gates (MGSR, arXiv 2407.10068, Eq. 7).

        soft              m = σ((place − λ) / τ) · σ((υ − place) / τ)
        hard              m = 1 where λ ≤ place ≤ υ, else 0
        straight-through  m = hard + soft − stop(soft): the value is hard, the derivative soft

    `parts` "both": the likeliest class has the gate 1 wherever it lies. "dense": it has the gate of its place.
    "target": it has the gate 1, all others 0.
    """

    coordinate: Coordinate
    kind: GateKind
    parts: Parts
    softness: float

    def __call__(
        self, bounds: Bounds, place_nk: Float[Tensor, "n k"], *, is_target_nk: Bool[Tensor, "n k"] | None = None
    ) -> Gates:
        """The gates of classes at these places; `is_target_nk` is None where none of them is the likeliest one."""
        lower_n1, upper_n1 = bounds.lower.unsqueeze(-1), bounds.upper.unsqueeze(-1)
        if self.coordinate == "value":
            lower_n1 = functional.logsigmoid(lower_n1)
            # An open end stays open: at log 1 = 0 a soft gate would be half shut for a class of all the mass.
            upper_n1 = torch.where(upper_n1.isposinf(), upper_n1, functional.logsigmoid(upper_n1))
        # An open end is below every place, that of a masked class (log 0) too.
        over_nk = torch.where(lower_n1.isneginf(), torch.inf, place_nk - lower_n1)
        above_nk = functional.logsigmoid(over_nk / self.softness)
        below_nk = functional.logsigmoid((upper_n1 - place_nk) / self.softness)
        log_nk = (above_nk + below_nk).clamp(min=_SHUT)
        inside_nk = (place_nk >= lower_n1) & (place_nk <= upper_n1)
        if self.parts == "target":
            log_nk, inside_nk = torch.full_like(log_nk, _SHUT), torch.zeros_like(inside_nk)
        if self.parts != "dense" and is_target_nk is not None:
            log_nk, inside_nk = log_nk.masked_fill(is_target_nk, 0.0), inside_nk | is_target_nk
        if self.kind == "soft":
            return Gates(value=log_nk.exp(), log=log_nk)
        value_nk = inside_nk.to(log_nk.dtype)
        if self.kind == "straight-through":
            soft_nk = log_nk.exp()
            value_nk = value_nk + (soft_nk - soft_nk.detach())
        return Gates(value=value_nk, log=torch.zeros_like(log_nk))

    def places(
        self, target_nk: Float[Tensor, "n k"], *, num_classes_n: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n k"]:
        """Where the first k classes lie, from the likeliest on: the logit of their coordinate, or log p ("value").

        mass  c = 1 − (mass of the likelier classes) − p/2
        rank  c = 1 − (number of the likelier classes + ½) / V,  V = `num_classes_n`
        """
        if self.coordinate == "value":
            return target_nk
        if self.coordinate == "mass":
            p_nk = target_nk.exp()
            return _logit(1 - p_nk.cumsum(-1) + p_nk / 2)
        assert num_classes_n is not None, "a rank is one among all classes"
        before_k = torch.arange(target_nk.shape[-1], dtype=target_nk.dtype, device=target_nk.device) + 0.5
        # Ids that are not shared come last, behind all V that are counted.
        return (num_classes_n.unsqueeze(-1) - before_k).clamp(min=0.5).log() - before_k.log()

    def rest_place(
        self, *, rest_n: Float[Tensor, " n"], num_before: int, num_classes_n: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n 1"]:
        """Where all but the `num_before` likeliest classes lie, as one: in the middle of their mass R, c = R/2, or of
        their ranks, c = (V − K) / 2V."""
        assert self.coordinate != "value", "by value each class has a place of its own"
        if self.coordinate == "mass":
            return _logit(rest_n / 2).unsqueeze(-1)
        assert num_classes_n is not None, "a rank is one among all classes"
        behind_n = (num_classes_n - num_before).clamp(min=0.5)
        return (behind_n.log() - (num_classes_n + num_before).log()).unsqueeze(-1)


def farthest_rank(num_classes: int) -> float:
    """The logit of the likeliest class's coordinate by rank, log(2V − 1); that of the last one is its negative.

    >>> round(farthest_rank(49_152), 2)
    11.5
    """
    return math.log(2 * num_classes - 1)


def _logit(coordinate: Tensor) -> Tensor:
    """log(c / (1 − c)), c kept away from 0 and 1."""
    inside = coordinate.clamp(_CLOSEST_TO_END, 1.0 - _CLOSEST_TO_END)
    return inside.log() - torch.log1p(-inside)
