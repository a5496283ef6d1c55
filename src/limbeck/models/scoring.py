"""The one shift: which hidden state predicts which response token. Nothing else in Limbeck writes a `− 1`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limbeck.losses.fused import HiddenView
from limbeck.losses.heads import Head
from limbeck.models.pair import Vocabulary
from limbeck.models.presence import Presence, Resident
from limbeck.models.splitting import parts_agree
from limbeck.types import Pairs, Sequences


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scored tokens of a batch, packed row after row: `tokens[n]` stands at `[rows[n], positions[n]]`."""

    rows: Int[Tensor, " N"]
    positions: Int[Tensor, " N"]
    tokens: Int[Tensor, " N"]

    def __len__(self) -> int:
        return self.rows.shape[0]


def scored_tokens(sequences: Sequences) -> Scored:
    """Every response token that has a token before it.

    >>> from limbeck.types import pack_rows
    >>> flags = [[False, True, True], [False, True]]
    >>> batch = pack_rows([[5, 6, 7], [8, 9]], flags, origin=["reference"] * 2, keys=[(0,), (1,)], pad_id=0)
    >>> where = scored_tokens(batch)
    >>> where.rows.tolist(), where.positions.tolist(), where.tokens.tolist()
    ([0, 0, 1], [1, 2, 1], [6, 7, 9])
    """
    rows, positions = sequences.scored.nonzero(as_tuple=True)
    return Scored(rows=rows, positions=positions, tokens=sequences.tokens[rows, positions])


def predicting_states(states: Float[Tensor, "B S D"], where: Scored) -> Float[Tensor, "N D"]:
    """The state that predicts each scored token: the one at the position before it."""
    return states[where.rows, where.positions - 1]


def causal(model: nn.Module) -> Any:
    """The causal model with its head, below a LoRA wrapper if there is one."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


class Scorer:
    """A causal language model taken apart: its body, and the head that only response positions meet.

    `split` is false where `head(body(x))` does not give the model's own logits; then the whole model runs and its
    logits take the place of the hidden states (the dense path: right, but with `[B S V]` in memory). `presence` makes
    a model ready whose weights are elsewhere, or are another model's.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: Vocabulary,
        split: bool,
        autocast: torch.dtype | None = None,
        presence: Presence | None = None,
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.split = split
        self.autocast = autocast
        self.presence = presence or Resident(model)
        self._sustained_head: Head | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        vocabulary: Vocabulary,
        autocast: torch.dtype | None = None,
        presence: Presence | None = None,
    ) -> Scorer:
        """Take `model` apart, and check the parts against the whole on a few tokens.

        `autocast` is the dtype of matrix products where it is not the weights' own (bf16 mixed precision). Raises
        `ModelError` if no logit is finite.
        """
        whole = cls(model, vocabulary=vocabulary, split=True, presence=presence)
        return cls(model, vocabulary=vocabulary, split=whole._parts_agree(), autocast=autocast, presence=presence)

    @property
    def device(self) -> torch.device:
        """Where this model computes: rows are brought there, wherever its weights are in between."""
        return self.presence.device

    def context(self) -> AbstractContextManager[Any]:
        """Autocast, if this model computes in another dtype than its weights'."""
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast)

    @contextmanager
    def sustained(self) -> Iterator[None]:
        """Around many forwards without gradient between which no weight moves: under autocast, weights are cast once.

        Otherwise each token that is drawn would read every weight, cast it and read it again. It holds a second copy of
        the weights, in the dtype of the products.
        """
        with self.context():
            head = self.head.detached()
            self._sustained_head = head if self.autocast is None else head.in_dtype(self.autocast)
            try:
                yield
            finally:
                self._sustained_head = None

    @property
    def _causal(self) -> Any:
        return causal(self.model)

    @property
    def head(self) -> Head:
        """The head as it is now; read inside a forward, where a sharded model has its weights gathered."""
        size, shared = self.vocabulary.width, self.vocabulary.shared
        linear = self._causal.get_output_embeddings()
        if not self.split:
            return Head(weight=None, size=size, shared=None if shared is None else shared.to(self.device))
        self.presence.ready(linear)
        config = self._causal.config
        return Head(
            weight=linear.weight,
            bias=getattr(linear, "bias", None),
            size=size,
            shared=None if shared is None else shared.to(linear.weight.device),
            scale=_scale(config),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def states(self, sequences: Sequences) -> Float[Tensor, "B S D"]:
        """Final hidden states of right-padded rows; logits where the model cannot be split."""
        width = sequences.tokens.shape[1]
        positions = torch.arange(width, device=sequences.tokens.device).expand(len(sequences), width)
        inputs = {"input_ids": sequences.tokens, "attention_mask": sequences.attended.long(), "position_ids": positions}
        with self.presence.forward():
            if not self.split:
                logits: Tensor = self.model(**inputs, use_cache=False).logits
                return logits
            states: Tensor = self._causal.base_model(**inputs, use_cache=False).last_hidden_state
            return states

    def predicting(self, sequences: Sequences, where: Scored) -> Float[Tensor, "N D"]:
        """The states that predict the scored tokens of these rows, in the dtype that this model computes in."""
        with self.context():
            hidden_ND = predicting_states(self.states(sequences), where)
        return hidden_ND if self.autocast is None else hidden_ND.to(self.autocast)

    @torch.no_grad()
    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """This model as a teacher of these rows: hidden states at the scored tokens, with its head, no gradient."""
        hidden_ND = self.predicting(sequences, where)
        return HiddenView(hidden=hidden_ND, head=self.head.detached().in_dtype(hidden_ND.dtype))

    @torch.no_grad()
    def next_logp(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b V"]:
        """The log-probabilities `[b V]` of what follows the last column of `tokens`; `cache` is extended in place.

        Dropped ids are −inf. This is decoding's forward: it has no shift, since it asks for the next token.
        """
        with self.context():
            if self.split:
                states_bnD = self.states_behind(tokens, attended=attended, positions=positions, cache=cache)
                last_bD = states_bnD[:, -1]
            else:
                inputs = _cached_inputs(tokens, attended=attended, positions=positions, cache=cache)
                with self.presence.forward():
                    last_bD = self.model(**inputs, logits_to_keep=1).logits[:, -1]
        head = self._sustained_head or self.head.detached()
        return head(last_bD if self.autocast is None else last_bD.to(self.autocast))

    @torch.no_grad()
    def states_behind(
        self,
        tokens: Int[Tensor, "b new"],
        *,
        attended: Bool[Tensor, "b past_and_new"],
        positions: Int[Tensor, "b new"],
        cache: Any,
    ) -> Float[Tensor, "b new D"]:
        """Final hidden states of tokens that follow what `cache` holds, which grows by them. For a model that splits.

        In the dtype of the weights, or of `context` where it is called inside.
        """
        inputs = _cached_inputs(tokens, attended=attended, positions=positions, cache=cache)
        with self.presence.forward():
            states: Tensor = self._causal.base_model(**inputs).last_hidden_state
        return states

    @torch.no_grad()
    def _parts_agree(self) -> bool:
        if self._causal.get_output_embeddings() is None:
            return False
        count = min(8, self.vocabulary.width)
        tokens = torch.arange(count, device=self.device).unsqueeze(0)
        flags = torch.ones_like(tokens, dtype=torch.bool)
        rows = Sequences(tokens=tokens, attended=flags, is_response=flags, origin=("probe",), keys=((0,),))
        was_training = self.model.training
        self.model.eval()
        try:
            parts = self.head.log_probabilities(self.head.raw(self.states(rows)[0]))
            with self.presence.forward():
                logits_nV = self.model(tokens).logits[0]
            whole = Head(weight=None, size=self.vocabulary.width, shared=self.head.shared)(logits_nV)
        finally:
            self.model.train(was_training)
        return parts_agree(parts, whole, model=self._causal)


def _cached_inputs(tokens: Tensor, *, attended: Tensor, positions: Tensor, cache: Any) -> dict[str, Any]:
    return {
        "input_ids": tokens,
        "attention_mask": attended.long(),
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }


def _scale(config: Any) -> float:
    """What architectures multiply their logits by: Cohere's logit_scale, Granite's 1 / logits_scaling."""
    if getattr(config, "logits_scaling", None):
        return 1.0 / float(config.logits_scaling)
    return float(getattr(config, "logit_scale", None) or 1.0)


def span_pairs(sequences: Sequences, spans: Sequence[Sequence[tuple[int, int]]]) -> Pairs:
    """The neighbours inside spans, where both tokens are scored; spans are `[first, end)` in tokens of their row.

    A span that keeps no pair counts for nothing. Spans of a row must not overlap.

    >>> from limbeck.types import pack_rows
    >>> flags = [[False, True, True, True], [False, True, True]]
    >>> batch = pack_rows([[5, 6, 7, 8], [5, 6, 7]], flags, origin=["student"] * 2, keys=[(0,), (1,)], pad_id=0)
    >>> pairs = span_pairs(batch, [[(1, 4)], [(1, 3)]])
    >>> pairs.first.tolist(), pairs.span_tokens.tolist(), pairs.num_spans
    ([0, 1, 3], [3, 3, 2], 2)
    """
    scored = sequences.scored.cpu()
    place = scored.flatten().cumsum(0).view_as(scored) - 1
    first: list[int] = []
    tokens: list[int] = []
    in_row: list[int] = []
    num_spans = num_rows = 0
    for row, own in enumerate(spans):
        kept = [(a, b) for a, b in sorted(own) if b - a > 1 and bool(scored[row, a:b].all())]
        for a, b in kept:
            first += place[row, a : b - 1].tolist()
            tokens += [b - a] * (b - a - 1)
            in_row += [len(kept)] * (b - a - 1)
        num_spans += len(kept)
        num_rows += bool(kept)
    return Pairs(
        first=torch.tensor(first, dtype=torch.long),
        span_tokens=torch.tensor(tokens, dtype=torch.long),
        row_spans=torch.tensor(in_row, dtype=torch.long),
        num_spans=num_spans,
        num_rows=num_rows,
    )


def per_row(
    values_N: Float[Tensor, " N"], where: Scored, *, rows: int
) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Sums and counts of per-token values by row, so that every average can be taken apart."""
    totals = torch.zeros(rows, dtype=torch.float64, device=values_N.device)
    totals.index_add_(0, where.rows, values_N.double())
    return totals, torch.bincount(where.rows, minlength=rows)


def split_rows(sequences: Sequences, size: int) -> list[list[int]]:
    """Row numbers in groups of at most `size` and nearly equal, longest rows first: like lengths share padding."""
    order = sorted(range(len(sequences)), key=lambda row: (-int(sequences.lengths[row]), row))
    size = -(-len(order) // max(1, -(-len(order) // size)))
    return [order[start : start + size] for start in range(0, len(order), size)]
