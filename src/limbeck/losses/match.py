"""Token terms: what each scored token costs. Target × divergence × weight, or the likelihood of the token itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.divergences import Divergence
from limbeck.types import Experience


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenScores:
    """What the models say about n scored tokens: log-probabilities in nats, over the vocabulary that both share.

    `target_logp` is the teacher's, None where no teacher ran; `tokens` are the tokens that stand there, `experience`
    what was known when they were drawn, None where that was not kept.
    """

    student_logp: Float[Tensor, "n V"]
    target_logp: Float[Tensor, "n V"] | None
    tokens: Int[Tensor, " n"]
    experience: Experience | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A term's loss of each token, and further numbers a token to look at, without gradient, by name."""

    loss: Float[Tensor, " n"]
    values: Mapping[str, Float[Tensor, " n"]]


@runtime_checkable
class TokenTerm(Protocol):
    """Scores -> one loss a token, in nats, unreduced. `needs_teacher` says whether `target_logp` must be there."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads `target_logp`."""
        ...

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        ...


@runtime_checkable
class MeasuringTerm(Protocol):
    """A token term that tells more than its loss. `measured` gives the loss that calling it gives.

    It may leave out values that these scores do not have.
    """

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what `measured` gives beside the loss."""
        ...

    def measured(self, scores: TokenScores) -> Measured:
        """The loss, and what else there is to see."""
        ...


@runtime_checkable
class ClippingTerm(Protocol):
    """A token term that keeps a part of the teacher's distribution."""

    def gates(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """How much of each class is kept, in [0, 1], without gradient."""
        ...


@runtime_checkable
class TermToBuild(Protocol):
    """A component whose term owns weights; `build` makes the term, an `nn.Module`."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the term reads `target_logp`."""
        ...

    @property
    def learning_rate(self) -> float:
        """The peak learning rate of the term's own parameters."""
        ...

    def build(self, *, vocabulary_size: int, generator: torch.Generator) -> TokenTerm:
        """The term, its weights drawn from the generator."""
        ...


@runtime_checkable
class Target(Protocol):
    """Scores -> the log-probabilities to be matched. They are a constant: no gradient flows into a target."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads `target_logp`."""
        ...

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token."""
        ...


@runtime_checkable
class TokenWeight(Protocol):
    """Scores -> a factor for each token's loss. It is a constant: `Match` detaches it."""

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Likelihood:
    """−log s(token), nats per token: the fine-tuning loss (MGSR, arXiv 2407.10068, Eq. 2).

    +inf for a token that the student's row excludes (−inf).

    >>> scores = TokenScores(student_logp=torch.tensor([[0.5, 0.5]]).log(), target_logp=None, tokens=torch.tensor([1]))
    >>> round(Likelihood()(scores).item(), 4)
    0.6931
    """

    needs_teacher: ClassVar[bool] = False

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        drawn = scores.student_logp.gather(1, scores.tokens.long().unsqueeze(1)).squeeze(1)
        return -drawn.to(torch.promote_types(drawn.dtype, torch.float32))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TeacherTarget:
    """The teacher's distribution as it is. Raises `ConfigError` where no teacher was scored."""

    needs_teacher: ClassVar[bool] = True

    def __call__(self, scores: TokenScores) -> Float[Tensor, "n V"]:
        """One distribution a token."""
        if scores.target_logp is None:
            raise ConfigError("this term matches the teacher, but no teacher was given: name one in models.teacher")
        return scores.target_logp


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UniformWeight:
    """1 for every token."""

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        logp = scores.student_logp
        return torch.ones(len(logp), dtype=torch.promote_types(logp.dtype, torch.float32), device=logp.device)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Match:
    """weight(token) · divergence(target ‖ student), nats per token.

    In a recipe: `{kind: match, divergence: {kind: jsd, beta: 0.5}}`. The weight is detached; nothing is reduced.

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> scores = TokenScores(student_logp=q, target_logp=p, tokens=torch.tensor([0]))
    >>> from limbeck.losses.divergences import ForwardKL
    >>> round(Match(ForwardKL())(scores).item(), 4)
    0.5108
    """

    divergence: Divergence
    target: Target = field(default_factory=TeacherTarget)
    weight: TokenWeight = field(default_factory=UniformWeight)

    @property
    def needs_teacher(self) -> bool:
        """Whether the target is made from the teacher."""
        return self.target.needs_teacher

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        gap_n = self.divergence(target_logp=self.target(scores), student_logp=scores.student_logp)
        return self.weight(scores).detach() * gap_n
