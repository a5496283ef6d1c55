"""The tensor records, and the legend of shape letters for the whole library.

`B` rows · `S` padded length · `N` scored response tokens, packed row after row · `V` vocabulary · `D` hidden width ·
`c` tokens of one chunk. Local names end in their letters: `gap_N`. Two tensors of one shape are never positional.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RowKey = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What a sampler knew when it drew a token, by packed response position: `behaviour_logp` in nats."""

    behaviour_logp: Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rows of tokens, right-padded, without holes: row b is `tokens[b, :length]` with `attended` true there.

    `is_response` marks the tokens that may be learned, end-of-turn included; it is carried from where the row was made
    and never worked out from an id. `origin` says who wrote the response: reference, teacher, student, revised.
    `keys` are the row keys that noise is drawn by.
    """

    tokens: Int[Tensor, "B S"]
    attended: Bool[Tensor, "B S"]
    is_response: Bool[Tensor, "B S"]
    origin: tuple[str, ...]
    keys: tuple[RowKey, ...]
    experience: Experience | None = None

    def __post_init__(self) -> None:
        rows = self.tokens.shape[0]
        assert len(self.origin) == rows, "one origin a row"
        assert len(self.keys) == rows, "one key a row"

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """Tokens of each row, padding not counted."""
        return self.attended.sum(dim=1)

    @property
    def prompt_lengths(self) -> Int[Tensor, " B"]:
        """Where the response that closes each row begins; the row's length where none closes it."""
        has_none = ~self.is_response.any(dim=1)
        later = self.is_response | ~self.attended
        run = later.flip(1).cumprod(dim=1).sum(dim=1)
        start = self.tokens.shape[1] - run
        return torch.where(has_none, self.lengths, start)

    @property
    def scored(self) -> Bool[Tensor, "B S"]:
        """The response tokens that a causal model predicts: those that have a token before them."""
        predicted = self.is_response.clone()
        predicted[:, 0] = False
        return predicted

    @property
    def num_scored(self) -> int:
        """How many tokens are scored."""
        return int(self.scored.sum())

    def rows(self, index: Sequence[int]) -> Sequences:
        """These rows in this order, cut to the longest of them. `experience` does not survive."""
        chosen = torch.as_tensor(list(index), dtype=torch.long, device=self.tokens.device)
        width = max(1, int(self.lengths[chosen].max())) if len(index) else 1
        return Sequences(
            tokens=self.tokens[chosen, :width],
            attended=self.attended[chosen, :width],
            is_response=self.is_response[chosen, :width],
            origin=tuple(self.origin[i] for i in index),
            keys=tuple(self.keys[i] for i in index),
        )

    def to(self, device: torch.device | str) -> Sequences:
        """The same rows on another device."""
        return Sequences(
            tokens=self.tokens.to(device),
            attended=self.attended.to(device),
            is_response=self.is_response.to(device),
            origin=self.origin,
            keys=self.keys,
            experience=self.experience,
        )


def pack_rows(
    rows: Sequence[Sequence[int]],
    is_response: Sequence[Sequence[bool]],
    *,
    origin: Sequence[str],
    keys: Sequence[RowKey],
    pad_id: int,
) -> Sequences:
    """Right-padded `Sequences` from lists of token ids.

    >>> flags = [[False, True, True], [False]]
    >>> batch = pack_rows([[5, 6, 7], [5]], flags, origin=["reference"] * 2, keys=[(0, 0), (0, 1)], pad_id=0)
    >>> batch.tokens.tolist(), batch.prompt_lengths.tolist(), batch.num_scored
    ([[5, 6, 7], [5, 0, 0]], [1, 1], 2)
    """
    width = max((len(row) for row in rows), default=1) or 1
    tokens = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attended = torch.zeros((len(rows), width), dtype=torch.bool)
    response = torch.zeros((len(rows), width), dtype=torch.bool)
    for b, (row, flags) in enumerate(zip(rows, is_response, strict=True)):
        assert len(row) == len(flags), "one flag a token"
        tokens[b, : len(row)] = torch.as_tensor(list(row), dtype=torch.long)
        attended[b, : len(row)] = True
        response[b, : len(row)] = torch.as_tensor(list(flags), dtype=torch.bool)
    return Sequences(tokens=tokens, attended=attended, is_response=response, origin=tuple(origin), keys=tuple(keys))
