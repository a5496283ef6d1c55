"""Reverse KL of whole responses by policy gradient: the step at hand exactly, what follows it by its advantage."""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.losses.divergences import ReverseKL
from limbeck.losses.match import Measured, TeacherTarget, TokenScores
from limbeck.types import Experience

_EPSILON = 1e-8


@runtime_checkable
class ExperiencedTerm(Protocol):
    """A token term that learns from what was known when its tokens were drawn."""

    def prepared(self, experience: Experience, *, row_lengths: Int[Tensor, " B"]) -> Experience:
        """The experience of a whole collection with its advantages, without gradient."""
        ...

    def summary(self, experience: Experience, *, row_lengths: Int[Tensor, " B"]) -> dict[str, float]:
        """What there is to know of a collection, as numbers by name."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReverseKLGradient:
    """MiniLLM's token term (arXiv 2306.08543, Eq. 2-7): its gradient is that of KL(q‖p) over whole responses.

        ℓ_t = KL(q_t‖p_t) − min(ρ_t·A_t, clip(ρ_t, 1 − c, 1 + c)·A_t)                        nats per token
        ρ_t = w_t · q_θ(y_t)/q_old(y_t),   w_t = q_old(y_t)/p̃_t(y_t),   c = `clip`
        A = (R − mean)/√(var + 1e-8) over the response tokens of the collection
        R_t = 1/(T − t) · Σ_{t' = t+1}^{T} γ^{t'−t−1} · r_t',   r_t = log p_t(y_t) − log q_old,t(y_t)

    q_θ student, q_old the student that the collection was drawn at, p teacher, p̃ what a token was drawn from. The first
    part, `single_step`, is the whole expectation over the token at hand (over the vocabulary, exact); A holds what
    follows, is a constant, and is 0 before whitening at a response's last token. Without `single_step` the return
    begins at the token itself: Σ from t' = t, over T − t + 1 tokens; `returns_from` says "next" or "own" in its place.

    `gamma` discounts. `length_normalised` divides a return by the number of its rewards. `whitened` centres and scales
    it. `reward_scale` multiplies rewards, and `reward_limit` then clips them to ±limit. `weigh_long_term` puts w into
    ρ, `weigh_single_step` multiplies the KL by w; without the former ρ is the plain ratio. Minimising ℓ raises q of
    the tokens with A > 0.

    Where rows have no experience (a validation on references) ℓ is the single-step part alone. It does not average:
    padding never enters, and no mean over tokens or rows is taken here but those of A. Raises `ConfigError` without a
    teacher.

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> drawn = Experience(behaviour_logp=q[:, 0], student_logp=q[:, 0], advantage=torch.tensor([2.0]))
    >>> scores = TokenScores(student_logp=q, target_logp=p, tokens=torch.tensor([0]), experience=drawn)
    >>> round(ReverseKLGradient(single_step=False)(scores).item(), 4), round(ReverseKLGradient()(scores).item(), 4)
    (-2.0, -1.6319)
    """

    single_step: bool = True
    returns_from: Literal["auto", "next", "own"] = "auto"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    length_normalised: bool = True
    whitened: bool = True
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    weigh_long_term: bool = True
    weigh_single_step: bool = False
    reward_scale: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    reward_limit: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)

    def __post_init__(self) -> None:
        if self.weigh_single_step and not self.single_step:
            raise ValueError("weigh_single_step is true, but single_step is false: there is nothing to weigh")

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads the teacher's distribution; the rewards come with the experience."""
        return self.single_step

    @property
    def measures(self) -> tuple[str, ...]:
        """The parts of the loss, ρ, and the share of tokens whose gradient the clip cuts off."""
        return ("single_step", "long_term", "ratio", "clipped")

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        return self.measured(scores).loss

    def measured(self, scores: TokenScores) -> Measured:
        """The loss, its two parts, ρ, and 1 where ρ is clipped on the side that A pushes to."""
        logp_nV = scores.student_logp
        single_n = logp_nV.new_zeros(len(logp_nV), dtype=torch.promote_types(logp_nV.dtype, torch.float32))
        if self.single_step:
            single_n = ReverseKL()(target_logp=TeacherTarget()(scores), student_logp=logp_nV)
        drawn = scores.experience
        if drawn is None:
            return Measured(loss=single_n, values={})
        assert drawn.student_logp is not None, "a collection is read before it is learned from"
        assert drawn.advantage is not None, "a collection is prepared before it is learned from"
        weight_n = importance(drawn).to(single_n.dtype)
        single_n = weight_n * single_n if self.weigh_single_step else single_n
        new_n = logp_nV.gather(1, scores.tokens.long().unsqueeze(1)).squeeze(1).to(single_n.dtype)
        ratio_n = (new_n - drawn.student_logp.to(single_n.dtype)).exp()
        ratio_n = weight_n * ratio_n if self.weigh_long_term else ratio_n
        advantage_n = drawn.advantage.to(single_n.dtype).detach()
        free_n = ratio_n * advantage_n
        bounded_n = ratio_n.clamp(1 - self.clip, 1 + self.clip) * advantage_n
        long_n = -torch.minimum(free_n, bounded_n)
        values = {
            "single_step": single_n.detach(),
            "long_term": long_n.detach(),
            "ratio": ratio_n.detach(),
            "clipped": (bounded_n < free_n).to(single_n.dtype),
        }
        return Measured(loss=single_n + long_n, values=values)

    @torch.no_grad()
    def returns(self, experience: Experience, *, row_lengths: Int[Tensor, " B"]) -> Float[Tensor, " N"]:
        """R of every token, in float64; `row_lengths` are the scored tokens of each row.

        >>> zeros, lengths = torch.zeros(3), torch.tensor([3])
        >>> drawn = Experience(behaviour_logp=zeros, student_logp=zeros, teacher_logp=torch.tensor([1.0, 2.0, 4.0]))
        >>> ReverseKLGradient().returns(drawn, row_lengths=lengths).tolist()
        [3.0, 4.0, 0.0]
        >>> ReverseKLGradient(single_step=False).returns(drawn, row_lengths=lengths).tolist()
        [2.3333333333333335, 3.0, 4.0]
        """
        rewards = self._rewards(experience).tolist()
        starts_next = self.returns_from == "next" or (self.returns_from == "auto" and self.single_step)
        found: list[float] = []
        first = 0
        for length in row_lengths.tolist():
            own, following = rewards[first : first + length], 0.0
            row: list[float] = []
            for behind, reward in enumerate(reversed(own)):
                whole = reward + self.gamma * following
                value, count = (following, behind) if starts_next else (whole, behind + 1)
                row.append(value / count if self.length_normalised and count else value)
                following = whole
            found += reversed(row)
            first += length
        return torch.tensor(found, dtype=torch.float64)

    @torch.no_grad()
    def prepared(self, experience: Experience, *, row_lengths: Int[Tensor, " B"]) -> Experience:
        """The experience of a whole collection with A; what it is given holds response tokens and nothing else."""
        advantage_N = self.returns(experience, row_lengths=row_lengths)
        if self.whitened and len(advantage_N):
            centred_N = advantage_N - advantage_N.mean()
            advantage_N = centred_N / (centred_N.square().mean() + _EPSILON).sqrt()
        assert experience.student_logp is not None, "a collection is read before it is prepared"
        return dataclasses.replace(experience, advantage=advantage_N.to(experience.student_logp.dtype))

    @torch.no_grad()
    def summary(self, experience: Experience, *, row_lengths: Int[Tensor, " B"]) -> dict[str, float]:
        """Means over the collection's tokens of the reward, the return and w, and the largest w; 0 without a token."""
        if not len(experience):
            return dict.fromkeys(("reward", "return", "importance", "importance_max"), 0.0)
        weight_N = importance(experience)
        return {
            "reward": float(self._rewards(experience).mean()),
            "return": float(self.returns(experience, row_lengths=row_lengths).mean()),
            "importance": float(weight_N.mean()),
            "importance_max": float(weight_N.max()),
        }

    def _rewards(self, experience: Experience) -> Float[Tensor, " N"]:
        """r, scaled and clipped, in float64."""
        assert experience.student_logp is not None, "a collection is read before it is prepared"
        assert experience.teacher_logp is not None, "a collection is read before it is prepared"
        reward_N = (experience.teacher_logp.double() - experience.student_logp.double()) * self.reward_scale
        return reward_N if self.reward_limit is None else reward_N.clamp(-self.reward_limit, self.reward_limit)


def importance(experience: Experience) -> Float[Tensor, " N"]:
    """w = q_old(y)/p̃(y), what a token drawn from p̃ counts for one drawn from the student (MiniLLM, arXiv 2306.08543,
    Eq. 5: approximated token by token). At most 1/(1 − a) for p̃ = a·p + (1 − a)·q_old; 1 for a = 0. A constant.

    >>> half, quarter = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    >>> round(importance(Experience(behaviour_logp=half, student_logp=quarter)).item(), 4)
    0.5
    """
    assert experience.student_logp is not None, "a collection is read before it is weighed"
    return (experience.student_logp - experience.behaviour_logp.to(experience.student_logp.dtype)).detach().exp()
