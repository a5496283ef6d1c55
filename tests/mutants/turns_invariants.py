"""What rows that take turns must hold to, each as one check without arguments."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import Extension, extend, extend_in_turn
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import Sequences, pack_rows
from mutants.rig import PAD, exact_pair

# Some begin late and go on long, so that rows come in beside others that are shorter, and beside longer ones.
_PROMPTS = ([257, 72, 73], [257, 80], [257, *range(90, 112)], [257, 65, 66, 67, 68], [257, 70], [257, *range(40, 49)])
_NEW = (9, 2, 5, 12, 1, 7)


@cache
def _decoder() -> CausalDecoder:
    pair = exact_pair()
    return CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary))


def _drawn(seats: int | None) -> Extension:
    flags = [[False] * len(prompt) for prompt in _PROMPTS]
    keys = [(0, row) for row in range(len(_PROMPTS))]
    rows = pack_rows(list(_PROMPTS), flags, origin=["prompt"] * len(keys), keys=keys, pad_id=PAD)
    settings: dict[str, Any] = {
        "start": rows.lengths,
        "limit": rows.lengths + torch.tensor(_NEW),
        "rows": torch.ones(len(rows), dtype=torch.bool),
        "sampling": Sampling(),
        "noise": RowNoise([Seeds(0).child("draw", *key) for key in keys]),
    }
    return (
        extend(_decoder(), rows, **settings)
        if seats is None
        else extend_in_turn(_decoder(), rows, seats=seats, **settings)
    )


def _rows(sequences: Sequences) -> list[list[int]]:
    lengths = sequences.lengths.tolist()
    return [row[:length] for row, length in zip(sequences.tokens.tolist(), lengths, strict=True)]


def whoever_sits_beside_a_row_its_tokens_are_its_own() -> None:
    together = _drawn(None)
    for seats in (1, 2, 3):
        apart = _drawn(seats)
        assert _rows(apart.sequences) == _rows(together.sequences), seats
        torch.testing.assert_close(apart.behaviour_logp, together.behaviour_logp, rtol=0, atol=1e-6)


def an_answer_is_the_same_whoever_shares_its_prompt() -> None:
    prompts = [prompt for prompt in _PROMPTS for _ in range(3)]
    keys = [(0, row) for row in range(len(prompts))]
    flags = [[False] * len(prompt) for prompt in prompts]
    rows = pack_rows(prompts, flags, origin=["prompt"] * len(keys), keys=keys, pad_id=PAD)
    settings: dict[str, Any] = {
        "start": rows.lengths,
        "limit": rows.lengths + torch.tensor([new for new in _NEW for _ in range(3)]),
        "rows": torch.ones(len(rows), dtype=torch.bool),
        "sampling": Sampling(),
        "noise": RowNoise([Seeds(0).child("draw", *key) for key in keys]),
    }
    alone = extend(_decoder(), rows, **settings)
    for seats in (1, 2, 7, 18):
        shared = extend_in_turn(_decoder(), rows, seats=seats, copies=3, **settings)
        assert _rows(shared.sequences) == _rows(alone.sequences), seats
        torch.testing.assert_close(shared.behaviour_logp, alone.behaviour_logp, rtol=0, atol=1e-6)


CHECKS = (whoever_sits_beside_a_row_its_tokens_are_its_own, an_answer_is_the_same_whoever_shares_its_prompt)
