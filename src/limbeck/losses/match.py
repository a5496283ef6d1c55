"""Token terms: what each scored token costs. Target × divergence × weight, or the likelihood of the token itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.losses.divergences import Divergence, SkewForwardKL, SkewReverseKL
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
    """weight(token) · T² · divergence(target^(1/T) ‖ student^(1/T)), nats per token.

    In a recipe: `{kind: match, divergence: {kind: jsd, beta: 0.5}}`. The weight is detached; nothing is reduced.

    T = `temperature_square_scaled`, 1 by default, softens both distributions, p^(1/T) renormalised, which is
    softmax(z/T) of their logits. The loss is multiplied by T², so that its gradient keeps its size as T grows (Hinton
    et al., arXiv 1503.02531, section 2). Targets and weights see the distributions at T = 1.

    Raises `ValueError` for a divergence that is infinite on every target with classes left out (`top-k`, `nucleus`), as
    reverse KL is, and for a skew KL of alpha 1, which is 0 for every student.

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> scores = TokenScores(student_logp=q, target_logp=p, tokens=torch.tensor([0]))
    >>> from limbeck.losses.divergences import ForwardKL
    >>> round(Match(ForwardKL())(scores).item(), 4)
    0.5108

    At T = 2 the student's odds of 9 are 3, and 4·KL(½, ½ ‖ ¾, ¼) = 4·log(2/√3):

    >>> round(Match(ForwardKL(), temperature_square_scaled=2.0)(scores).item(), 4)
    0.5754
    """

    divergence: Divergence
    target: Target = field(default_factory=TeacherTarget)
    weight: TokenWeight = field(default_factory=UniformWeight)
    temperature_square_scaled: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_that_it_teaches(self) -> Match:
        if isinstance(self.divergence, SkewForwardKL | SkewReverseKL) and self.divergence.alpha == 1:
            raise ValueError("divergence.alpha is 1: a distribution against itself is 0 and teaches nothing; take less")
        if getattr(self.target, "leaves_out_classes", False) and _is_infinite_without_classes(self.divergence):
            raise ValueError(
                "this divergence is infinite for every student, because the target leaves classes out; "
                "take forward-kl, jsd, tvd or a skew KL, or the whole teacher as target"
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether the target is made from the teacher."""
        return self.target.needs_teacher

    @property
    def reads_other_row(self) -> bool:
        """Whether the target is what the teacher says of another row of the step."""
        return bool(getattr(self.target, "reads_other_row", False))

    def __call__(self, scores: TokenScores) -> Float[Tensor, " n"]:
        """One number a token."""
        target_nV, student_nV, temperature = self.target(scores), scores.student_logp, self.temperature_square_scaled
        if temperature != 1.0:
            target_nV, student_nV = _softened(target_nV, temperature), _softened(student_nV, temperature)
        if target_nV.shape != student_nV.shape:
            raise _misshapen("a target", target_nV, wanted=student_nV.shape)
        gap_n = self.divergence(target_logp=target_nV.detach(), student_logp=student_nV)
        gap_n = one_each(gap_n, student_nV, what="a divergence")
        if temperature != 1.0:
            gap_n = temperature**2 * gap_n
        return one_each(self.weight(scores), student_nV, what="a weight").detach() * gap_n


def one_each(found_n: Tensor, of: Tensor, *, what: str, each: str = "token") -> Tensor:
    """What a part found, if it is one number for each row `of` what it read. Raises `ConfigError`.

    Anything else that broadcasts, a mean or [n 1], would be summed into another loss than was meant.
    """
    if not isinstance(found_n, Tensor) or found_n.shape != of.shape[:1]:
        raise _misshapen(what, found_n, wanted=of.shape[:1], each=each)
    return found_n


def _misshapen(what: str, found: object, *, wanted: torch.Size, each: str = "token") -> ConfigError:
    shape = f"shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    return ConfigError(
        f"{what} of the method gave {shape} for {wanted[0]} {each}s; allowed: a tensor of shape {list(wanted)}"
        + (f", one number a {each}, neither summed nor averaged" if len(wanted) == 1 else "")
    )


def _softened(logp_nV: Tensor, temperature: float) -> Tensor:
    """log softmax(z/T), from log softmax(z): the two differ by a constant of the row."""
    raised_nV = logp_nV.to(torch.promote_types(logp_nV.dtype, torch.float32))
    return torch.log_softmax(raised_nV / temperature, dim=-1)


def _is_infinite_without_classes(divergence: Divergence) -> bool:
    """Whether a student of full support is infinitely far from a target with a class of probability 0."""
    target, student = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    return bool(divergence(target_logp=target, student_logp=student).isinf().any())
