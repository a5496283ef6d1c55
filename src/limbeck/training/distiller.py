"""The one wrapped module: student and trainable terms, and the only road from parameters to a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limbeck.losses.fused import TeacherView, fused_loss
from limbeck.losses.match import Likelihood
from limbeck.losses.objective import Objective
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.types import Sequences

CROSS_ENTROPY = "cross_entropy"


class Distiller(nn.Module):
    """Student and objective. DDP and FSDP2 wrap this module; nothing else calls the student's body for gradients.

    `chunk` is how many scored tokens meet the head at a time; it moves the loss by rounding only.
    """

    def __init__(self, scorer: Scorer, objective: Objective, *, chunk: int) -> None:
        super().__init__()
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
        weights: Mapping[str, Float[Tensor, " N"]],
        *,
        separate_gradients: bool = False,
    ) -> dict[str, Tensor]:
        """`loss`, which carries the gradient, and detached: `total/TERM`, and `norm/TERM` if asked for.

            loss = Σ_term scale · Σ_n weight[n] · ℓ[n]

        `views` is empty where no term needs a teacher. `weights` come from `Objective.weights` for the whole step, so
        that losses of micro-batches and ranks add up. Without a scored token the loss is 0 with a graph. A weight
        named "cross_entropy" measures −log q(token) beside the terms; it adds nothing to the loss.
        """
        where = scored_tokens(sequences)
        hidden_ND = self.scorer.predicting(sequences, where)
        result = fused_loss(
            hidden_ND,
            head=self.scorer.head,
            tokens_N=where.tokens,
            views=views,
            terms={**self.objective.terms, CROSS_ENTROPY: Likelihood()},
            weights=weights,
            scales={**self.objective.scales, CROSS_ENTROPY: 0.0},
            chunk=self.chunk,
            separate_gradients=separate_gradients,
        )
        # A plain dictionary: a sharding wrapper looks for the tensors of an output, and does not look into a record.
        out = {"loss": result.loss}
        out |= {f"total/{name}": total for name, total in result.totals.items()}
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
