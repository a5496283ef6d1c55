"""Several answers to each prompt: it is read once, and its copies go on apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.models.prefixes import Layers, Remembering
from limbeck.models.turns import Joining, Table, read_together

if TYPE_CHECKING:
    from limbeck.models.decoders import Decoder


@dataclass(frozen=True)
class _Held:
    """A prompt some of whose copies are still waiting: what the model keeps of it, and what it says comes next."""

    prompt: int
    layers: Layers
    logp: Float[Tensor, " V"]


class PromptReader:
    """The forwards of one draw, whose row i is a copy of prompt i // `copies`, and comes in after the copies before it.

    Of copies that come in together one is read. Where seats are left for some only, what was read is held for the
    others, if the decoder's rows can be taken out and put together; otherwise the prompt is read again for them.
    """

    def __init__(self, decoder: Decoder, *, copies: int) -> None:
        self._decoder = decoder
        self._copies = copies
        self._held: _Held | None = None

    def together(self, rows: Sequence[int], lengths: Sequence[int]) -> int:
        """How many of these rows are read in one forward; `lengths` are those of all rows."""
        prompts = [row // self._copies for row in rows]
        distinct = list(dict.fromkeys(prompts))
        read = set(distinct[: read_together([lengths[prompt * self._copies] for prompt in distinct])])
        return sum(prompt in read for prompt in prompts)

    def next_logp(self, table: Table) -> tuple[Float[Tensor, "b V"], Any]:
        """What comes next in each row, and the cache that holds the rows now."""
        is_begun = table.attended.shape[1] > table.tokens.shape[1]
        if self._copies == 1 or is_begun:
            logp = self._decoder.next_logp(
                table.tokens, attended=table.attended, positions=table.positions, cache=table.cache
            )
            return logp, table.cache
        prompts = [row // self._copies for row in table.rows]
        distinct = list(dict.fromkeys(prompts))
        logp_pV, cache = self._read(table, distinct, places=[prompts.index(prompt) for prompt in distinct])
        is_last_copy = table.rows[-1] % self._copies == self._copies - 1
        self._held = None if is_last_copy else self._taken(table, distinct, logp_pV, cache)
        each = torch.tensor([distinct.index(prompt) for prompt in prompts], device=table.tokens.device)
        self._decoder.keep(cache, each)
        return logp_pV[each], cache

    def _read(self, table: Table, prompts: list[int], *, places: list[int]) -> tuple[Float[Tensor, "p V"], Any]:
        """The prompts, of each of which a row stands at these places: what is held of the first, and one forward."""
        decoder, held = self._decoder, self._held
        found: list[tuple[Tensor, Any]] = []
        if held is not None and held.prompt == prompts[0] and isinstance(decoder, Remembering):
            found.append((held.logp[None], decoder.give([held.layers])))
        if left := places[len(found) :]:
            index = torch.tensor(left, device=table.tokens.device)
            logp = decoder.next_logp(
                table.tokens[index],
                attended=table.attended[index],
                positions=table.positions[index],
                cache=table.cache,
            )
            found.append((logp, table.cache))
        caches = [cache for _, cache in found]
        if len(caches) > 1:
            assert isinstance(decoder, Joining), "nothing is held otherwise"
            caches = [decoder.joined(caches, width=table.tokens.shape[1])]
        return torch.cat([logp for logp, _ in found]), caches[0]

    def _taken(self, table: Table, prompts: list[int], logp_pV: Float[Tensor, "p V"], cache: Any) -> _Held | None:
        decoder, length = self._decoder, int(table.attended[-1].sum())
        if not isinstance(decoder, Remembering) or not isinstance(decoder, Joining) or not decoder.joins(cache):
            return None
        layers = decoder.take(cache, len(prompts) - 1, length=length)
        return None if layers is None else _Held(prompts[-1], layers, logp_pV[-1].clone())
