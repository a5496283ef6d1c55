"""Kept prefixes: the same tokens, fewer of them read again, and nothing reused where it would not be right."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import Extension, evaluating, extend
from limbeck.models.prefixes import DrawState, attended_after, given, shared_past, taken
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ARCHITECTURES, tiny_pair
from limbeck.types import Sequences, pack_rows

PROMPTS = [[257, 72, 73, 74], [257, 80], [257, *range(90, 104)]]
PLAIN = [name for name in ARCHITECTURES if "gemma" not in name]


class _Counting(CausalDecoder):
    """Counts the columns that each forward reads."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.read: list[int] = []

    def next_logp(self, tokens: Any, **rest: Any) -> Any:
        self.read.append(tokens.shape[1])
        return super().next_logp(tokens, **rest)


def _decoder(pair: Any) -> _Counting:
    return _Counting(Scorer.of(pair.student, vocabulary=pair.vocabulary))


def _noise(purpose: str, count: int) -> RowNoise:
    return RowNoise([Seeds(0).child(purpose, row) for row in range(count)])


def _prompts() -> Sequences:
    keys = [(0, row) for row in range(len(PROMPTS))]
    flags = [[False] * len(prompt) for prompt in PROMPTS]
    return pack_rows(PROMPTS, flags, origin=["prompt"] * len(PROMPTS), keys=keys, pad_id=256)


def _drawn(pair: Any, decoder: _Counting, state: DrawState | None, *, new: int = 12) -> Extension:
    prompts = _prompts()
    return extend(
        decoder,
        prompts,
        start=prompts.lengths,
        limit=prompts.lengths + torch.tensor([new, new + 3, new - 2]),
        rows=torch.ones(len(PROMPTS), dtype=torch.bool),
        sampling=Sampling(),
        noise=_noise("draw", len(PROMPTS)),
        state=state,
    )


def _redrawn(
    pair: Any, decoder: _Counting, first: Extension, state: DrawState | None, *, stops: bool = True, **options: Any
) -> Extension:
    """Forced on at three different places of the responses."""
    begins = torch.tensor([len(prompt) for prompt in PROMPTS])
    return extend(
        decoder,
        first.sequences,
        start=options.pop("start", begins + torch.tensor([0, 2, 4])),
        limit=begins + 16,
        forced=torch.tensor([99, 98, 97]),
        rows=options.pop("rows", torch.ones(len(PROMPTS), dtype=torch.bool)),
        sampling=Sampling(stop_ids=pair.stop_ids if stops else frozenset()),
        noise=_noise("redraw", len(PROMPTS)),
        state=state,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kept_prefix_changes_no_token(architecture: str) -> None:
    pair = tiny_pair(architecture)
    with evaluating(pair.student):
        first = _drawn(pair, _decoder(pair), None)
        expected = _redrawn(pair, _decoder(pair), first, None)
        decoder, state = _decoder(pair), DrawState()
        kept = _drawn(pair, decoder, state)
        assert kept.state is state
        assert torch.equal(kept.sequences.tokens, first.sequences.tokens)
        decoder.read.clear()
        again = _redrawn(pair, decoder, kept, state)
    assert torch.equal(again.sequences.tokens, expected.sequences.tokens)
    assert torch.allclose(again.behaviour_logp, expected.behaviour_logp, atol=1e-4)
    longest = max(len(prompt) + place + 1 for prompt, place in zip(PROMPTS, (0, 2, 4), strict=True))
    assert decoder.read[0] == (1 if architecture in PLAIN else longest)


def test_what_was_redrawn_is_kept_in_place_of_what_was_drawn() -> None:
    pair = tiny_pair()
    with evaluating(pair.student):
        decoder, state = _decoder(pair), DrawState()
        second = _redrawn(pair, decoder, _drawn(pair, decoder, state), state, stops=False)
        decoder.read.clear()
        start = torch.tensor([len(prompt) + 7 for prompt in PROMPTS])
        third = _redrawn(pair, decoder, second, state, start=start)
        assert decoder.read[0] == 1
        plain = _redrawn(pair, _decoder(pair), second, None, start=start)
    assert torch.equal(third.sequences.tokens, plain.sequences.tokens)


def test_a_row_that_was_not_kept_makes_all_be_read_again() -> None:
    pair = tiny_pair()
    with evaluating(pair.student):
        decoder, state = _decoder(pair), DrawState()
        first = _drawn(pair, decoder, state)
        state.put((0, 1), [257], None)
        expected = _redrawn(pair, _decoder(pair), first, None)
        decoder.read.clear()
        assert torch.equal(_redrawn(pair, decoder, first, state).sequences.tokens, expected.sequences.tokens)
        assert decoder.read[0] == len(PROMPTS[2]) + 5
        decoder.read.clear()
        _redrawn(pair, decoder, first, state, rows=torch.tensor([True, False, True]))
        assert decoder.read[0] == 1


def test_only_so_much_is_kept() -> None:
    pair = tiny_pair()
    with evaluating(pair.student):
        decoder = _decoder(pair)
        whole, none = DrawState(), DrawState(most_bytes=0)
        first = _drawn(pair, decoder, whole)
        _drawn(pair, decoder, none)
        row = [257, 80, *first.sequences.tokens[1, 2:].tolist()]
        some = DrawState(most_bytes=1_000)
        tensor = torch.zeros(1, 2, 64)
        for key in range(3):
            some.put((key,), [1, 2, 3], ((tensor, tensor[:, :, :32]),))
    assert whole.length((0, 1), row) > 2
    assert none.length((0, 1), row) == 0
    assert [some.length((key,), [1, 2, 3, 4]) for key in range(3)] == [3, 0, 0]
    assert some.is_full()
    assert not whole.is_full()


def test_rows_are_taken_out_and_put_together_as_they_were() -> None:
    pair = tiny_pair()
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    decoder = CausalDecoder(scorer)
    rows = [[257, 65, 66, 67], [257, 70]]
    caches = []
    with evaluating(pair.student):
        for row in rows:
            cache, one = decoder.start(), torch.tensor([row])
            decoder.next_logp(one, attended=one >= 0, positions=torch.arange(len(row))[None], cache=cache)
            caches.append(taken(cache, 0, length=len(row)))
        assert caches[0] is not None
        assert caches[1] is not None
        together = given([caches[0], caches[1]], config=pair.student.config)
        for place, (row, layers) in enumerate(zip(rows, caches, strict=True)):
            assert layers is not None
            found = taken(together, place, length=len(row))
            assert found is not None
            for (keys, values), (kept_keys, kept_values) in zip(layers, found, strict=True):
                assert torch.equal(keys, kept_keys)
                assert torch.equal(values, kept_values)


def test_all_rows_have_equally_much_left_to_read() -> None:
    state = DrawState()
    for key, held in enumerate([4, 6, 2]):
        state.put((key,), list(range(held)), ())
    prefixes = [list(range(5)), list(range(9)), list(range(5))]
    assert shared_past(state, [(0,), (1,)], prefixes[:2]) == [2, 6]
    assert shared_past(state, [(0,), (1,), (2,)], prefixes) == [2, 6, 2]
    assert shared_past(state, [(0,), (1,)], [[0, 1], list(range(9))]) == []
    assert shared_past(state, [], []) == []
    assert attended_after([2, 0], new=1, device=torch.device("cpu")).tolist() == [[True] * 3, [False, False, True]]
