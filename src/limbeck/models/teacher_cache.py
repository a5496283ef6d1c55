"""What a teacher found in rows that come again: its final hidden states, computed once and kept.

A number of the teacher depends, in its last bits, on the rows that were read beside it. So that a run that is killed
and resumed uses the same bits as one that is not, a row is remembered with the group that it was read in: what is lost
is computed again in that group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limbeck.losses.views import HiddenView, TeacherView
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.models.state_stores import MemoryStore, StateStore
from limbeck.types import Sequences, pack_rows

LASTING = frozenset({"reference", "teacher"})
"""Origins of rows that come again in every epoch."""
PASSING = frozenset({"student", "revised", "mixed", "replayed"})
"""Origins of rows that come again only while their source holds them."""


@runtime_checkable
class TeacherReader(Protocol):
    """What gives a teacher's view of rows without being a model that runs each time."""

    def read(self, sequences: Sequences) -> TeacherView:
        """The teacher at the scored tokens of these rows, row after row."""
        ...


def row_name(tokens: Int[Tensor, " n"], is_response: Bool[Tensor, " n"]) -> bytes:
    """A digest of what a teacher's numbers at a row depend on: its tokens, without padding, and which are scored.

    >>> tokens, flags = torch.tensor([5, 6]), torch.tensor([False, True])
    >>> row_name(tokens, flags) == row_name(tokens.int(), flags), row_name(tokens, flags) == row_name(tokens, ~flags)
    (True, False)
    """
    digest = hashlib.blake2b(tokens.to("cpu", torch.int32).numpy().tobytes(), digest_size=16)
    digest.update(is_response.cpu().numpy().tobytes())
    return digest.digest()


def row_names(sequences: Sequences) -> list[bytes]:
    """The name of each row."""
    lengths = sequences.lengths.tolist()
    return [
        row_name(sequences.tokens[row, :length], sequences.is_response[row, :length])
        for row, length in enumerate(lengths)
    ]


@dataclass
class _Group:
    """Rows that the teacher read together; `kept` are the places of those whose states are kept."""

    tokens: list[Int[Tensor, " _"]]
    is_response: list[Bool[Tensor, " _"]]
    names: list[bytes]
    pad_id: int
    is_passing: bool
    kept: set[int] = field(default_factory=set)

    def sequences(self) -> Sequences:
        """The rows as they were read."""
        return pack_rows(
            [row.tolist() for row in self.tokens],
            [row.tolist() for row in self.is_response],
            origin=["kept"] * len(self.names),
            keys=[(place,) for place in range(len(self.names))],
            pad_id=self.pad_id,
        )


class TeacherCache:
    """A teacher whose final hidden states at the scored tokens are kept at the first use of a row.

    Kept are rows of the corpus and of a teacher's own writing (`LASTING`), and with `keeps_passing` the rows that a
    source gives again, until `keep_only` lets them go; as long as all together stay under `most_bytes`. Rows beyond
    that are computed at each use, and `note` says so once. The head product is never kept: D numbers a token, not V.

    Of every group that has a kept row, the tokens are remembered too, 5 bytes each: they are the `state` of a
    checkpoint. Hidden states are not in it; after `restore` they are in the store still, or are computed again in
    their group. A teacher that cannot be split into body and head is refused by whoever makes this.
    """

    def __init__(
        self,
        teacher: Scorer,
        *,
        store: StateStore,
        most_bytes: int,
        keeps_passing: bool = False,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._teacher = teacher
        self._lasting = store
        self._passing = MemoryStore()
        self._most_bytes = most_bytes
        self.keeps_passing = keeps_passing
        self._note = note
        self._groups: dict[int, _Group] = {}
        self._homes: dict[bytes, tuple[int, int]] = {}
        self._next = 0
        self._bytes = 0
        self._token_bytes = 0
        self._has_said = False
        self.rows_read = 0
        """Rows that the teacher itself has read so far."""

    def __len__(self) -> int:
        return len(self._homes)

    def read(self, sequences: Sequences) -> HiddenView:
        """The teacher's view of these rows; those that are not known yet are read together, in their order."""
        rows = sequences.to("cpu")
        names = row_names(rows)
        new = [place for place, name in enumerate(names) if name not in self._homes]
        found: dict[int, Tensor] = {}
        if new:
            group = rows.rows(new)
            found = dict(zip(new, self._forward(group), strict=True))
            self._admit(group, [names[place] for place in new], list(found.values()))
        parts = [found[place] if place in found else self._known(name) for place, name in enumerate(names)]
        hidden_ND = torch.cat([part.to(self._device) for part in parts])
        return HiddenView(hidden=hidden_ND, head=self._teacher.head.detached().in_dtype(hidden_ND.dtype))

    def keep_only(self, held: Iterable[tuple[Int[Tensor, " _"], Bool[Tensor, " _"]]]) -> None:
        """Forget the passing rows that are not among these: tokens and response flags of each."""
        if not any(group.is_passing for group in self._groups.values()):
            return
        names = {row_name(tokens, flags) for tokens, flags in held}
        for number, group in list(self._groups.items()):
            if group.is_passing:
                self._forget(number, [place for place in group.kept if group.names[place] not in names])

    def mark(self) -> int:
        """A point to which `back_to` returns."""
        return self._next

    def back_to(self, mark: int) -> None:
        """Forget the groups that were read since: the rows of a step that is to be taken again in other groups."""
        for number in sorted((number for number in self._groups if number >= mark), reverse=True):
            self._forget(number, sorted(self._groups[number].kept, reverse=True))
        self._next = mark

    def state(self) -> dict[str, Any]:
        """The groups, as plain values and CPU tensors."""
        groups = list(self._groups.values())
        tokens = [row for group in groups for row in group.tokens]
        flags = [row for group in groups for row in group.is_response]
        kept = [place in group.kept for group in groups for place in range(len(group.names))]
        return {
            "next": self._next,
            "bytes": self._bytes,
            "token_bytes": self._token_bytes,
            "groups": torch.tensor(list(self._groups), dtype=torch.long),
            "rows": torch.tensor([len(group.names) for group in groups], dtype=torch.int32),
            "pad_ids": torch.tensor([group.pad_id for group in groups], dtype=torch.int32),
            "is_passing": torch.tensor([group.is_passing for group in groups], dtype=torch.bool),
            "kept": torch.tensor(kept, dtype=torch.bool),
            "lengths": torch.tensor([len(row) for row in tokens], dtype=torch.int32),
            "tokens": torch.cat([torch.zeros(0, dtype=torch.int32), *tokens]),
            "is_response": torch.cat([torch.zeros(0, dtype=torch.bool), *flags]),
            "store": dict(self._lasting.state(self._names(is_passing=False))),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`; what the store has lost is computed again when it is asked for."""
        self._next, self._bytes = int(state["next"]), int(state["bytes"])
        self._token_bytes = int(state["token_bytes"])
        self._groups, self._homes = {}, {}
        lengths = state["lengths"].tolist()
        # Copies: a part of a split keeps the memory of the whole.
        tokens = iter([each.clone() for each in state["tokens"].split(lengths)] if lengths else [])
        flags = iter([each.clone() for each in state["is_response"].split(lengths)] if lengths else [])
        kept = iter(state["kept"].tolist())
        columns = (state[name].tolist() for name in ("groups", "rows", "pad_ids", "is_passing"))
        for number, rows, pad_id, is_passing in zip(*columns, strict=True):
            own = [(next(tokens), next(flags)) for _ in range(rows)]
            names = [row_name(*each) for each in own]
            group = _Group([each[0] for each in own], [each[1] for each in own], names, pad_id, is_passing)
            self._groups[number] = group
            for place, name in enumerate(names):
                if next(kept):
                    group.kept.add(place)
                    self._homes[name] = (number, place)
        self._lasting.restore(self._names(is_passing=False), state.get("store", {}))
        self._passing.restore([], {})

    def close(self) -> None:
        """Let go of everything that is kept."""
        self._lasting.close()
        self._passing.close()

    @property
    def _device(self) -> torch.device:
        return self._teacher.device

    def _forward(self, group: Sequences) -> list[Float[Tensor, "_ D"]]:
        """The states of each row of a group."""
        moved = group.to(self._device)
        view = self._teacher.view(moved, scored_tokens(moved))
        self.rows_read += len(group)
        return list(torch.split(view.hidden, group.scored.sum(dim=1).tolist()))

    def _known(self, name: bytes) -> Float[Tensor, "_ D"]:
        number, place = self._homes[name]
        group = self._groups[number]
        states = self._store(group).get(name)
        if states is not None:
            return states
        found = self._forward(group.sequences())
        for each in sorted(group.kept):
            self._store(group).put(group.names[each], found[each])
        return found[place]

    def _admit(self, group: Sequences, names: Sequence[bytes], states: Sequence[Tensor]) -> None:
        is_passing = not all(origin in LASTING for origin in group.origin)
        wanted = PASSING if is_passing and self.keeps_passing else frozenset() if is_passing else LASTING
        first = {name: place for place, name in reversed(list(enumerate(names)))}
        places = [place for name, place in first.items() if group.origin[place] in wanted]
        tokens = sum(len(states[place]) for place in places)
        if not tokens:
            return
        self._token_bytes = states[0].shape[1] * states[0].element_size()
        size = tokens * self._token_bytes
        if self._bytes + size > self._most_bytes:
            self._say_full()
            return
        lengths = group.lengths.tolist()
        padding = group.tokens[~group.attended]
        kept = _Group(
            tokens=[group.tokens[row, :length].int() for row, length in enumerate(lengths)],
            is_response=[group.is_response[row, :length].clone() for row, length in enumerate(lengths)],
            names=list(names),
            pad_id=int(padding[0]) if len(padding) else 0,
            is_passing=is_passing,
            kept=set(places),
        )
        number, self._next = self._next, self._next + 1
        self._groups[number] = kept
        self._bytes += size
        for place in sorted(places):
            self._homes[names[place]] = (number, place)
            self._store(kept).put(names[place], states[place])

    def _forget(self, number: int, places: Collection[int]) -> None:
        group = self._groups[number]
        scored = [int(flags[1:].sum()) for flags in group.is_response]
        for place in places:
            self._bytes -= scored[place] * self._token_bytes
            self._store(group).drop(group.names[place])
            del self._homes[group.names[place]]
            group.kept.discard(place)
        if not group.kept:
            del self._groups[number]

    def _store(self, group: _Group) -> StateStore:
        return self._passing if group.is_passing else self._lasting

    def _names(self, *, is_passing: bool) -> list[bytes]:
        return [
            group.names[place]
            for group in self._groups.values()
            if group.is_passing == is_passing
            for place in sorted(group.kept)
        ]

    def _say_full(self) -> None:
        if not self._has_said:
            self._has_said = True
            self._note(
                f"the teacher cache is full: {len(self._homes)} rows in {self._bytes / 1e9:.3g} GB (cache.max_gb); "
                "the teacher goes on reading the others at each use"
            )
