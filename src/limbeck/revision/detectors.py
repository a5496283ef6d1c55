"""Which token of a drawn response is the error: evidence in, one score a token out."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from limbeck.types import Evidence


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
