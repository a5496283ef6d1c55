"""One token after the other, to look at: what a term keeps there, and both models' likeliest classes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.losses.fused import token_scores
from limbeck.losses.heads import Head
from limbeck.losses.match import ClippingTerm, MeasuringTerm, TokenScores
from limbeck.losses.views import TeacherView


@dataclass(frozen=True, kw_only=True)
class ClassLook:
    """The classes that the teacher finds likeliest at a token, in order: log-probabilities in nats, and gates."""

    ids: Int[Tensor, " k"]
    teacher_logp: Float[Tensor, " k"]
    student_logp: Float[Tensor, " k"]
    gates: Float[Tensor, " k"] | None


@dataclass(frozen=True, kw_only=True)
class TokenLook:
    """What a term measures at a token (empty if it measures nothing), and its classes where they were asked for."""

    measured: dict[str, float]
    classes: ClassLook | None = None


@torch.no_grad()
def look_at_tokens(
    hidden_ND: Float[Tensor, "N D"],
    *,
    head: Head,
    tokens_N: Int[Tensor, " N"],
    views: Sequence[TeacherView],
    term: object,
    chunk: int,
    chosen: Collection[int],
    num_classes: int,
) -> list[TokenLook]:
    """A look at every scored token; of the `chosen` ones also the `num_classes` likeliest classes of the teacher."""
    looks: list[TokenLook] = []
    for scores in token_scores(hidden_ND, head=head, tokens_N=tokens_N, views=views, chunk=chunk):
        looks += _of_chunk(scores, term, first=len(looks), chosen=chosen, num_classes=num_classes)
    return looks


def _of_chunk(
    scores: TokenScores, term: object, *, first: int, chosen: Collection[int], num_classes: int
) -> Iterator[TokenLook]:
    count = len(scores.tokens)
    values = term.measured(scores).values if isinstance(term, MeasuringTerm) else {}
    numbers = {name: value_n.tolist() for name, value_n in values.items()}
    for n in range(count):
        measured = {name: float(value[n]) for name, value in numbers.items()}
        classes = _classes(scores, n, term, num_classes=num_classes) if first + n in chosen else None
        yield TokenLook(measured=measured, classes=classes)


def _classes(scores: TokenScores, n: int, term: object, *, num_classes: int) -> ClassLook:
    assert scores.target_logp is not None, "there is no teacher to look at"
    one = TokenScores(
        student_logp=scores.student_logp[n : n + 1],
        target_logp=scores.target_logp[n : n + 1],
        tokens=scores.tokens[n : n + 1],
    )
    top = torch.topk(scores.target_logp[n], min(num_classes, scores.target_logp.shape[1]))
    gates = term.gates(one)[0, top.indices] if isinstance(term, ClippingTerm) else None
    return ClassLook(
        ids=top.indices, teacher_logp=top.values, student_logp=scores.student_logp[n, top.indices], gates=gates
    )
