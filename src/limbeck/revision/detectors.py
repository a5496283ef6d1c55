"""Which token of a drawn response is the error: evidence in, one score a token out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.types import Evidence

_LOOP = 3.0
_RISE_AFTER, _RISE_FLOOR = 4, 0.5


@runtime_checkable
class Detector(Protocol):
    """Evidence -> one score a token; −inf = never. Each row's largest score is its error, the first of equal ones.

    Scores are compared inside a row only. `needs` names the columns of evidence that are gathered for this detector.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads in `Evidence.columns`."""
        ...

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        """One number a token."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class KLDArgmax:
    """The token at which the models differ most, of those that the teacher would not have put there.

        score_i = KL(s_i‖t_i) if y_i ≠ y^t_i else −∞        j = argmax_i score_i

    s, t student and teacher, nats at T = 1 (MGSR, arXiv 2407.10068, Eq. 3). `direction` "teacher-student" takes
    KL(t_i‖s_i), which also grows where the student merely misses what the teacher holds possible. A NaN never wins.

    >>> from limbeck.testing import toy_evidence
    >>> evidence = toy_evidence(kl_student_teacher=[0.2, 3.0, 1.5], eligible=[True, False, True])
    >>> KLDArgmax()(evidence).tolist(), int(KLDArgmax()(evidence).argmax())
    ([0.20000000298023224, -inf, 1.5], 2)
    """

    needs: ClassVar[tuple[str, ...]] = ()

    direction: Literal["student-teacher", "teacher-student"] = "student-teacher"

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        """One number a token."""
        is_reverse = self.direction == "student-teacher"
        kl_N = evidence.kl_student_teacher if is_reverse else evidence.kl_teacher_student
        return kl_N.masked_fill(~evidence.eligible | kl_N.isnan(), -torch.inf)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RandomToken:
    """Any of the tokens that the teacher would not have put there, each as likely as the others.

        score_i = u_i if y_i ≠ y^t_i else −∞        u_i ~ U[0, 1)

    What is left of MGSR's correction (arXiv 2407.10068, §4.1) when nothing is measured: the control of an ablation.
    u is the column "uniform" of the evidence; it belongs to the run's seed, the row, the round and the position, so
    that neither batches nor ranks nor a resumed run change the choice.

    >>> from limbeck.testing import toy_evidence
    >>> RandomToken()(toy_evidence(uniform=[0.25, 0.75, 0.5], eligible=[True, False, True])).tolist()
    [0.25, -inf, 0.5]
    """

    needs: ClassVar[tuple[str, ...]] = ("uniform",)

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        """One number a token."""
        return evidence.columns["uniform"].masked_fill(~evidence.eligible, -torch.inf)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Heuristic:
    """The token that begins a loop, else the one that is suddenly surprising, else the teacher's least likely one.

        3                  y_i … y_{i+n−1} stood in this response before (n = `loop_tokens`; the two may overlap)
        1 + z_i/(1 + z_i)  z_i = (−log p(y_i) − μ_i) / max(σ_i, `rise_floor`) > `rise`
        R_i                R_i ≥ `top_p`, R_i the teacher's mass on the classes likelier than y_i
        −∞                 otherwise, or where y_i = y^t_i

    The first rule that fires is the score, so a loop is above every rise and a rise above every unlikely token. Of a
    loop all tokens score alike and the first that may be corrected is taken: where the second turn begins. μ and σ (σ
    with 1/count, both in nats) are those of −log p of the tokens before i in the same response; `rise_floor` is the
    least σ, so that a rise after tokens that were all certain is not measured in thousands; the first `rise_after`
    tokens of a response never rise. An infinite surprise rises, and is left out of μ and σ. R_i ≥ `top_p`: y_i is
    outside of the teacher's nucleus. None switches a rule off.

    No divergence is read and no model runs for it. The three rules are Limbeck's own; the method they stand in for
    is MGSR's (arXiv 2407.10068, §4.1). A row where no rule fires has no error. Does not look into the prompt, nor into
    earlier answers of a conversation.

    >>> from limbeck.testing import toy_evidence
    >>> Heuristic()(toy_evidence(drawn_token=[1, 2, 1, 2, 1, 2], nucleus=[0.0, 0.97, 0.0, 0.0, 0.0, 0.0])).tolist()
    [-inf, 0.9700000286102295, 3.0, -inf, -inf, -inf]
    """

    needs: ClassVar[tuple[str, ...]] = ()

    loop_tokens: int | None = Field(default=4, ge=2)
    rise: float | None = Field(default=2.0, gt=0.0, allow_inf_nan=False)
    rise_after: int = Field(default=_RISE_AFTER, ge=1)
    rise_floor: float = Field(default=_RISE_FLOOR, gt=0.0, allow_inf_nan=False)
    top_p: float | None = Field(default=0.95, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check_rules(self) -> Heuristic:
        if self.loop_tokens is None and self.rise is None and self.top_p is None:
            raise ValueError("loop_tokens, rise and top_p are all null, so that no token is an error; set one of them")
        if self.rise is None and (self.rise_after, self.rise_floor) != (_RISE_AFTER, _RISE_FLOOR):
            raise ValueError(
                f"rise_after is {self.rise_after} and rise_floor {self.rise_floor}, which nothing reads while rise is"
                " null; delete them, or set rise"
            )
        return self

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        """One number a token."""
        tokens, surprises = evidence.drawn_token.tolist(), (-evidence.drawn_teacher_logp).tolist()
        nucleus, scores = evidence.nucleus.tolist(), [-math.inf] * len(evidence)
        for entries in _responses(evidence):
            turns = [False] * len(entries)
            if self.loop_tokens is not None:
                turns = _turns([tokens[n] for n in entries], size=self.loop_tokens)
            rises = self._rises([surprises[n] for n in entries])
            for n, is_turn, rise in zip(entries, turns, rises, strict=True):
                if is_turn:
                    scores[n] = _LOOP
                elif self.rise is not None and rise > self.rise:
                    scores[n] = 2.0 - 1.0 / (1.0 + rise)
                elif self.top_p is not None and nucleus[n] >= self.top_p:
                    scores[n] = min(nucleus[n], 1.0)
        found_N = torch.tensor(scores, dtype=torch.float32, device=evidence.nucleus.device)
        return found_N.masked_fill(~evidence.eligible, -torch.inf)

    def _rises(self, surprises: Sequence[float]) -> list[float]:
        """By how many deviations each is above those before it; NaN, which is above nothing, where too few are."""
        count, mean, squares = 0, 0.0, 0.0
        found = []
        for surprise in surprises:
            is_late = count >= self.rise_after
            deviation = max(math.sqrt(squares / count), self.rise_floor) if is_late else math.nan
            found.append((surprise - mean) / deviation)
            if math.isfinite(surprise):
                count += 1
                gap = surprise - mean
                mean += gap / count
                squares += gap * (surprise - mean)
        return found


def ranked_errors(scores_N: Float[Tensor, " N"], *, evidence: Evidence, most: int) -> dict[int, list[int]]:
    """The entries of each row's `most` largest scores, the largest first, of equal ones the first; by row.

    Entries that are not eligible, and scores of −inf or NaN, are no errors; a row without one is left out.

    >>> from limbeck.testing import toy_evidence
    >>> evidence = toy_evidence(row=[0, 0, 0, 1], eligible=[True, True, True, False])
    >>> ranked_errors(torch.tensor([0.5, 2.0, 2.0, 9.0]), evidence=evidence, most=2)
    {0: [1, 2]}
    """
    if scores_N.shape != evidence.row.shape:
        raise ConfigError(
            f"the detector gave scores of shape {list(scores_N.shape)} for {len(evidence.row)} tokens; "
            "allowed: one score a token"
        )
    rows, scores = evidence.row.tolist(), scores_N.tolist()
    # A NaN is not above −inf either.
    found = (evidence.eligible & (scores_N > -torch.inf)).nonzero().squeeze(1).tolist()
    ranked: dict[int, list[int]] = {}
    for n in sorted(found, key=lambda n: (rows[n], -scores[n], n)):
        ranked.setdefault(rows[n], []).append(n)
    return {row: entries[:most] for row, entries in ranked.items()}


def _responses(evidence: Evidence) -> list[list[int]]:
    """The entries of each response, in its order: neighbouring tokens of one row."""
    rows, positions = evidence.row.tolist(), evidence.position.tolist()
    found, before = list[list[int]](), (-1, -1)
    for n in sorted(range(len(rows)), key=lambda n: (rows[n], positions[n])):
        if before != (rows[n], positions[n] - 1):
            found.append([])
        found[-1].append(n)
        before = (rows[n], positions[n])
    return found


def _turns(tokens: Sequence[int], *, size: int) -> list[bool]:
    """Whether the `size` tokens from each on stood there before."""
    seen, found = set[tuple[int, ...]](), []
    for start in range(len(tokens)):
        stretch = tuple(tokens[start : start + size])
        found.append(stretch in seen)
        # A shorter one, at the end, is never looked for.
        if len(stretch) == size:
            seen.add(stretch)
    return found


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AttentionArgmax:
    """The token that later ones attend to most for the teacher, of those that it would not have put there.

        score_i = a_i if y_i ≠ y^t_i else −∞
        a_i = mean over layers l and heads h of 1/|R_li| · Σ_{k ∈ R_li} A_lh[k, i]

    A_lh[k, i] is the share of its attention that token k gives to token i; R_li are the response tokens behind i that
    see i in layer l (all of them, but for a sliding window): the mean over its readers, since an early token has more
    of them. It is not corrected for distance: a near reader counts like a far one, though it attends more. The last
    token of a response has no reader and a_i = 0: it is taken only where nothing else can be. Layers: the last quarter,
    rounded up, of the teacher's attention layers. An error that the rest of the response leans on is thus preferred to
    one without consequence; the rule is Limbeck's own, beside MGSR's (arXiv 2407.10068, Eq. 3).

    a is the column "attention" of the evidence. Its cost: the teacher's pass over the rows runs with eager attention,
    which forms `[B H S S]` in each layer (32 rows of 512 tokens with 32 heads: 1 GB in float32), one layer at a time.
    `models.teacher` has to be a model of transformers that shows its attention; others raise `ConfigError`.

    >>> from limbeck.testing import toy_evidence
    >>> AttentionArgmax()(toy_evidence(attention=[0.25, 0.75, 0.5], eligible=[True, False, True])).tolist()
    [0.25, -inf, 0.5]
    """

    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def __call__(self, evidence: Evidence) -> Float[Tensor, " N"]:
        """One number a token."""
        attention_N = evidence.columns["attention"]
        return attention_N.masked_fill(~evidence.eligible | attention_N.isnan(), -torch.inf)
