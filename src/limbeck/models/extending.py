"""The only sampling loop. A fresh draw extends a row from its prompt's end; re-generation from a forced token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limbeck.models.copies import PromptReader
from limbeck.models.decoders import Decoder, Sustaining
from limbeck.models.drawn_rows import DrawnRows, left_padded
from limbeck.models.prefixes import DrawState, Remembering, attended_after, shared_past
from limbeck.models.sampling import NgramBan, Sampling, draw
from limbeck.models.turns import Joining, Table, Turns, in_turn, seated_together, trimmed
from limbeck.seeds import RowNoise
from limbeck.types import Sequences


@dataclass(frozen=True, kw_only=True)
class Extension:
    """The rows after the draw. `behaviour_logp` is 0 where nothing was drawn; `stopped` rows end with a stop token.

    `state` is the one that was given, with the drawn rows in it.
    """

    sequences: Sequences
    behaviour_logp: Float[Tensor, "B S"]
    stopped: Bool[Tensor, " B"]
    state: DrawState | None = None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, restored afterwards: checkpointing would switch the key/value cache off."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def extend(
    decoder: Decoder,
    sequences: Sequences,
    *,
    start: Int[Tensor, " B"],
    limit: Int[Tensor, " B"],
    forced: Int[Tensor, " B"] | None = None,
    rows: Bool[Tensor, " B"],
    sampling: Sampling,
    noise: RowNoise,
    state: DrawState | None = None,
) -> Extension:
    """Draw on from position `start` of the chosen rows, until a stop token or until the row is `limit` tokens long.

    What a chosen row held from `start` on is let go; with `forced`, that token is put at `start` first (and ends the
    row if it is a stop token). Rows that are not chosen come back as they were. Every new token is a response token of
    origin "student". The uniform of a row's position t is `noise.at(row, t)`: batch, order and padding do not enter.

    Rows are packed without holes and left-padded, with positions given, so that rotary, learned and sliding-window
    models agree; finished rows leave the batch. Equal to `transformers.generate` greedy up to ties of the logits.

    With a `state`, rows are kept in it by their key when they leave the batch, and what it holds of a row's prefix is
    not computed again, where every layer is plain full attention and all rows that are read together have a part of it
    there. The weights must be those that it was made with. It changes no token but by rounding.
    """
    return extend_in_turn(
        decoder,
        sequences,
        seats=max(1, len(sequences)),
        start=start,
        limit=limit,
        forced=forced,
        rows=rows,
        sampling=sampling,
        noise=noise,
        state=state,
    )


@torch.no_grad()
def extend_in_turn(
    decoder: Decoder,
    sequences: Sequences,
    *,
    seats: int,
    start: Int[Tensor, " B"],
    limit: Int[Tensor, " B"],
    forced: Int[Tensor, " B"] | None = None,
    rows: Bool[Tensor, " B"],
    sampling: Sampling,
    noise: RowNoise,
    state: DrawState | None = None,
    copies: int = 1,
) -> Extension:
    """`extend` with at most `seats` rows decoded at a time: waiting rows take the seats of finished ones.

    Rows come in by `in_turn` and as `Turns` says, so that the shapes follow from these rows and their noise alone. The
    tokens are those of `extend` up to rounding. Where a decoder's caches cannot be put together (a layer keeps anything
    but plain keys and values of its past or of a sliding window), groups are decoded one after the other.

    With `copies`, the chosen rows are that many of each prompt, one after the other, each with noise of its own: the
    prompt is read once for those that come in together, and where it can be held for the others.
    """
    assert seats > 0, "somebody has to be decoded"
    chosen = [int(row) for row in rows.nonzero().squeeze(1)]
    prefixes = [sequences.tokens[row, : int(start[row])].tolist() for row in chosen]
    if forced is not None:
        prefixes = [[*prefix, int(forced[row])] for prefix, row in zip(prefixes, chosen, strict=True)]
    assert all(prefixes), "a row needs at least one token to draw on from"
    drawn = DrawnRows(chosen, prefixes, [int(limit[row]) for row in chosen], [sequences.keys[row] for row in chosen])
    if forced is not None:
        drawn.stop_where_forced(sampling.stop_ids)
    assert drawn.are_copies(copies), "copies of a prompt stand one after the other, with one limit"
    reader = PromptReader(decoder, copies=copies)
    loop = _Loop(
        decoder, drawn, sampling=sampling, noise=noise, device=sequences.tokens.device, state=state, reader=reader
    )
    with decoder.sustained() if isinstance(decoder, Sustaining) else nullcontext():
        _draw_rows(loop, seats=seats)
    return replace(_assemble(sequences, drawn, start=start), state=state)


class _Loop:
    """One draw: what it draws with, and one step of it for the rows of a table."""

    def __init__(
        self,
        decoder: Decoder,
        drawn: DrawnRows,
        *,
        sampling: Sampling,
        noise: RowNoise,
        device: torch.device,
        state: DrawState | None,
        reader: PromptReader,
    ) -> None:
        self.decoder = decoder
        self.drawn = drawn
        self.device = device
        self.reader = reader
        self._sampling = sampling
        self._noise = noise
        self._state = state
        self._banned = torch.tensor(sorted(sampling.banned_ids), dtype=torch.long, device=device)
        self._ban = NgramBan(sampling.no_repeat_ngram, drawn.prefixes) if sampling.no_repeat_ngram else None

    def begun(self, rows: list[int]) -> Table:
        """These rows with nothing drawn yet, and what the state holds of them."""
        cache, tokens, attended = _begun(self.decoder, self.drawn, rows, device=self.device, state=self._state)
        positions = (attended.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        return Table(rows, cache, tokens, attended, positions)

    def step(self, table: Table) -> Table:
        """One more token for each row; the rows that go on."""
        logp, cache = self.reader.next_logp(table)
        new, drawn = self._draw(table.rows, logp), self.drawn
        tokens, positions = new[:, None], table.positions[:, -1:] + 1
        attended = torch.cat([table.attended, table.attended.new_ones(len(new), 1)], dim=1)
        kept = [b for b, i in enumerate(table.rows) if drawn.is_going(i)]
        if self._state is not None and isinstance(self.decoder, Remembering):
            leaving = {b: i for b, i in enumerate(table.rows) if not drawn.is_going(i)}
            _remember(self.decoder, cache, drawn, leaving, state=self._state)
        if len(kept) == len(table.rows):
            return Table(table.rows, cache, tokens, attended, positions)
        index = torch.tensor(kept, dtype=torch.long, device=self.device)
        rest = Table([table.rows[b] for b in kept], cache, tokens[index], attended[index], positions[index])
        if kept:
            self.decoder.keep(cache, index)
            rest = trimmed(self.decoder, rest)
        return rest

    def _draw(self, rows: list[int], logp: Float[Tensor, "b V"]) -> Int[Tensor, " b"]:
        drawn, ban = self.drawn, self._ban
        logp[:, self._banned[self._banned < logp.shape[1]]] = -torch.inf
        if ban is not None:
            for b, i in enumerate(rows):
                logp[b, sorted(ban.banned(i))] = -torch.inf
        places = [len(drawn.prefixes[i]) + len(drawn.added[i]) for i in rows]
        uniforms = torch.from_numpy(self._noise.at([drawn.rows[i] for i in rows], places))
        new, new_logp = draw(logp, uniforms_b=uniforms, sampling=self._sampling)
        for i, token, value in zip(rows, new.tolist(), new_logp.tolist(), strict=True):
            drawn.added[i].append(token)
            drawn.logp[i].append(value)
            drawn.stopped[i] = token in self._sampling.stop_ids
            if ban is not None:
                ban.append(i, token)
        return new


def _draw_rows(loop: _Loop, *, seats: int) -> None:
    """Until no row is going: waiting rows are read and seated, and all that are seated draw one token more."""
    drawn, decoder = loop.drawn, loop.decoder
    going = [i for i in range(len(drawn.rows)) if drawn.is_going(i)]
    lengths = [len(prefix) for prefix in drawn.prefixes]
    waiting = in_turn(going, seats=seats, lengths=lengths, limits=drawn.limits)
    turns = Turns.of(decoder, rows=len(waiting), seats=seats)
    table = loop.begun([])
    while waiting or table.rows:
        while count := turns.entering(waiting=len(waiting), seated=len(table.rows)):
            count = loop.reader.together(waiting[:count], lengths) if turns.joins else count
            new, waiting = loop.begun(waiting[:count]), waiting[count:]
            new = new if new.is_read else loop.step(new)
            if table.rows and new.rows:
                assert isinstance(decoder, Joining), "no row comes in beside others where caches do not join"
                new = seated_together(decoder, [table, new])
            table = new if new.rows else table
        if table.rows:
            table = loop.step(table)


def _begun(
    decoder: Decoder, drawn: DrawnRows, going: list[int], *, device: torch.device, state: DrawState | None
) -> tuple[Any, Tensor, Tensor]:
    """The cache to start with, the tokens that are still to be read, and which columns of both hold tokens."""
    prefixes = [drawn.prefixes[i] for i in going]
    if state is not None and isinstance(decoder, Remembering):
        keys = [drawn.keys[i] for i in going]
        if past := shared_past(state, keys, prefixes):
            cache = decoder.give([state.first(key, length) for key, length in zip(keys, past, strict=True)])
            rest = [prefix[length:] for prefix, length in zip(prefixes, past, strict=True)]
            tokens = torch.tensor(rest, device=device)
            return cache, tokens, attended_after(past, new=tokens.shape[1], device=device)
    return decoder.start(), *left_padded(prefixes, device)


def _remember(decoder: Remembering, cache: Any, drawn: DrawnRows, leaving: dict[int, int], *, state: DrawState) -> None:
    """Keep the rows that leave the batch (its row b holds the drawn row i); the last token was never read."""
    for b, i in leaving.items():
        if state.is_full():
            return
        read = [*drawn.prefixes[i], *drawn.added[i]][:-1]
        state.put(drawn.keys[i], read, decoder.take(cache, b, length=len(read)))


def _assemble(sequences: Sequences, drawn: DrawnRows, *, start: Tensor) -> Extension:
    """Right-padded rows again: chosen ones with what was drawn, the others as they were."""
    lengths = sequences.lengths.tolist()
    for i, row in enumerate(drawn.rows):
        lengths[row] = len(drawn.prefixes[i]) + len(drawn.added[i])
    width = max([1, *lengths])
    device = sequences.tokens.device
    shape = (len(sequences), width)
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    attended = torch.zeros(shape, dtype=torch.bool, device=device)
    is_response = torch.zeros(shape, dtype=torch.bool, device=device)
    logp = torch.zeros(shape, device=device)
    stopped = torch.zeros(len(sequences), dtype=torch.bool, device=device)
    origin: list[str] = list(sequences.origin)
    copied = min(width, sequences.tokens.shape[1])
    tokens[:, :copied] = sequences.tokens[:, :copied]
    attended[:, :copied] = sequences.attended[:, :copied]
    is_response[:, :copied] = sequences.is_response[:, :copied]
    for i, row in enumerate(drawn.rows):
        first, end = int(start[row]), lengths[row]
        whole = torch.tensor(drawn.prefixes[i] + drawn.added[i], device=device)
        tokens[row, :end], tokens[row, end:] = whole, 0
        attended[row, :end], attended[row, end:] = True, False
        is_response[row, first:end], is_response[row, end:] = True, False
        logp[row, len(drawn.prefixes[i]) : end] = torch.tensor(drawn.logp[i], device=device)
        stopped[row] = drawn.stopped[i]
        origin[row] = "student"
    extended = Sequences(
        tokens=tokens,
        attended=attended,
        is_response=is_response,
        origin=tuple(origin),
        keys=sequences.keys,
        limits=sequences.limits,
    )
    return Extension(sequences=extended, behaviour_logp=logp, stopped=stopped)
