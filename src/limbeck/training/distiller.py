"""The one wrapped module: student and trainable terms, and the only road from parameters to a loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from limbeck.losses.fused import HiddenView, TeacherView, fused_loss
from limbeck.losses.heads import Head
from limbeck.losses.looks import TokenLook, look_at_tokens
from limbeck.losses.match import Likelihood, TermToBuild, TokenTerm
from limbeck.losses.objective import Objective
from limbeck.models.scoring import Scored, Scorer, scored_tokens
from limbeck.types import Pairs, Sequences

CROSS_ENTROPY = "cross_entropy"


class Distiller(nn.Module):
    """Student and objective. DDP and FSDP2 wrap this module; nothing else calls the student's body for gradients.

    The objective is one whose terms are built: terms that are modules become part of this one. `chunk` is how many
    scored tokens meet the head at a time; it moves the loss by rounding only.
    """

    def __init__(self, scorer: Scorer, objective: Objective, *, chunk: int) -> None:
        super().__init__()
        assert not any(isinstance(term, TermToBuild) for term in objective.terms.values()), "Objective.built first"
        self.student = scorer.model
        self.terms = nn.ModuleDict(
            {name: term for name, term in objective.terms.items() if isinstance(term, nn.Module)}
        )
        self.scorer = scorer
        self.objective = objective
        self.chunk = chunk

    def forward(
        self,
        sequences: Sequences,
        views: Sequence[TeacherView],
        weights: Mapping[str, Float[Tensor, " _"]],
        pairs: Pairs | None = None,
        *,
        separate_gradients: bool = False,
    ) -> dict[str, Tensor]:
        """`loss`, which carries the gradient; detached `total/TERM`, `measure/TERM/NAME`, `norm/TERM` if asked for.

            loss = Σ_term scale · Σ_n weight[n] · ℓ[n]

        `views` is empty where no term needs a teacher; `pairs` are what a span term is taken on. `weights` come from
        `Objective.weights` for the whole step, so that losses of micro-batches and ranks add up. Without a scored
        token the loss is 0 with a graph. Weights named "cross_entropy" and "teacher_logp" measure −log q(token) and
        log p(token), p the teacher where a term reads it, beside the terms; they add nothing to the loss.
        """
        where = scored_tokens(sequences)
        hidden_ND = self.scorer.predicting(sequences, where)
        result = fused_loss(
            hidden_ND,
            head=self.scorer.head,
            tokens_N=where.tokens,
            views=views,
            terms={**cast(Mapping[str, TokenTerm], self.objective.terms), CROSS_ENTROPY: Likelihood()},
            weights=weights,
            scales={**self.objective.scales, CROSS_ENTROPY: 0.0},
            chunk=self.chunk,
            pairs_P=None if pairs is None else pairs.first,
            pair_terms=self.objective.pair_terms,
            experience=sequences.experience,
            separate_gradients=separate_gradients,
        )
        # A plain dictionary: a sharding wrapper looks for the tensors of an output, and does not look into a record.
        out = {"loss": result.loss}
        out |= {f"total/{name}": total for name, total in result.totals.items()}
        out |= {f"measure/{name}": value for name, value in result.measures.items()}
        out |= {f"norm/{name}": norm for name, norm in result.gradient_norms.items()}
        return out

    @torch.no_grad()
    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """Decoding's forward: log-probabilities of what follows the last column."""
        return self.scorer.next_logp(tokens, attended=attended, positions=positions, cache=cache)

    @torch.no_grad()
    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """Detection's forward: the student's distributions at the scored tokens of whole rows."""
        view = self.scorer.view(sequences, where)
        # Gathered weights are let go at the end of this forward; the view goes on needing its head.
        return replace(view, head=_copied(view.head)) if isinstance(self, FSDPModule) else view

    @torch.no_grad()
    def look(
        self, sequences: Sequences, views: Sequence[TeacherView], *, chosen: Collection[int], num_classes: int
    ) -> list[TokenLook]:
        """A forward to look at: what the token term keeps at each scored token of whole rows."""
        where = scored_tokens(sequences)
        return look_at_tokens(
            self.scorer.predicting(sequences, where),
            head=self.scorer.head,
            tokens_N=where.tokens,
            views=views,
            term=self.objective.terms.get("token"),
            chunk=self.chunk,
            chosen=chosen,
            num_classes=num_classes,
        )


def _copied(head: Head) -> Head:
    weight = None if head.weight is None else head.weight.clone()
    return replace(head, weight=weight, bias=None if head.bias is None else head.bias.clone())
