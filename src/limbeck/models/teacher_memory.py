"""What the teacher found in the rows of one step: where a row's beginning is unchanged, it is not read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from limbeck.losses.views import HiddenView
from limbeck.models.prefixes import MOST_BYTES, Layers, columns_of, common_start, given, layers_size
from limbeck.models.scoring import Scored, Scorer, causal, predicting_states, scored_tokens
from limbeck.types import RowKey, Sequences


@dataclass(frozen=True)
class _Known:
    """A row that was read: final hidden states `[length, D]`, and keys and values where they are kept."""

    tokens: tuple[int, ...]
    states: Float[Tensor, "_ D"]
    layers: Layers | None


class TeacherMemory:
    """A teacher that keeps what it finds in drawn rows by their keys, for the next time it is asked in this step.

    Detection reads whole rows through `view`, which keeps them. Afterwards a row that was not corrected needs no
    reading at all, and of one that was corrected at j, only the tokens from j on are read, behind the kept keys and
    values of those before. It is exact: the same numbers as of a whole reading, up to rounding.

    Keys and values are used only where every layer is plain full attention, and kept while those of all rows stay
    under `most_bytes`; other rows that have changed are read whole. It is made for one step and let go with it, so that
    nothing of it is in a checkpoint. The teacher must have a head apart from its body (`Scorer.split`): otherwise
    states are whole distributions. `columns_read` counts what the teacher's body was given, padding included.
    """

    def __init__(self, scorer: Scorer, *, most_bytes: int = MOST_BYTES) -> None:
        assert scorer.split, "states would be whole distributions"
        self.scorer = scorer
        self.columns_read = 0
        self._most_bytes = most_bytes
        self._bytes = 0
        self._rows: dict[RowKey, _Known] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def view(self, sequences: Sequences, where: Scored) -> HiddenView:
        """The teacher at the scored tokens of these rows, on its own device; the rows are kept."""
        return self._view(sequences, keeps=True)

    def read(self, sequences: Sequences) -> HiddenView:
        """The teacher at the scored tokens of these rows, on its own device; nothing more is kept."""
        return self._view(sequences, keeps=False)

    @torch.no_grad()
    def _view(self, sequences: Sequences, *, keeps: bool) -> HiddenView:
        rows = sequences.to(self.scorer.device)
        lengths = rows.lengths.tolist()
        tokens = [row[:length] for row, length in zip(rows.tokens.tolist(), lengths, strict=True)]
        held = [self._held(key, row) for key, row in zip(rows.keys, tokens, strict=True)]
        if not keeps and not any(held):
            self.columns_read += rows.tokens.numel()
            return self.scorer.view(rows, scored_tokens(rows))
        asked = [b for b, length in enumerate(lengths) if held[b] < length]
        found: dict[int, Float[Tensor, "_ D"]] = {}
        if asked:
            found = self._read(asked, [tokens[b] for b in asked], keys=[rows.keys[b] for b in asked], keeps=keeps)
        parts = [found[b] if b in found else self._rows[key].states for b, key in enumerate(rows.keys)]
        states_BSD = parts[0].new_zeros(*rows.tokens.shape, parts[0].shape[1])
        for b, (part, length) in enumerate(zip(parts, lengths, strict=True)):
            states_BSD[b, :length] = part[:length]
        hidden_ND = predicting_states(states_BSD, scored_tokens(rows))
        return HiddenView(hidden=hidden_ND, head=self.scorer.head.detached().in_dtype(hidden_ND.dtype))

    def _held(self, key: RowKey, tokens: Sequence[int]) -> int:
        """How many leading tokens of this row were read before."""
        known = self._rows.get(key)
        return 0 if known is None else common_start(known.tokens, tokens)

    def _read(
        self, rows: Sequence[int], tokens: Sequence[Sequence[int]], *, keys: Sequence[RowKey], keeps: bool
    ) -> dict[int, Float[Tensor, "_ D"]]:
        """The states of these rows, by row; only what no keys and values are kept of goes through the body."""
        known = [self._rows.get(key) for key in keys]
        kept = [None if each is None else each.layers for each in known]
        past = [0 if kept[i] is None else self._held(keys[i], tokens[i]) for i in range(len(rows))]
        layout = _Layout(tokens, past, device=self.scorer.device)
        cache = self._cache(kept, past)
        with self.scorer.context():
            new_bnD = self.scorer.states_behind(
                layout.tokens, attended=layout.attended, positions=layout.positions, cache=cache
            )
        new_bnD = new_bnD if self.scorer.autocast is None else new_bnD.to(self.scorer.autocast)
        self.columns_read += layout.tokens.numel()
        found: dict[int, Float[Tensor, "_ D"]] = {}
        for i, row in enumerate(rows):
            before, fresh = known[i], new_bnD[i, : len(tokens[i]) - past[i]]
            found[row] = fresh if before is None else torch.cat([before.states[: past[i]], fresh])
        if keeps:
            self._keep(keys, tokens, list(found.values()), cache=cache, layout=layout)
        return found

    def _cache(self, kept: Sequence[Layers | None], past: Sequence[int]) -> DynamicCache:
        config = causal(self.scorer.model).config
        some = next((layers for layers, length in zip(kept, past, strict=True) if layers and length), None)
        if some is None:
            return DynamicCache(config=config)
        return given(
            [
                tuple((keys[:, :length], values[:, :length]) for keys, values in layers or some)
                for layers, length in zip(kept, past, strict=True)
            ],
            config=config,
        )

    def _keep(
        self,
        keys: Sequence[RowKey],
        tokens: Sequence[Sequence[int]],
        states: Sequence[Float[Tensor, "_ D"]],
        *,
        cache: DynamicCache,
        layout: _Layout,
    ) -> None:
        """Views of the batch's keys and values: rows that are read together are let go together."""
        size = layers_size([(layer.keys, layer.values) for layer in cache.layers if layer.is_initialized])
        fits = self._bytes + size <= self._most_bytes
        self._bytes += size if fits else 0
        for i, key in enumerate(keys):
            first, end = layout.span(i)
            layers = columns_of(cache, i, first=first, end=end) if fits else None
            self._rows[key] = _Known(tuple(tokens[i]), states[i], layers)


class _Layout:
    """Rows of which a part was read: the rest right-padded, behind left-padded columns of what was."""

    def __init__(self, tokens: Sequence[Sequence[int]], past: Sequence[int], *, device: torch.device) -> None:
        self._longest = max(past)
        self._past = past
        self._lengths = [len(row) for row in tokens]
        width = max(length - held for length, held in zip(self._lengths, past, strict=True))
        shape = (len(tokens), width)
        new, attended = torch.zeros(shape, dtype=torch.long), torch.zeros(len(tokens), self._longest + width)
        positions = torch.zeros(shape, dtype=torch.long)
        for i, (row, held) in enumerate(zip(tokens, past, strict=True)):
            new[i, : len(row) - held] = torch.tensor(row[held:])
            first, end = self.span(i)
            attended[i, first:end] = 1
            # Learned positions end somewhere: padding must not ask for more than the row does.
            positions[i] = (held + torch.arange(width)).clamp(max=len(row) - 1)
        self.tokens, self.positions = new.to(device), positions.to(device)
        self.attended = attended.bool().to(device)

    def span(self, i: int) -> tuple[int, int]:
        """The columns of a row."""
        first = self._longest - self._past[i]
        return first, first + self._lengths[i]
