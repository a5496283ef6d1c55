"""The only sampling loop. A fresh draw extends a row from its prompt's end; re-generation from a forced token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limbeck.models.decoders import Decoder, Sustaining
from limbeck.models.prefixes import DrawState, Remembering, attended_after, shared_past
from limbeck.models.sampling import NgramBan, Sampling, draw
from limbeck.seeds import RowNoise
from limbeck.types import RowKey, Sequences


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


@torch.no_grad()
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
    not computed again, where every layer is plain full attention and all rows of the call have a part of it there. The
    weights must be those that it was made with. It changes no token but by rounding.
    """
    chosen = [int(row) for row in rows.nonzero().squeeze(1)]
    prefixes = [sequences.tokens[row, : int(start[row])].tolist() for row in chosen]
    if forced is not None:
        prefixes = [[*prefix, int(forced[row])] for prefix, row in zip(prefixes, chosen, strict=True)]
    assert all(prefixes), "a row needs at least one token to draw on from"
    drawn = _Drawn(chosen, prefixes, [int(limit[row]) for row in chosen], [sequences.keys[row] for row in chosen])
    if forced is not None:
        drawn.stop_where_forced(sampling.stop_ids)
    with decoder.sustained() if isinstance(decoder, Sustaining) else nullcontext():
        _draw_rows(decoder, drawn, sampling=sampling, noise=noise, device=sequences.tokens.device, state=state)
    return replace(_assemble(sequences, drawn, start=start), state=state)


class _Drawn:
    """The rows being drawn: their prefixes, what has been added, and which are still going."""

    def __init__(self, rows: list[int], prefixes: list[list[int]], limits: list[int], keys: list[RowKey]) -> None:
        self.rows = rows
        self.keys = keys
        self.prefixes = prefixes
        self.limits = limits
        self.added: list[list[int]] = [[] for _ in rows]
        self.logp: list[list[float]] = [[] for _ in rows]
        self.stopped = [False] * len(rows)

    def going(self) -> list[int]:
        return [
            i
            for i in range(len(self.rows))
            if not self.stopped[i] and len(self.prefixes[i]) + len(self.added[i]) < self.limits[i]
        ]

    def stop_where_forced(self, stop_ids: frozenset[int]) -> None:
        for i, prefix in enumerate(self.prefixes):
            self.stopped[i] = prefix[-1] in stop_ids


def _draw_rows(
    decoder: Decoder,
    drawn: _Drawn,
    *,
    sampling: Sampling,
    noise: RowNoise,
    device: torch.device,
    state: DrawState | None,
) -> None:
    going, ban = drawn.going(), None
    cache, tokens, attended = _begun(decoder, drawn, going, device=device, state=state)
    positions = (attended.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    banned_ids = torch.tensor(sorted(sampling.banned_ids), dtype=torch.long, device=device)
    if sampling.no_repeat_ngram:
        ban = NgramBan(sampling.no_repeat_ngram, drawn.prefixes)
    while going:
        logp = decoder.next_logp(tokens, attended=attended, positions=positions, cache=cache)
        logp[:, banned_ids[banned_ids < logp.shape[1]]] = -torch.inf
        if ban is not None:
            for b, i in enumerate(going):
                logp[b, sorted(ban.banned(i))] = -torch.inf
        places = [len(drawn.prefixes[i]) + len(drawn.added[i]) for i in going]
        uniforms = torch.from_numpy(noise.at([drawn.rows[i] for i in going], places))
        new, new_logp = draw(logp, uniforms_b=uniforms, sampling=sampling)
        for i, token, value in zip(going, new.tolist(), new_logp.tolist(), strict=True):
            drawn.added[i].append(token)
            drawn.logp[i].append(value)
            drawn.stopped[i] = token in sampling.stop_ids
            if ban is not None:
                ban.append(i, token)
        still = set(drawn.going())
        kept = [b for b, i in enumerate(going) if i in still]
        if state is not None and isinstance(decoder, Remembering):
            _remember(decoder, cache, drawn, {b: i for b, i in enumerate(going) if i not in still}, state=state)
        tokens, positions = new[:, None], positions[:, -1:] + 1
        attended = torch.cat([attended, attended.new_ones(len(going), 1)], dim=1)
        if len(kept) < len(going):
            index = torch.tensor(kept, dtype=torch.long, device=device)
            going = [going[b] for b in kept]
            tokens, positions, attended = tokens[index], positions[index], attended[index]
            if going:
                decoder.keep(cache, index)


def _begun(
    decoder: Decoder, drawn: _Drawn, going: list[int], *, device: torch.device, state: DrawState | None
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
    return decoder.start(), *_left_padded(prefixes, device)


def _remember(decoder: Remembering, cache: Any, drawn: _Drawn, leaving: dict[int, int], *, state: DrawState) -> None:
    """Keep the rows that leave the batch (its row b holds the drawn row i); the last token was never read."""
    for b, i in leaving.items():
        if state.is_full():
            return
        read = [*drawn.prefixes[i], *drawn.added[i]][:-1]
        state.put(drawn.keys[i], read, decoder.take(cache, b, length=len(read)))


def _left_padded(prefixes: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max((len(prefix) for prefix in prefixes), default=1)
    tokens = torch.zeros((len(prefixes), width), dtype=torch.long)
    attended = torch.zeros((len(prefixes), width), dtype=torch.bool)
    for row, prefix in enumerate(prefixes):
        tokens[row, width - len(prefix) :] = torch.tensor(prefix)
        attended[row, width - len(prefix) :] = True
    return tokens.to(device), attended.to(device)


def _assemble(sequences: Sequences, drawn: _Drawn, *, start: Tensor) -> Extension:
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
