"""What a step minimises: named terms, each with its own normaliser, a weight that is settled before backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.errors import NothingToLearn
from limbeck.losses.correlation import PairTerm
from limbeck.losses.match import Likelihood, TermToBuild, TokenTerm
from limbeck.types import Pairs, Sequences

Reduction = Literal["token", "sequence"]
SPAN = "span"
PLAIN_TEXT = "plain_text"
SumOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows, the terms that are taken on them, and the pairs of a span term among these.

    `taught_by`: what the teacher reads in the place of each row, where that is another one.
    """

    sequences: Sequences
    terms: frozenset[str]
    pairs: Pairs | None = None
    taught_by: Sequences | None = None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a term is taken on, and rows that have one: scored tokens, or spans for a span term.

    Over all micro-batches of the step and all ranks.
    """

    tokens: dict[str, int]
    rows: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The terms of a method with their scales (MGSR, arXiv 2407.10068, Eq. 11: supervised + token + span).

    `terms["token"]` is what is matched on the drawn rows; `terms["supervised"]`, where wanted, is cross-entropy on the
    reference responses (Eq. 2); `terms["plain_text"]` is cross-entropy on texts that are no rows of the method (the
    language-modelling loss of MiniLLM, arXiv 2306.08543, and of DistiLLM's code); `pair_terms["span"]` is what is
    matched inside the spans of the drawn rows. A term whose scale is 0 is left out altogether. Terms that own weights
    are components until `built`.
    """

    terms: Mapping[str, TokenTerm | TermToBuild]
    scales: Mapping[str, float]
    reduction: Reduction = "token"
    pair_terms: Mapping[str, PairTerm] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        token: TokenTerm | TermToBuild,
        *,
        span: PairTerm | None = None,
        scales: Mapping[str, float],
        reduction: Reduction = "token",
    ) -> Objective:
        """The objective of a method: its parts whose scale is not 0."""
        wanted: dict[str, TokenTerm | TermToBuild] = {
            "token": token,
            "supervised": Likelihood(),
            PLAIN_TEXT: Likelihood(),
        }
        terms = {name: term for name, term in wanted.items() if scales.get(name, 0.0) != 0.0}
        pair_terms = {} if span is None or scales.get(SPAN, 0.0) == 0.0 else {SPAN: span}
        kept = {name: float(scales[name]) for name in (*terms, *pair_terms)}
        return cls(terms=terms, scales=kept, reduction=reduction, pair_terms=pair_terms)

    def built(self, *, vocabulary_size: int, generator: torch.Generator) -> Objective:
        """The same objective, with the weights of its terms."""
        terms = {
            name: term.build(vocabulary_size=vocabulary_size, generator=generator)
            if isinstance(term, TermToBuild)
            else term
            for name, term in self.terms.items()
        }
        return replace(self, terms=terms)

    @property
    def names(self) -> tuple[str, ...]:
        """All terms, token terms first."""
        return (*self.terms, *self.pair_terms)

    @property
    def row_names(self) -> tuple[str, ...]:
        """The terms that are taken on rows of prompt and response: all but the one on plain text."""
        return tuple(name for name in self.names if name != PLAIN_TEXT)

    def needs_teacher(self, batch: Batch) -> bool:
        """Whether a term taken on this batch reads the teacher."""
        return any(
            name in self.pair_terms or (name in self.terms and self.terms[name].needs_teacher) for name in batch.terms
        )

    def count(self, batches: Sequence[Batch], *, total: SumOverRanks) -> Counts:
        """N and R of each term over the batches of all ranks; `total` adds a tensor over the ranks.

        For a span term M and R′: spans with a pair, and rows with such a span.
        """
        names = sorted(self.names)
        numbers = torch.zeros(len(names), 2, dtype=torch.float64)
        for batch in batches:
            per_row = batch.sequences.scored.sum(dim=1)
            for i, name in enumerate(names):
                if name in self.pair_terms and name in batch.terms and batch.pairs is not None:
                    numbers[i, 0] += batch.pairs.num_spans
                    numbers[i, 1] += batch.pairs.num_rows
                elif name in self.terms and name in batch.terms:
                    numbers[i, 0] += float(per_row.sum())
                    numbers[i, 1] += float((per_row > 0).sum())
        numbers = total(numbers)
        return Counts(
            tokens={name: int(numbers[i, 0]) for i, name in enumerate(names)},
            rows={name: int(numbers[i, 1]) for i, name in enumerate(names)},
        )

    def weights(
        self, batches: Sequence[Batch], *, total: SumOverRanks
    ) -> tuple[list[dict[str, Float[Tensor, " _"]]], Counts]:
        """The weight of every scored token (or pair) of every batch, term by term, and the counts behind them.

            token:     1 / N            N = scored tokens of the step, over all micro-batches and ranks
            sequence:  1 / (R · L_row)  R = rows with a scored token, L_row = scored tokens of this row

        and of every pair of a span with n_si tokens (Eq. 10)

            token:     1 / (M · n_si)        M = spans of the step
            sequence:  1 / (R′ · n_s · n_si)  R′ = rows with a span, n_s = spans of this row

        The weights of a token term over the whole step add up to 1. A span term without spans has none: it is 0.
        `sequence` is MGSR's Eq. 1, 8 and 10 as printed (arXiv 2407.10068), averaged over rows; `token` weighs all
        tokens alike. Raises `NothingToLearn` if no row with a term has a scored token; plain text does not count: it
        has tokens whatever the rows hold.
        """
        counts = self.count(batches, total=total)
        if not any(counts.tokens[name] for name in self.terms.keys() & set(self.row_names)):
            self._check_scored(batches, total=total)
        return [self._of_batch(batch, counts) for batch in batches], counts

    def _check_scored(self, batches: Sequence[Batch], *, total: SumOverRanks) -> None:
        """A term on spans alone may have nothing in a step, but not because there was nothing to look for it in."""
        taken = [batch.sequences for batch in batches if not batch.terms.isdisjoint(self.row_names)]
        scored = torch.tensor([sum(float(rows.scored.sum()) for rows in taken)], dtype=torch.float64)
        if not total(scored).item():
            rows = sum(len(batch.sequences) for batch in batches)
            raise NothingToLearn(
                f"none of the {rows} rows of this step has a response token to learn from.\n"
                "  Look at data.max_prompt and data.max_length (a prompt that fills the length leaves no room), and\n"
                "  at sampling.max_new_tokens if the rows were drawn from the student."
            )

    def _of_batch(self, batch: Batch, counts: Counts) -> dict[str, Float[Tensor, " _"]]:
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
        pairs = batch.pairs
        for name in self.pair_terms:
            if name not in batch.terms or pairs is None:
                continue
            each = counts.tokens[name] if self.reduction == "token" else counts.rows[name] * pairs.row_spans
            weights[name] = 1.0 / (each * pairs.span_tokens.float())
        return weights


def one_process(numbers: Tensor) -> Tensor:
    """The sum over ranks where there is only one."""
    return numbers
