"""The tensor records, and the legend of shape letters for the whole library.

`B` rows · `S` padded length · `N` scored response tokens, packed row after row · `V` vocabulary · `D` hidden width ·
`c` tokens of one chunk. Local names end in their letters: `gap_N`. Two tensors of one shape are never positional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RowKey = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What was known of each scored token when it was drawn, packed as `scored` packs them; log-probabilities in nats.

    `behaviour_logp` is of the distribution that the token was drawn from; `student_logp` and `teacher_logp` are what
    both models, as they were then, give it at T = 1. `advantage` is how much better than the others what followed was.
    A column is None where nobody asked for it.

    >>> drawn = Experience(behaviour_logp=torch.tensor([-1.0, -2.0, -3.0]))
    >>> drawn.take(torch.tensor([2, 0])).behaviour_logp.tolist()
    [-3.0, -1.0]
    """

    behaviour_logp: Float[Tensor, " N"]
    student_logp: Float[Tensor, " N"] | None = None
    teacher_logp: Float[Tensor, " N"] | None = None
    advantage: Float[Tensor, " N"] | None = None

    def __len__(self) -> int:
        return self.behaviour_logp.shape[0]

    def columns(self) -> dict[str, Tensor]:
        """The columns that are there, by name; `Experience(**columns)` is the inverse."""
        return {name: column for name, column in vars(self).items() if column is not None}

    def take(self, entries: Int[Tensor, " n"] | slice) -> Experience:
        """These entries, in this order."""
        return Experience(**{name: column[entries] for name, column in self.columns().items()})

    def to(self, device: torch.device | str) -> Experience:
        """The same columns on another device."""
        return Experience(**{name: column.to(device) for name, column in self.columns().items()})


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rows of tokens, right-padded, without holes: row b is `tokens[b, :length]` with `attended` true there.

    `is_response` marks the tokens that may be learned, end-of-turn included; it is carried from where the row was made
    and never worked out from an id. `origin` says who wrote the response: reference, teacher, student, revised,
    or replayed, where it is an earlier response of the student.
    `keys` are the row keys that noise is drawn by. `limits` are the lengths in tokens that each row may be drawn to;
    None where nobody drew. `experience` has an entry for each token of `scored`, row after row.
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
        assert self.experience is None or len(self.experience) == self.num_scored, "one entry a scored token"

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
        """These rows in this order with their experience, cut to the longest of them."""
        chosen = torch.as_tensor(list(index), dtype=torch.long, device=self.tokens.device)
        width = max(1, int(self.lengths[chosen].max())) if len(index) else 1
        experience = self.experience
        return Sequences(
            tokens=self.tokens[chosen, :width],
            attended=self.attended[chosen, :width],
            is_response=self.is_response[chosen, :width],
            origin=tuple(self.origin[i] for i in index),
            keys=tuple(self.keys[i] for i in index),
            experience=None if experience is None else experience.take(self._entries(index)),
            limits=None if self.limits is None else tuple(self.limits[i] for i in index),
        )

    def _entries(self, index: Sequence[int]) -> Int[Tensor, " n"]:
        """Where the scored tokens of these rows stand among all, row after row."""
        counts = self.scored.sum(dim=1)
        ends = counts.cumsum(dim=0)
        places = [torch.arange(int(ends[i] - counts[i]), int(ends[i])) for i in index]
        return torch.cat([torch.empty(0, dtype=torch.long), *places]).to(self.tokens.device)

    def to(self, device: torch.device | str) -> Sequences:
        """The same rows on another device."""
        return Sequences(
            tokens=self.tokens.to(device),
            attended=self.attended.to(device),
            is_response=self.is_response.to(device),
            origin=self.origin,
            keys=self.keys,
            experience=None if self.experience is None else self.experience.to(device),
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


def joined(parts: Sequence[Sequences], *, pad_id: int) -> Sequences:
    """The rows of several records in one, part after part; columns and limits where every part has them.

    >>> one = pack_rows([[5, 6]], [[False, True]], origin=["student"], keys=[(0, 0)], pad_id=0)
    >>> two = pack_rows([[7, 8, 9]], [[False, True, True]], origin=["student"], keys=[(0, 1)], pad_id=0)
    >>> both = joined([one, two], pad_id=0)
    >>> both.tokens.tolist(), both.keys
    ([[5, 6, 0], [7, 8, 9]], ((0, 0), (0, 1)))
    """
    whole = pack_rows(
        [row.tolist() for part in parts for row in _cut(part.tokens, part)],
        [row.tolist() for part in parts for row in _cut(part.is_response, part)],
        origin=[origin for part in parts for origin in part.origin],
        keys=[key for part in parts for key in part.keys],
        pad_id=pad_id,
    )
    limits = [limit for part in parts for limit in part.limits or ()]
    columns = [part.experience.columns() for part in parts if part.experience is not None]
    has_all = bool(columns) and len(columns) == len(parts)
    shared = [name for name in columns[0] if all(name in each for each in columns)] if has_all else []
    experience = {name: torch.cat([each[name].cpu() for each in columns]) for name in shared}
    return replace(
        whole,
        experience=Experience(**experience) if experience else None,
        limits=tuple(limits) if parts and len(limits) == len(whole) else None,
    )


def _cut(padded: Tensor, rows: Sequences) -> list[Tensor]:
    return [row[:length] for row, length in zip(padded, rows.lengths.tolist(), strict=True)]
