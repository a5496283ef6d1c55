"""The tensor records, and the legend of shape letters for the whole library.

`B` rows · `S` padded length · `N` scored response tokens, packed row after row · `V` vocabulary · `D` hidden width ·
`c` tokens of one chunk. Local names end in their letters: `gap_N`. Two tensors of one shape are never positional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    and never worked out from an id. `origin` says who wrote the response: reference, teacher, student, revised,
    or replayed, where it is an earlier response of the student.
    `keys` are the row keys that noise is drawn by. `limits` are the lengths in tokens that each row may be drawn to;
    None where nobody drew.
    """

    tokens: Int[Tensor, "B S"]
    attended: Bool[Tensor, "B S"]
    is_response: Bool[Tensor, "B S"]
    origin: tuple[str, ...]
    keys: tuple[RowKey, ...]
    experience: Experience | None = None
    limits: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        rows = self.tokens.shape[0]
        assert len(self.origin) == rows, "one origin a row"
        assert len(self.keys) == rows, "one key a row"
        assert self.limits is None or len(self.limits) == rows, "one limit a row"

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
            limits=None if self.limits is None else tuple(self.limits[i] for i in index),
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
            limits=self.limits,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What two models say about each scored token of drawn rows: what a detector judges by.

    Entry n is the token `drawn_token[n]` at `[row[n], position[n]]`; `teacher_token[n]` is what the teacher says in its
    place. Divergences and log-probabilities in nats at T = 1, over the vocabulary that both models share. `rank` counts
    the classes that are more probable than the drawn token for the teacher, `nucleus` is the teacher's mass on them.
    `eligible` entries may be corrected. `columns` holds what a detector names in `needs`.
    """

    row: Int[Tensor, " N"]
    position: Int[Tensor, " N"]
    drawn_token: Int[Tensor, " N"]
    teacher_token: Int[Tensor, " N"]
    kl_student_teacher: Float[Tensor, " N"]
    kl_teacher_student: Float[Tensor, " N"]
    drawn_student_logp: Float[Tensor, " N"]
    drawn_teacher_logp: Float[Tensor, " N"]
    teacher_token_student_logp: Float[Tensor, " N"]
    teacher_token_teacher_logp: Float[Tensor, " N"]
    rank: Int[Tensor, " N"]
    nucleus: Float[Tensor, " N"]
    eligible: Bool[Tensor, " N"]
    columns: Mapping[str, Float[Tensor, " N"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.row.shape[0]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Neighbouring scored tokens inside spans, ascending: pair p is of the packed tokens `first[p]` and the one after.

    `span_tokens`: how many tokens its span has. `row_spans`: how many spans its row has. `num_spans` and `num_rows`:
    spans with a pair, and rows with such a span, of the whole batch.
    """

    first: Int[Tensor, " P"]
    span_tokens: Int[Tensor, " P"]
    row_spans: Int[Tensor, " P"]
    num_spans: int
    num_rows: int

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on another device."""
        return Pairs(
            first=self.first.to(device),
            span_tokens=self.span_tokens.to(device),
            row_spans=self.row_spans.to(device),
            num_spans=self.num_spans,
            num_rows=self.num_rows,
        )


def pack_rows(
    rows: Sequence[Sequence[int]],
    is_response: Sequence[Sequence[bool]],
    *,
    origin: Sequence[str],
    keys: Sequence[RowKey],
    pad_id: int,
    limits: Sequence[int] | None = None,
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
    return Sequences(
        tokens=tokens,
        attended=attended,
        is_response=response,
        origin=tuple(origin),
        keys=tuple(keys),
        limits=None if limits is None else tuple(limits),
    )
