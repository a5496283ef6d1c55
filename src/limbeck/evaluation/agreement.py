"""How far a student's distributions are from its teacher's, token by token, summed by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.data.tokenizing import Encoder
from limbeck.evaluation.exposure import Prefix
from limbeck.losses.divergences import TVD, ForwardKL, ReverseKL
from limbeck.losses.fused import HiddenView, token_scores
from limbeck.losses.match import Likelihood, TokenScores
from limbeck.models.scoring import Scored, Scorer, per_row, scored_tokens, split_rows
from limbeck.records import Example
from limbeck.types import Sequences, pack_rows

_DIGITS = 5
COLUMNS = (
    "kl_teacher_student",
    "kl_student_teacher",
    "top1_agreement",
    "acceptance",
    "cross_entropy",
    "teacher_cross_entropy",
)


@runtime_checkable
class Reader(Protocol):
    """A teacher of whole rows: a model, or one that remembers what it has read."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Its distributions at the scored tokens of rows that are on its device."""
        ...


def token_values(scores: TokenScores) -> dict[str, Float[Tensor, " n"]]:
    """Each column at each token.

        kl_teacher_student  KL(t‖s)            kl_student_teacher  KL(s‖t)             nats
        top1_agreement      [argmax t = argmax s]
        acceptance          1 − TVD(t, s) = Σ_v min(t_v, s_v), the chance that a speculative draft token is accepted
        cross_entropy       −log s(token)      teacher_cross_entropy  −log t(token)    nats

    Without a teacher there is only the cross-entropy.
    """
    values = {"cross_entropy": Likelihood()(scores)}
    target = scores.target_logp
    if target is not None:
        student = scores.student_logp
        values["kl_teacher_student"] = ForwardKL()(target_logp=target, student_logp=student)
        values["kl_student_teacher"] = ReverseKL()(target_logp=target, student_logp=student)
        values["top1_agreement"] = (target.argmax(dim=-1) == student.argmax(dim=-1)).float()
        drawn = target.gather(1, scores.tokens.long().unsqueeze(1)).squeeze(1)
        values["teacher_cross_entropy"] = -drawn.to(torch.promote_types(drawn.dtype, torch.float32))
        values["acceptance"] = 1.0 - TVD()(target_logp=target, student_logp=student)
    return values


def own_and_references(
    examples: Sequence[Example], own: Mapping[str, tuple[int, ...]], *, encoder: Encoder, pad_id: int
) -> tuple[Sequences, Sequences]:
    """The examples with the model's own answers (tokens by id), and with their first references."""
    prompts = [encoder.prompt(example) for example in examples]
    written = [own[example.id] for example in examples]
    answered = pack_rows(
        [[*prompt, *answer] for prompt, answer in zip(prompts, written, strict=True)],
        [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, written, strict=True)],
        origin=["student"] * len(examples),
        keys=[(example.id,) for example in examples],
        pad_id=pad_id,
    )
    encoded = [row for example in examples if (row := encoder.row(example)) is not None]
    references = pack_rows(
        [row.tokens for row in encoded],
        [row.is_response for row in encoded],
        origin=["reference"] * len(encoded),
        keys=[(row.id,) for row in encoded],
        pad_id=pad_id,
    )
    return answered, references


def agreement_rows(
    sequences: Sequences, *, student: Scorer, teacher: Reader | None, chunk: int, group_rows: int
) -> Iterator[list[dict[str, Any]]]:
    """One dictionary a row, group by group: `id` (the first part of its key), `num_tokens`, and in `scores` each
    column's mean over its tokens.

    A row without a scored token has `num_tokens` 0 and no scores. Rows on disk come first; averages are made of them.
    """
    for part, where, values in compared_tokens(
        sequences, student=student, teacher=teacher, chunk=chunk, group_rows=group_rows
    ):
        sums = {name: per_row(column, where, rows=len(part)) for name, column in values.items()}
        counts = part.scored.sum(dim=1).tolist()
        yield [_row(str(part.keys[place][0]), place, counts[place], sums) for place in range(len(part))]


def exposure_rows(
    sequences: Sequences, *, student: Scorer, teacher: Scorer, prefix: Prefix, chunk: int, group_rows: int
) -> Iterator[dict[str, Any]]:
    """One dictionary a row: `id`, who wrote the `prefix`, and `kl`, KL(t‖s) in nats before each token of the answer."""
    for part, where, values in compared_tokens(
        sequences, student=student, teacher=teacher, chunk=chunk, group_rows=group_rows
    ):
        found: list[list[float]] = [[] for _ in range(len(part))]
        for row, value in zip(where.rows.tolist(), values["kl_teacher_student"].tolist(), strict=True):
            found[row].append(round(value, _DIGITS))
        for row, kl in enumerate(found):
            yield {"id": str(part.keys[row][0]), "prefix": prefix, "kl": kl}


@torch.no_grad()
def compared_tokens(
    sequences: Sequences, *, student: Scorer, teacher: Reader | None, chunk: int, group_rows: int
) -> Iterator[tuple[Sequences, Scored, dict[str, Float[Tensor, " N"]]]]:
    """Group by group: rows of like length, where their scored tokens stand, and each column at each of these tokens."""
    device = student.device
    for group in split_rows(sequences, group_rows):
        part = sequences.rows(group).to(device)
        where = scored_tokens(part)
        hidden_ND = student.predicting(part, where)
        views: list[HiddenView] = []
        if teacher is not None:
            moved = part.to(teacher.device)
            views.append(teacher.view(moved, scored_tokens(moved)))
        collected: dict[str, list[Tensor]] = {}
        for scores in token_scores(hidden_ND, head=student.head, tokens_N=where.tokens, views=views, chunk=chunk):
            for name, value in token_values(scores).items():
                collected.setdefault(name, []).append(value)
        yield part, where, {name: torch.cat(parts) for name, parts in collected.items()}


def _row(id: str, place: int, count: int, sums: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    means = {name: float(total[place]) / count for name, (total, _) in sums.items()} if count else {}
    return {"id": id, "num_tokens": count, "scores": means}
