"""Targets beside the teacher as it is: parts of its distribution, and two that teach nothing, for null controls."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.losses.match import TeacherTarget, TokenScores


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TopKTarget:
    """The teacher's `k` likeliest classes, renormalised over them: p̃_v = p_v / Σ_top p, 0 for all others.

    With forward KL this is top-k distillation, KL(p̃ ‖ q) with q the student's whole softmax, at least −log of what the
    student has on the k classes. `k` of the vocabulary's size or more is the teacher as it is. Of equal probabilities
    at the edge one is taken, as `torch.topk` chooses. Biased: the student is told that the tail has no mass (Anshumann
    et al., arXiv 2503.16870). Raises `ConfigError` where no teacher was scored.

    >>> p = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> TopKTarget(k=2)(TokenScores(student_logp=p, target_logp=p, tokens=torch.tensor([0]))).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """

    k: Annotated[int, Field(ge=1)]

    needs_teacher: ClassVar[bool] = True
    leaves_out_classes: ClassVar[bool] = True

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token."""
        target_nV = TeacherTarget()(scores)
        if self.k >= target_nV.shape[1]:
            return target_nV
        top_nk = torch.topk(target_nV, self.k, dim=-1).indices
        return _renormalised(target_nV, torch.zeros_like(target_nV, dtype=torch.bool).scatter(1, top_nk, True))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NucleusTarget:
    """The smallest set of the teacher's likeliest classes with at least the mass `p`, renormalised over it.

        v is in it if (mass of the likelier classes) < p;  p̃_v = p_v / Σ_nucleus p, 0 for all others

    The nucleus of Holtzman et al., arXiv 1904.09751, Eq. 2, as target: the same mass at every token, learned by nobody.
    It differs from DAC-KL with hard gates and fixed bounds (1 − p, 1) in the one class that p falls into: that one is
    always in the nucleus, but between the bounds only if the middle of its mass is. p = 1 is the teacher as it is. A
    full sort at every token. Raises `ConfigError` where no teacher was scored.

    >>> p = torch.tensor([[0.2, 0.5, 0.3]]).log()
    >>> NucleusTarget(p=0.6)(TokenScores(student_logp=p, target_logp=p, tokens=torch.tensor([0]))).exp()
    tensor([[0.0000, 0.6250, 0.3750]])
    """

    p: Annotated[float, Field(gt=0.0, le=1.0)]

    needs_teacher: ClassVar[bool] = True
    leaves_out_classes: ClassVar[bool] = True

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token."""
        target_nV = TeacherTarget()(scores)
        if self.p == 1.0:
            return target_nV
        ordered_nV, order_nV = target_nV.sort(dim=-1, descending=True)
        p_nV = ordered_nV.to(torch.promote_types(ordered_nV.dtype, torch.float32)).exp()
        is_kept_nV = p_nV.cumsum(-1) - p_nV < self.p
        # A sum less its last summand may be off 0 by rounding.
        is_kept_nV[:, 0] = True
        return _renormalised(target_nV, torch.zeros_like(is_kept_nV).scatter(1, order_nV, is_kept_nV))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OtherRowTarget:
    """The teacher's distributions of another row: a null control, a shuffled teacher.

        target of token i of row r = p(·|y′_<k, x′),  (x′, y′) the next row of the step with a response, k = i mod |y′|

    The distributions are a teacher's, as sharp and as long as any, but they say nothing of the text before them. What
    is learned all the same is not learned from this teacher. The next row is that of the step's own order, the first
    after the last, among the rows of one process: how a step is cut into micro-batches changes nothing. A validation's
    loss compares with the right rows. Raises `ConfigError` where no teacher was scored.
    """

    needs_teacher: ClassVar[bool] = True
    reads_other_row: ClassVar[bool] = True

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token: that of the rows which the step let the teacher read."""
        return TeacherTarget()(scores)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PushedDownTarget:
    """The student's own distribution with the token that stands there pushed down by a constant: a null control.

        t_v ∝ s_v · e^(−by·[v = y_i]),  s the student, detached

    No teacher is asked: every token is told the same, that it should have been less likely, by `by` nats of odds. What
    is learned all the same needs no teacher's knowledge.

    >>> s = torch.tensor([[0.5, 0.5]]).log()
    >>> scores = TokenScores(student_logp=s, target_logp=None, tokens=torch.tensor([0]))
    >>> PushedDownTarget(by=1.0986122886681098)(scores).exp()
    tensor([[0.2500, 0.7500]])
    """

    by: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0

    needs_teacher: ClassVar[bool] = False

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token."""
        own_nV = scores.student_logp.detach()
        own_nV = own_nV.to(torch.promote_types(own_nV.dtype, torch.float32))
        index_n1 = scores.tokens.long().unsqueeze(1)
        return torch.log_softmax(own_nV.scatter_add(1, index_n1, torch.full_like(own_nV[:, :1], -self.by)), dim=-1)


def _renormalised(logp_nV: Tensor, is_kept_nV: Bool[Tensor, "n V"]) -> Tensor:
    """These classes alone, with a mass of 1."""
    raised_nV = logp_nV.to(torch.promote_types(logp_nV.dtype, torch.float32))
    return torch.log_softmax(raised_nV.masked_fill(~is_kept_nV, -torch.inf), dim=-1)
