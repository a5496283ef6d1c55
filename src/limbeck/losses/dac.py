"""Distribution-adaptive clipping: forward KL to the part of the teacher's distribution that a clip network keeps."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from limbeck.errors import ConfigError
from limbeck.losses.clip_features import SUMMARY_FEATURES, ranked_features, whole_features
from limbeck.losses.clip_networks import (
    MLP,
    Bounds,
    ClipNetwork,
    FixedBounds,
    RankedClipNetwork,
    bounds_of,
    network_of,
)
from limbeck.losses.clipping import Kept, Normalise, Rest, all_and_top, clipped_loss, kept_by
from limbeck.losses.gating import Coordinate, GateKind, Gating, Parts, Window, farthest_rank
from limbeck.losses.match import Measured, TokenScores

_TOP = 512
_LEAST_MASS = 0.9


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class DACKL:
    """DAC-KL (MGSR, arXiv 2407.10068, Eq. 5-8): KL(p̃ ‖ q), p̃ the teacher's distribution under soft gates m.

        m_v = σ((logit c_v − λ) / τ) · σ((υ − logit c_v) / τ),   m = 1 for the teacher's most probable class
        p̃_v = m_v·p_v / Z,  Z = Σ m·p;  q is the student's whole softmax

    (λ, υ) are the logits of l and u from the clip network `clip`, which sees both distributions without gradient; its
    own gradient comes through the gates. `coordinate` "mass": c_v = 1 − (mass of likelier classes) − p_v/2. "rank": c_v
    = 1 − (number of likelier classes + ½)/V; a learned network's bounds then start log(2V − 1) farther out on both
    sides, beyond the likeliest and the last class. "value": thresholds on p_v itself, log p and log l, log u in place
    of the logits.

    `normalise` "teacher" (R3): as above. "none" (R0): Σ m·p·log(p/q), which may be negative. "both" (R1): q is
    renormalised too. "rest" (R2): what is not kept is one more class of both. A network that minimises R1 or R2 ends
    with the likeliest class alone; take them with fixed bounds, `clip_objective` "detached" or a `coverage_weight`.

    `features` "topk": the network sees the `top` likeliest classes, and by mass and by rank they alone have coordinates
    of their own; all others keep their p and q and share one gate, at c = R/2 with R their mass, or by rank in the
    middle of theirs, c = (V − K)/2V. "full": the paper's input, p, sorted p and q (for networks that read ranks, sorted
    p and q), and a full sort.

    `gates` "hard": m is 1 inside the bounds and 0 outside; a learned network would have no gradient and is refused.
    "straight-through": hard by value, with the derivative of soft gates. `parts` "target": the most probable class
    alone is kept. "dense": it has the gate of its own place; a token of which nothing is kept costs 0.

    `clip_objective` "joint": student and network minimise loss + `size_weight`·Σm/V + `coverage_weight`·max(0,
    `least_mass` − Σ m·p)². "detached": the loss moves the student alone, the two other terms the network alone. The
    value is the sum of all three in both cases.

    The paper states neither the network's size nor how a quantile becomes a threshold; these readings and their reasons
    are in docs/methods.md. Raises `ValueError` for a learned network that would have no gradient, and for fields that
    would not be read.
    """

    clip: ClipNetwork = field(default_factory=MLP)
    features: Literal["topk", "full"] = "topk"
    top: int = Field(default=_TOP, ge=1)
    coordinate: Coordinate = "mass"
    normalise: Normalise = "teacher"
    softness: float = Field(default=0.5, gt=0.0)
    gates: GateKind = "soft"
    parts: Parts = "both"
    clip_objective: Literal["joint", "detached"] = "joint"
    size_weight: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    coverage_weight: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    least_mass: float = Field(default=_LEAST_MASS, gt=0.0, le=1.0)

    needs_teacher: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_reads(self) -> DACKL:
        """No field is given that nothing reads."""
        if self.features == "full" and self.top != _TOP:
            raise ValueError(f"top is {self.top}, which features 'full' never reads; delete it, or take 'topk'")
        if self.parts == "target" and isinstance(self.clip, FixedBounds) and self.clip != FixedBounds():
            raise ValueError("clip has bounds, which parts 'target' never reads; delete them")
        if self.parts == "target" and self.normalise == "both":
            raise ValueError("parts 'target' with normalise 'both' is 0 for every student; take normalise 'teacher'")
        if not self.coverage_weight and self.least_mass != _LEAST_MASS:
            raise ValueError(f"least_mass is {self.least_mass}, which nothing reads while coverage_weight is 0")
        return self

    @model_validator(mode="after")
    def _check_learning(self) -> DACKL:
        """What is learned has a gradient, and what has an objective is learned."""
        is_learned, fixed = self.clip.learning_rate > 0, "take clip {kind: fixed}"
        if is_learned and self.gates == "hard":
            raise ValueError(f"gates 'hard' give a learned clip no gradient; {fixed}, or gates 'straight-through'")
        if is_learned and self.parts == "target":
            raise ValueError(f"parts 'target' keep one class whatever the clip says, which learns nothing; {fixed}")
        if is_learned and self.clip_objective == "detached" and not self.size_weight:
            raise ValueError(
                "clip_objective 'detached' with size_weight 0 gives the clip nothing to learn from: its bounds start "
                "open, and only size_weight draws them together"
            )
        if not is_learned and (self.clip_objective == "detached" or self.size_weight or self.coverage_weight):
            raise ValueError(
                "clip_objective 'detached', size_weight and coverage_weight are of a clip that is learned; this one is "
                "not: delete them, or take clip {kind: mlp}"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """That of the clip network."""
        return self.clip.learning_rate

    def build(self, *, vocabulary_size: int, generator: torch.Generator) -> ClippedKL:
        """The term with its network."""
        return ClippedKL(self, vocabulary_size=vocabulary_size, generator=generator)


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
        self.gating = Gating(coordinate=part.coordinate, kind=part.gates, parts=part.parts, softness=part.softness)
        self.reads_ranks = isinstance(part.clip, RankedClipNetwork) and part.clip.reads_ranks
        self.top = vocabulary_size if part.features == "full" else min(part.top, vocabulary_size)
        self.others = vocabulary_size - self.top
        is_literal = part.features == "full" and not self.reads_ranks
        numbers = 3 * vocabulary_size if is_literal else 2 * self.top + SUMMARY_FEATURES
        self.network = network_of(part.clip, numbers, generator=generator)
        is_apart = part.coordinate == "rank" and part.learning_rate > 0
        self.apart = farthest_rank(vocabulary_size) if is_apart else 0.0

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
        bounds, loss_n, kept = self._clip(target_nV=target_nV, student_nV=student_nV)
        return Measured(
            loss=loss_n,
            values={
                "lower": bounds.lower.detach().sigmoid(),
                "upper": bounds.upper.detach().sigmoid(),
                "kept_mass": kept.mass.detach(),
                "kept_classes": kept.count.detach(),
                "only_target": (kept.others.detach() < 0.5).to(dtype),
            },
        )

    @torch.no_grad()
    def gates(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """m of every class, to look at; a whole `[n V]`, so for few tokens."""
        assert scores.target_logp is not None
        target_nV = scores.target_logp
        ranked_nK, order_nK = self._ranked(target_nV)
        bounds = self._bounds(target_nV, scores.student_logp, ranked_nK=ranked_nK, order_nK=order_nK)
        if self.part.coordinate == "value":
            return self._window(bounds, target_nV, all_nV=target_nV, rest_n=None).classes.value
        rest_n = _mass_beside(ranked_nK.exp()) if self.others else None
        window = self._window(bounds, ranked_nK, all_nV=target_nV, rest_n=rest_n)
        rest_n1 = torch.zeros_like(target_nV[:, :1]) if window.rest is None else window.rest.value
        return rest_n1.expand_as(target_nV).scatter(1, order_nK, window.classes.value)

    def _clip(self, *, target_nV: Tensor, student_nV: Tensor) -> tuple[Bounds, Tensor, Kept]:
        """By value each class has a place of its own, whatever the network sees. Else the K classes, sorted, have one,
        and all others enter through sums over the whole vocabulary."""
        ranked_nK, order_nK = self._ranked(target_nV)
        bounds = self._bounds(target_nV, student_nV.detach(), ranked_nK=ranked_nK, order_nK=order_nK)
        if self.part.coordinate == "value":
            return bounds, *self._loss(bounds, target_nV, student_nV, all_nV=target_nV, rest=None)
        if not self.others:
            return bounds, *self._loss(bounds, ranked_nK, student_nV.gather(1, order_nK), all_nV=target_nV, rest=None)
        all_n, student_nK = all_and_top(target_nV=target_nV, student_nV=student_nV, top_nK=order_nK)
        is_asked = self.part.normalise in ("both", "rest")
        rest = Rest(
            count=self.others,
            mass=_mass_beside(ranked_nK.exp()),
            whole_gap=all_n,
            student_mass=student_nV.exp().scatter(1, order_nK, 0.0).sum(-1) if is_asked else None,
        )
        return bounds, *self._loss(bounds, ranked_nK, student_nK, all_nV=target_nV, rest=rest)

    def _ranked(self, target_nV: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest classes in order, and which they are: all of them only where all are asked for."""
        if self.part.features == "full":
            ordered = target_nV.sort(dim=-1, descending=True)
            return ordered.values, ordered.indices
        top = torch.topk(target_nV, self.top, dim=-1)
        return top.values, top.indices

    def _bounds(self, target_nV: Tensor, student_nV: Tensor, *, ranked_nK: Tensor, order_nK: Tensor) -> Bounds:
        if self.part.features == "full" and not self.reads_ranks:
            features_nF = whole_features(target_nV=target_nV, ordered_nV=ranked_nK, student_nV=student_nV)
        else:
            features_nF = ranked_features(target_nk=ranked_nK, student_nk=student_nV.gather(1, order_nK))
        own = next(self.network.parameters(), features_nF)
        bounds = bounds_of(self.network, features_nF.to(own.dtype))
        lower_n, upper_n = bounds.lower.to(features_nF.dtype), bounds.upper.to(features_nF.dtype)
        return Bounds(lower=lower_n - self.apart, upper=upper_n + self.apart)

    def _window(self, bounds: Bounds, target_nk: Tensor, *, all_nV: Tensor, rest_n: Tensor | None) -> Window:
        """The gates of these classes, and of all others, whose mass is `rest_n`, as one."""
        # Ids that are not shared have no rank.
        num_classes_n = (all_nV > -torch.inf).sum(-1).to(all_nV.dtype) if self.part.coordinate == "rank" else None
        places_nk = self.gating.places(target_nk, num_classes_n=num_classes_n)
        classes = self.gating(bounds, places_nk, is_target_nk=self._is_target(target_nk))
        if rest_n is None:
            return Window(classes=classes)
        place_n1 = self.gating.rest_place(rest_n=rest_n, num_before=self.top, num_classes_n=num_classes_n)
        return Window(classes=classes, rest=self.gating(bounds, place_n1))

    def _is_target(self, target_nk: Tensor) -> Tensor:
        """The teacher's likeliest class of each token, once: by value classes are not in order."""
        is_none_nk = torch.zeros_like(target_nk, dtype=torch.bool)
        if self.part.coordinate == "value":
            return is_none_nk.scatter(1, target_nk.argmax(-1, keepdim=True), True)
        is_none_nk[:, 0] = True
        return is_none_nk

    def _loss(
        self, bounds: Bounds, target_nk: Tensor, student_nk: Tensor, *, all_nV: Tensor, rest: Rest | None
    ) -> tuple[Tensor, Kept]:
        part, p_nk = self.part, target_nk.exp()
        window = self._window(bounds, target_nk, all_nV=all_nV, rest_n=None if rest is None else rest.mass)
        kept = kept_by(window, p_nk=p_nk, is_target_nk=self._is_target(target_nk), rest=rest)
        used = window.detached() if part.clip_objective == "detached" else window
        if part.parts == "dense" and part.gates == "soft" and part.normalise in ("teacher", "both"):
            used = used.lifted()
        loss_n = clipped_loss(
            used, p_nk=p_nk, target_nk=target_nk, student_nk=student_nk, rest=rest, normalise=part.normalise
        )
        if part.size_weight:
            loss_n = loss_n + part.size_weight * kept.count / all_nV.shape[-1]
        if part.coverage_weight:
            loss_n = loss_n + part.coverage_weight * (part.least_mass - kept.mass).clamp(min=0.0).square()
        return loss_n, kept


def _mass_beside(p_nK: Tensor) -> Tensor:
    """What these classes leave to all others."""
    return (1 - p_nK.sum(-1)).clamp(min=0.0)
