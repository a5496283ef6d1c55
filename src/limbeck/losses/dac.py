"""Distribution-adaptive clipping: forward KL to the part of the teacher's distribution that a clip network keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from limbeck.errors import ConfigError
from limbeck.losses.clip_networks import MLP, Bounds, ClipNetwork
from limbeck.losses.closed_forms import by_tiles, forward_kl
from limbeck.losses.match import Measured, TokenScores

_CLOSEST_TO_END = 1e-6
_SUMMARY_FEATURES = 4
_TOP = 512


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class DACKL:
    """DAC-KL (MGSR, arXiv 2407.10068, Eq. 5-8): KL(p̃ ‖ q), p̃ the teacher's distribution under soft gates m.

        m_v = σ((logit c_v − λ) / τ) · σ((υ − logit c_v) / τ),   m = 1 for the teacher's most probable class
        p̃_v = m_v·p_v / Z,  Z = Σ m·p;  q is the student's whole softmax

    (λ, υ) are the logits of l and u from the clip network `clip`, which sees both distributions without gradient; its
    own gradient comes through the gates. `coordinate` "mass": c_v = 1 − (mass of likelier classes) − p_v/2. "value":
    thresholds on p_v itself, log p and log l, log u in place of the logits. `normalise` "teacher": as above. "none":
    Σ m·p·log(p/q), which may be negative.

    `features` "topk": the network sees the `top` likeliest classes, and with "mass" they alone have coordinates of
    their own; all others keep their p and q and share one gate, at c = R/2 with R their mass. "full": the paper's
    input, p, sorted p and q, and a full sort. The paper states neither the network's size nor how a quantile becomes a
    threshold; these readings and their reasons are in docs/methods.md.
    """

    clip: ClipNetwork = field(default_factory=MLP)
    features: Literal["topk", "full"] = "topk"
    top: int = Field(default=_TOP, ge=1)
    coordinate: Literal["mass", "value"] = "mass"
    normalise: Literal["teacher", "none"] = "teacher"
    softness: float = Field(default=0.5, gt=0.0)

    needs_teacher: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_top(self) -> DACKL:
        if self.features == "full" and self.top != _TOP:
            raise ValueError(f"top is {self.top}, which features 'full' never reads; delete it, or take 'topk'")
        return self

    @property
    def learning_rate(self) -> float:
        """That of the clip network."""
        return self.clip.learning_rate

    def build(self, *, vocabulary_size: int, generator: torch.Generator) -> ClippedKL:
        """The term with its network."""
        return ClippedKL(self, vocabulary_size=vocabulary_size, generator=generator)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clipped:
    """A token's loss, and what the clip did to its classes: `mass` Σ m·p, `count` Σ m, `others` the largest gate
    beside the likeliest class's."""

    loss: Float[Tensor, " n"]
    mass: Float[Tensor, " n"]
    count: Float[Tensor, " n"]
    others: Float[Tensor, " n"]


class ClippedKL(nn.Module):
    """`DACKL` with its clip network: scores to nats a token.

    >>> from limbeck.losses.clip_networks import FixedBounds
    >>> term = DACKL(clip=FixedBounds()).build(vocabulary_size=2, generator=torch.Generator())
    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> round(term(TokenScores(student_logp=q, target_logp=p, tokens=torch.tensor([0]))).item(), 4)
    0.5108
    """

    needs_teacher: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("lower", "upper", "kept_mass", "kept_classes", "only_target")

    def __init__(self, part: DACKL, *, vocabulary_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.part = part
        self.top = min(part.top, vocabulary_size)
        self.others = vocabulary_size - self.top
        numbers = 3 * vocabulary_size if part.features == "full" else 2 * self.top + _SUMMARY_FEATURES
        self.network = part.clip.build(numbers, generator=generator)

    def forward(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        return self.measured(scores).loss

    def measured(self, scores: TokenScores) -> Measured:
        """The loss, and of each token: l and u, the kept mass Σ m·p, the kept classes Σ m, and whether all gates but
        that of the likeliest class are under one half."""
        if scores.target_logp is None:
            raise ConfigError("DAC-KL clips the teacher, but no teacher was given: name one in models.teacher")
        dtype = torch.promote_types(scores.student_logp.dtype, torch.float32)
        target_nV, student_nV = scores.target_logp.detach().to(dtype), scores.student_logp.to(dtype)
        bounds, clipped = self._clip(target_nV=target_nV, student_nV=student_nV)
        return Measured(
            loss=clipped.loss,
            values={
                "lower": bounds.lower.detach().sigmoid(),
                "upper": bounds.upper.detach().sigmoid(),
                "kept_mass": clipped.mass.detach(),
                "kept_classes": clipped.count.detach(),
                "only_target": (clipped.others.detach() < 0.5).to(dtype),
            },
        )

    @torch.no_grad()
    def gates(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """m of every class, to look at; a whole `[n V]`, so for few tokens."""
        assert scores.target_logp is not None
        target_nV, student_nV = scores.target_logp, scores.student_logp
        top = torch.topk(target_nV, self.top, dim=-1)
        if self.part.features == "full":
            bounds = self._bounds(_full_features(target_nV=target_nV, student_nV=student_nV))
        else:
            bounds = self._bounds(_top_features(target_nK=top.values, student_nK=student_nV.gather(1, top.indices)))
        if self.part.coordinate == "value":
            return self._all_gates(bounds, target_nV).exp()
        if self.part.features == "full":
            ordered_nV, order_nV = target_nV.sort(dim=-1, descending=True)
            return torch.zeros_like(target_nV).scatter(1, order_nV, self._all_gates(bounds, ordered_nV).exp())
        p_nK = top.values.exp()
        log_m_nK, log_r_n = self._top_gates(bounds, p_nK, (1 - p_nK.sum(-1)).clamp(min=0.0))
        return log_r_n.exp().unsqueeze(-1).expand_as(target_nV).scatter(1, top.indices, log_m_nK.exp())

    def _clip(self, *, target_nV: Tensor, student_nV: Tensor) -> tuple[Bounds, Clipped]:
        top = torch.topk(target_nV, self.top, dim=-1)
        is_top = self.part.features == "topk"
        if is_top and self.part.coordinate == "mass":
            all_n, student_nK = _AllAndTop.apply(student_nV, target_nV, top.indices)  # type: ignore[no-untyped-call]
            bounds = self._bounds(_top_features(target_nK=top.values, student_nK=student_nK.detach()))
            return bounds, self._clip_top(bounds, target_nK=top.values, student_nK=student_nK, all_n=all_n)
        student = student_nV.detach()
        if is_top:
            features_nF = _top_features(target_nK=top.values, student_nK=student.gather(1, top.indices))
        else:
            features_nF = _full_features(target_nV=target_nV, student_nV=student)
        bounds = self._bounds(features_nF)
        return bounds, self._clip_all(bounds, target_nV=target_nV, student_nV=student_nV)

    def _bounds(self, features_nF: Float[Tensor, "n F"]) -> Bounds:
        own = next(self.network.parameters(), features_nF)
        bounds: Bounds = self.network(features_nF.to(own.dtype))
        return Bounds(lower=bounds.lower.to(features_nF.dtype), upper=bounds.upper.to(features_nF.dtype))

    def _log_gates(self, bounds: Bounds, place_nk: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """log m of classes by their place: the logit of their coordinate ("mass") or their log-probability."""
        lower_n, upper_n = bounds.lower, bounds.upper
        if self.part.coordinate == "value":
            lower_n, upper_n = functional.logsigmoid(lower_n), functional.logsigmoid(upper_n)
        above_nk = functional.logsigmoid((place_nk - lower_n.unsqueeze(-1)) / self.part.softness)
        below_nk = functional.logsigmoid((upper_n.unsqueeze(-1) - place_nk) / self.part.softness)
        # Shut gates are exp(−10⁴) = 0, and 0 · log 0 is then 0.
        return (above_nk + below_nk).clamp(min=-1e4)

    def _clip_top(self, bounds: Bounds, *, target_nK: Tensor, student_nK: Tensor, all_n: Tensor) -> Clipped:
        """K exact classes, sorted; the others through KL_all − KL_K under one gate m_r.

        (1/Z)·[ Σ_K m·p·(log m + log(p/q) − log Z) + m_r·((KL_all − KL_K) + R·(log m_r − log Z)) ]
        """
        p_nK = target_nK.exp()
        rest_n = (1 - p_nK.sum(-1)).clamp(min=0.0) if self.others else p_nK.new_zeros(len(p_nK))
        log_m_nK, log_r_n = self._top_gates(bounds, p_nK, rest_n)
        m_nK, m_r_n = log_m_nK.exp(), log_r_n.exp()
        gap_nK = torch.where(p_nK > 0, target_nK - student_nK, 0.0)
        kept_nK = m_nK * p_nK
        rest_gap_n = all_n - (p_nK * gap_nK).sum(-1) if self.others else torch.zeros_like(all_n)
        mass_n = kept_nK.sum(-1) + m_r_n * rest_n
        loss_n = (kept_nK * gap_nK).sum(-1) + m_r_n * rest_gap_n
        if self.part.normalise == "teacher":
            inner_n = (kept_nK * log_m_nK).sum(-1) + m_r_n * rest_n * log_r_n
            loss_n = (loss_n + inner_n) / mass_n - mass_n.log()
        return Clipped(
            loss=loss_n,
            mass=mass_n,
            count=m_nK.sum(-1) + m_r_n * self.others,
            others=torch.cat([m_nK[:, 1:], m_r_n.unsqueeze(-1)], dim=-1).amax(-1),
        )

    def _top_gates(self, bounds: Bounds, p_nK: Tensor, rest_n: Tensor) -> tuple[Tensor, Tensor]:
        """log m of the K classes, sorted, and of all others."""
        log_m_nK = self._log_gates(bounds, _logit(1 - p_nK.cumsum(-1) + p_nK / 2))
        log_m_nK = torch.cat([torch.zeros_like(log_m_nK[:, :1]), log_m_nK[:, 1:]], dim=-1)
        return log_m_nK, self._log_gates(bounds, _logit(rest_n / 2).unsqueeze(-1)).squeeze(-1)

    def _all_gates(self, bounds: Bounds, target_nV: Tensor) -> Tensor:
        """log m of every class; in the mass coordinate `target_nV` is sorted."""
        p_nV = target_nV.exp()
        place_nV = target_nV if self.part.coordinate == "value" else _logit(1 - p_nV.cumsum(-1) + p_nV / 2)
        is_target_nV = torch.zeros_like(p_nV, dtype=torch.bool).scatter(1, p_nV.argmax(-1, keepdim=True), True)
        return self._log_gates(bounds, place_nV).masked_fill(is_target_nV, 0.0)

    def _clip_all(self, bounds: Bounds, *, target_nV: Tensor, student_nV: Tensor) -> Clipped:
        """Every class with a gate of its own."""
        if self.part.coordinate == "mass":
            target_nV, order_nV = target_nV.sort(dim=-1, descending=True)
            student_nV = student_nV.gather(1, order_nV)
        p_nV = target_nV.exp()
        log_m_nV = self._all_gates(bounds, target_nV)
        m_nV = log_m_nV.exp()
        kept_nV = m_nV * p_nV
        # Both −inf where an id is not shared; p is 0 there.
        gap_nV = torch.where(p_nV > 0, target_nV - student_nV, 0.0)
        mass_n = kept_nV.sum(-1)
        loss_n = (kept_nV * gap_nV).sum(-1)
        if self.part.normalise == "teacher":
            loss_n = (loss_n + (kept_nV * log_m_nV).sum(-1)) / mass_n - mass_n.log()
        return Clipped(
            loss=loss_n,
            mass=mass_n,
            count=m_nV.sum(-1),
            others=m_nV.scatter(1, p_nV.argmax(-1, keepdim=True), 0.0).amax(-1),
        )


class _AllAndTop(torch.autograd.Function):
    """KL(t ‖ s) over all classes, and the student's log-probabilities of some: one gradient of [n V] for both."""

    @staticmethod
    def forward(ctx: Any, student_nV: Tensor, target_nV: Tensor, top_nK: Tensor) -> tuple[Tensor, Tensor]:
        value_n, slope_nV = by_tiles(forward_kl, target_logp=target_nV, student_logp=student_nV)
        ctx.save_for_backward(slope_nV, top_nK)
        return value_n, student_nV.gather(1, top_nK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, all_n: Tensor, chosen_nK: Tensor) -> tuple[Tensor, None, None]:
        slope_nV, top_nK = ctx.saved_tensors
        return (slope_nV * all_n.unsqueeze(-1)).scatter_add_(1, top_nK, chosen_nK), None, None


def _top_features(*, target_nK: Tensor, student_nK: Tensor) -> Tensor:
    """Of the K likeliest classes log p and log q; of both distributions the entropy, all other classes taken as one;
    the largest p, and the teacher's mass outside the K."""
    p_nK, q_nK = target_nK.exp(), student_nK.exp()
    rest_n = (1 - p_nK.sum(-1)).clamp(min=0.0)
    entropies = [
        torch.special.entr(each_nK).sum(-1) + torch.special.entr((1 - each_nK.sum(-1)).clamp(min=0.0))
        for each_nK in (p_nK, q_nK)
    ]
    summary_n4 = torch.stack([*entropies, p_nK[:, 0], rest_n], dim=-1)
    return torch.cat([_scaled(target_nK), _scaled(student_nK), summary_n4], dim=-1)


def _full_features(*, target_nV: Tensor, student_nV: Tensor) -> Tensor:
    """The paper's input, log-scaled: p, p sorted from the largest, q."""
    ordered_nV = target_nV.sort(dim=-1, descending=True).values
    return torch.cat([_scaled(each) for each in (target_nV, ordered_nV, student_nV)], dim=-1)


def _scaled(logp: Tensor) -> Tensor:
    """Log-probabilities from e⁻²⁰ to 1 as numbers from −2 to 2: raw ones are so small that a network sees nothing."""
    return (logp.clamp(min=-20.0) + 10.0) / 5.0


def _logit(coordinate: Tensor) -> Tensor:
    """log(c / (1 − c)), c kept away from 0 and 1."""
    inside = coordinate.clamp(_CLOSEST_TO_END, 1.0 - _CLOSEST_TO_END)
    return inside.log() - torch.log1p(-inside)
