"""What a step minimises: named terms, each with its own normaliser, a weight that is settled before backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.errors import NothingToLearn
from limbeck.losses.match import Likelihood, TokenTerm
from limbeck.types import Sequences

Reduction = Literal["token", "sequence"]
TermName = Literal["token", "supervised"]
SumOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows, and the terms that are taken on them."""

    sequences: Sequences
    terms: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Scored tokens, and rows that have one, by term: over all micro-batches of the step and all ranks."""

    tokens: dict[str, int]
    rows: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The terms of a method with their scales (Eq. 11: supervised + token).

    `terms["token"]` is what is matched on the drawn rows; `terms["supervised"]`, where wanted, is cross-entropy on the
    reference responses (Eq. 2). A term whose scale is 0 is left out altogether.
    """

    terms: Mapping[str, TokenTerm]
    scales: Mapping[str, float]
    reduction: Reduction = "token"

    @classmethod
    def of(cls, token: TokenTerm, *, scales: Mapping[str, float], reduction: Reduction = "token") -> Objective:
        """The objective of a method: its token term, and the supervised term if its scale is not 0."""
        wanted: dict[str, TokenTerm] = {"token": token, "supervised": Likelihood()}
        terms = {name: term for name, term in wanted.items() if scales.get(name, 0.0) != 0.0}
        return cls(terms=terms, scales={name: float(scales[name]) for name in terms}, reduction=reduction)

    def needs_teacher(self, batch: Batch) -> bool:
        """Whether a term taken on this batch reads the teacher."""
        return any(self.terms[name].needs_teacher for name in batch.terms if name in self.terms)

    def count(self, batches: Sequence[Batch], *, total: SumOverRanks) -> Counts:
        """N and R of each term over the batches of all ranks; `total` adds a tensor over the ranks."""
        names = sorted(self.terms)
        numbers = torch.zeros(len(names), 2, dtype=torch.float64)
        for batch in batches:
            per_row = batch.sequences.scored.sum(dim=1)
            for i, name in enumerate(names):
                if name in batch.terms:
                    numbers[i, 0] += float(per_row.sum())
                    numbers[i, 1] += float((per_row > 0).sum())
        numbers = total(numbers)
        return Counts(
            tokens={name: int(numbers[i, 0]) for i, name in enumerate(names)},
            rows={name: int(numbers[i, 1]) for i, name in enumerate(names)},
        )

    def weights(
        self, batches: Sequence[Batch], *, total: SumOverRanks
    ) -> tuple[list[dict[str, Float[Tensor, " N"]]], Counts]:
        """The weight of every scored token of every batch, term by term, and the counts behind them.

            token:     1 / N            N = scored tokens of the step, over all micro-batches and ranks
            sequence:  1 / (R · L_row)  R = rows with a scored token, L_row = scored tokens of this row

        The weights of a term over the whole step add up to 1. Raises `NothingToLearn` if no term has a token.
        """
        counts = self.count(batches, total=total)
        if not any(counts.tokens.values()):
            rows = sum(len(batch.sequences) for batch in batches)
            raise NothingToLearn(
                f"none of the {rows} rows of this step has a response token to learn from.\n"
                "  Look at data.max_prompt and data.max_length (a prompt that fills the length leaves no room), and\n"
                "  at sampling.max_new_tokens if the rows were drawn from the student."
            )
        return [self._of_batch(batch, counts) for batch in batches], counts

    def _of_batch(self, batch: Batch, counts: Counts) -> dict[str, Float[Tensor, " N"]]:
        per_row = batch.sequences.scored.sum(dim=1)
        row_of_N = torch.repeat_interleave(torch.arange(len(per_row), device=per_row.device), per_row)
        weights: dict[str, Tensor] = {}
        for name in self.terms:
            if name not in batch.terms or not counts.tokens[name]:
                continue
            if self.reduction == "token":
                weights[name] = torch.full((len(row_of_N),), 1.0 / counts.tokens[name], device=per_row.device)
            else:
                weights[name] = 1.0 / (counts.rows[name] * per_row[row_of_N].float())
        return weights


def one_process(numbers: Tensor) -> Tensor:
    """The sum over ranks where there is only one."""
    return numbers
