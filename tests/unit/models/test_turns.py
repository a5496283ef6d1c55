"""Waiting rows in the seats of finished ones: the same tokens in fewer forwards, and no column that nobody needs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.models.decoders import CausalDecoder, Decoder, MixedDecoder, TeacherDecoder
from limbeck.models.extending import Extension, evaluating, extend, extend_in_turn
from limbeck.models.prefixes import DrawState
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.models.turns import Joining, Turns, in_turn
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ARCHITECTURES, ScriptedModel, random_script, tiny_pair
from limbeck.types import Sequences, pack_rows

STOP = 3
PROMPTS = [[257, 72, 73], [257, 80], [257, *range(90, 112)], [257, 65, 66, 67, 68], [257, 70], [257, *range(40, 49)]]


class _Counting(CausalDecoder):
    """Remembers the shape of each forward: rows, new columns, all columns, and the tokens among these."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.shapes: list[tuple[int, int, int, int]] = []

    def next_logp(self, tokens: Any, *, attended: Any, **rest: Any) -> Any:
        self.shapes.append((*tokens.shape, attended.shape[1], int(attended.sum(dim=1).max())))
        return super().next_logp(tokens, attended=attended, **rest)


class _Apart:
    """A decoder whose caches cannot be put together."""

    def __init__(self, decoder: Decoder) -> None:
        self.start, self.next_logp, self.keep = decoder.start, decoder.next_logp, decoder.keep


def _decoder(pair: Any) -> _Counting:
    return _Counting(Scorer.of(pair.student, vocabulary=pair.vocabulary))


def _pack(prompts: list[list[int]], keys: list[int] | None = None) -> Sequences:
    flags = [[False] * len(prompt) for prompt in prompts]
    named = [(0, row) for row in keys or range(len(prompts))]
    return pack_rows(prompts, flags, origin=["prompt"] * len(prompts), keys=named, pad_id=0)


def _draw(decoder: Decoder, sequences: Sequences, *, seats: int | None, new: Any = 12, **options: Any) -> Extension:
    given_options: dict[str, Any] = {
        "start": sequences.lengths,
        "limit": sequences.lengths + torch.as_tensor(new),
        "rows": torch.ones(len(sequences), dtype=torch.bool),
        "sampling": Sampling(),
        "noise": RowNoise([Seeds(0).child("draw", *key) for key in sequences.keys]),
        **options,
    }
    if seats is None:
        return extend(decoder, sequences, **given_options)
    return extend_in_turn(decoder, sequences, seats=seats, **given_options)


def _rows(extension: Extension) -> list[list[int]]:
    lengths = extension.sequences.lengths.tolist()
    return [row[:length] for row, length in zip(extension.sequences.tokens.tolist(), lengths, strict=True)]


def _forwards(lengths: list[int], *, begun: list[int], seats: int, order: list[int]) -> int:
    """The number of forwards by hand: rows that are `begun` tokens long and draw `lengths` tokens each."""
    waiting, seated, count = [row for row in order if lengths[row]], list[int](), 0
    while waiting or seated:
        free = seats - len(seated)
        while waiting and (not seated or free >= min(len(waiting), max(1, seats // 8))):
            size = min(16, free, len(waiting))
            while size < min(free, len(waiting)) and _padding([begun[row] for row in waiting[: size + 1]]) <= 1 / 8:
                size += 1
            new, waiting = waiting[:size], waiting[size:]
            seated, count = seated + [lengths[row] - 1 for row in new if lengths[row] > 1], count + 1
            free = seats - len(seated)
        if seated:
            seated, count = [left - 1 for left in seated if left > 1], count + 1
    return count


def _padding(lengths: list[int]) -> float:
    """The share of columns that hold nothing."""
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.one_of(
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=9),
        # More than are read in one forward.
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=17, max_size=40),
    ),
    limits=st.lists(st.integers(0, 9), min_size=40, max_size=40),
    seats=st.one_of(st.integers(1, 10), st.integers(15, 40)),
    seed=st.integers(0, 5),
    is_forced=st.booleans(),
)
def test_turns_change_no_token_and_no_work_but_the_number_of_forwards(
    prompts: list[list[int]], limits: list[int], seats: int, seed: int, is_forced: bool
) -> None:
    script = random_script(seed, vocab_size=4)
    options: dict[str, Any] = {"sampling": Sampling(stop_ids=frozenset({STOP})), "new": limits[: len(prompts)]}
    if is_forced:
        options["forced"] = torch.tensor([(place * 3) % 4 for place in range(len(prompts))])
    whole, turning = (ScriptedModel(script, vocab_size=4) for _ in range(2))
    expected = _draw(whole, _pack(prompts), seats=None, **options)
    found = _draw(turning, _pack(prompts), seats=seats, **options)
    assert _rows(found) == _rows(expected)
    assert torch.equal(found.behaviour_logp, expected.behaviour_logp)
    assert found.stopped.tolist() == expected.stopped.tolist()
    assert turning.row_steps == whole.row_steps
    begun = [len(prompt) + is_forced for prompt in prompts]
    drawn = [len(row) - first for row, first in zip(_rows(found), begun, strict=True)]
    ends = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=False)]
    going = [row for row, count in enumerate(drawn) if count]
    order = in_turn(going, seats=seats, lengths=begun, limits=ends)
    assert turning.forwards == _forwards(drawn, begun=begun, seats=seats, order=order)


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12),
    limits=st.lists(st.integers(0, 9), min_size=12, max_size=12),
    seats=st.integers(1, 30),
    copies=st.integers(1, 5),
    seed=st.integers(0, 5),
)
def test_copies_of_a_prompt_are_drawn_as_alone_and_the_prompt_is_read_once(
    prompts: list[list[int]], limits: list[int], seats: int, copies: int, seed: int
) -> None:
    script = random_script(seed, vocab_size=4)
    rows = _pack([prompt for prompt in prompts for _ in range(copies)])
    new = [limit for limit in limits[: len(prompts)] for _ in range(copies)]
    options: dict[str, Any] = {"sampling": Sampling(stop_ids=frozenset({STOP})), "new": new}
    apart, sharing = (ScriptedModel(script, vocab_size=4) for _ in range(2))
    expected = _draw(apart, rows, seats=seats, **options)
    found = _draw(sharing, rows, seats=seats, copies=copies, **options)
    assert _rows(found) == _rows(expected)
    assert torch.equal(found.behaviour_logp, expected.behaviour_logp)
    assert found.stopped.tolist() == expected.stopped.tolist()
    drawn_prompts = sum(limit > 0 for limit in limits[: len(prompts)])
    saved = apart.row_steps - sharing.row_steps
    assert 0 <= saved <= (copies - 1) * drawn_prompts
    if seats >= len(rows):
        assert saved == (copies - 1) * drawn_prompts
    assert sharing.forwards <= apart.forwards


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3"])
def test_copies_share_what_a_model_keeps_of_their_prompt_and_go_on_apart(architecture: str) -> None:
    pair = tiny_pair(architecture)
    rows = _pack([prompt for prompt in PROMPTS for _ in range(3)])
    sampling = Sampling(stop_ids=pair.stop_ids, no_repeat_ngram=2)
    decoder = _decoder(pair)
    with evaluating(pair.student):
        expected = _draw(_decoder(pair), rows, seats=None, sampling=sampling)
        found = _draw(decoder, rows, seats=7, copies=3, sampling=sampling)
        alone = _draw(_decoder(pair), rows, seats=2, copies=3, sampling=sampling)
    assert _rows(found) == _rows(alone) == _rows(expected)
    assert len({tuple(row) for row in _rows(found)}) > len(PROMPTS)
    assert torch.allclose(found.behaviour_logp, expected.behaviour_logp, atol=1e-4)
    # One row of each prompt is read, although seven seats are no multiple of three; a window keeps no whole prompt.
    read = sum(rows for rows, new, *_ in decoder.shapes if new > 1)
    assert read == len(PROMPTS) if architecture != "gemma3" else len(PROMPTS) < read < 3 * len(PROMPTS)
    assert max(rows for rows, *_ in decoder.shapes) == 7


def test_rows_that_are_no_copies_are_not_taken_for_copies() -> None:
    model = ScriptedModel(random_script(0, vocab_size=4), vocab_size=4)
    for prompts, new in (([[0], [1]], [4, 4]), ([[0], [0]], [4, 5]), ([[0], [0], [0]], [4, 4, 4])):
        with pytest.raises(AssertionError, match="copies of a prompt stand one after the other"):
            _draw(model, _pack(prompts), seats=4, copies=2, new=new)


def test_rows_of_unlike_length_are_read_apart_and_drawn_together() -> None:
    """Forty rows with a seat each: the short ones are not padded to the long ones, and then all draw in one forward."""
    pair = tiny_pair()
    decoder = _decoder(pair)
    prompts = [list(range(65, 65 + length)) for length in [3, 30] * 20]
    drawn = _draw(decoder, _pack(prompts), seats=None, sampling=Sampling(), new=[4] * 40)
    assert [len(row) for row in _rows(drawn)] == [7, 34] * 20
    # With three rows of 3 tokens 81 of 690 columns are padding, with a fourth 108 of 720, which is over an eighth.
    assert [shape[:2] for shape in decoder.shapes] == [(23, 30), (17, 3), *[(40, 1)] * 3]


def test_a_ragged_unit_takes_fewer_forwards_than_its_groups() -> None:
    """Eight rows that stop after 1 to 40 tokens, on two seats: groups wait for their longest row, turns do not."""
    lengths, word, stop = [40, 2, 3, 30, 1, 5, 4, 6], 8, 9

    def script(prefix: tuple[int, ...]) -> list[float]:
        said = stop if len(prefix) == lengths[prefix[0]] else word
        return [float(token == said) for token in range(10)]

    turning, apart = ScriptedModel(script, vocab_size=10), ScriptedModel(script, vocab_size=10)
    sampling = Sampling(stop_ids=frozenset({stop}))
    for decoder in (turning, _Apart(apart)):
        _draw(decoder, _pack([[row] for row in range(8)]), seats=2, new=40, sampling=sampling)
    assert turning.row_steps == apart.row_steps == sum(lengths)
    assert apart.forwards == 40 + 30 + 5 + 6
    # 45 in which those who are seated draw, and one in which each of six rows is read before it sits down.
    assert turning.forwards == 45 + 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_in_turn_equals_generate_row_by_row(architecture: str) -> None:
    pair = tiny_pair(architecture)
    sampling = Sampling(temperature=0.0, stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student))
    new = [25, 3, 20, 9, 22, 14]
    decoder = _decoder(pair)
    found = _rows(_draw(decoder, _pack(PROMPTS), seats=2, new=new, sampling=sampling))
    for row, (prompt, count) in enumerate(zip(PROMPTS, new, strict=True)):
        expected = pair.student.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=sorted(pair.stop_ids),
            pad_token_id=256,
            suppress_tokens=sorted(sampling.banned_ids),
        )[0].tolist()
        assert found[row] == expected
    assert max(rows for rows, *_ in decoder.shapes) == 2
    # Not more columns than the longest row of the forward has, but for an eighth that is not worth a copy.
    assert all(columns <= tokens + columns // 8 for _, _, columns, tokens in decoder.shapes)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3"])
def test_drawn_tokens_are_those_of_one_batch_and_of_groups(architecture: str) -> None:
    pair = tiny_pair(architecture)
    options: dict[str, Any] = {
        "sampling": Sampling(stop_ids=pair.stop_ids, no_repeat_ngram=2, top_k=40),
        "rows": torch.tensor([True, True, False, True, True, True]),
    }
    with evaluating(pair.student):
        whole = _draw(_decoder(pair), _pack(PROMPTS), seats=None, **options)
        turning = _draw(_decoder(pair), _pack(PROMPTS), seats=2, **options)
        apart = _draw(_Apart(_decoder(pair)), _pack(PROMPTS), seats=2, **options)
    assert _rows(turning) == _rows(whole) == _rows(apart)
    assert _rows(turning)[2] == PROMPTS[2]
    assert torch.allclose(turning.behaviour_logp, whole.behaviour_logp, atol=1e-4)


def test_a_teachers_share_is_drawn_in_turn_too() -> None:
    pair = tiny_pair("llama", teacher_architecture="gemma3")
    teacher = TeacherDecoder(Scorer.of(pair.teacher, vocabulary=pair.vocabulary))
    decoder = MixedDecoder(_decoder(pair), teacher, share=0.3)
    sampling = Sampling(stop_ids=pair.stop_ids)
    whole = _draw(decoder, _pack(PROMPTS), seats=None, sampling=sampling)
    turning = _draw(decoder, _pack(PROMPTS), seats=3, sampling=sampling)
    assert _rows(turning) == _rows(whole)
    scripted = ScriptedModel(random_script(0, vocab_size=4), vocab_size=4)
    assert MixedDecoder(scripted, scripted, share=0.5).joins(([], []))
    assert not MixedDecoder(scripted, _Apart(scripted), share=0.5).joins(([], []))


def test_a_redraw_reads_one_token_of_each_kept_prefix() -> None:
    pair = tiny_pair()
    decoder, state = _decoder(pair), DrawState()
    sampling = Sampling(banned_ids=pair.stop_ids)
    with evaluating(pair.student):
        first = _draw(decoder, _pack(PROMPTS), seats=2, sampling=sampling, state=state)
        begins = torch.tensor([len(prompt) for prompt in PROMPTS])
        options: dict[str, Any] = {
            "start": begins + torch.tensor([0, 2, 4, 1, 7, 3]),
            "limit": begins + 12,
            "forced": torch.tensor([99, 98, 97, 96, 95, 94]),
            "noise": RowNoise([Seeds(0).child("redraw", row) for row in range(6)]),
            "sampling": sampling,
        }
        expected = _draw(_decoder(pair), first.sequences, seats=None, **options)
        decoder.shapes.clear()
        again = _draw(decoder, first.sequences, seats=2, state=state, **options)
    assert _rows(again) == _rows(expected)
    assert {new for _, new, *_ in decoder.shapes} == {1}
    drawn = sum(11 - place for place in (0, 2, 4, 1, 7, 3))
    # Rows whose prefix is kept sit down without a forward of their own.
    assert sum(rows for rows, *_ in decoder.shapes) == drawn
    assert len(decoder.shapes) <= math.ceil(drawn / 2) + 3


def test_a_draw_that_is_taken_again_has_the_same_shapes_and_bits() -> None:
    pair = tiny_pair("qwen3")
    one, other = _decoder(pair), _decoder(pair)
    sampling = Sampling(stop_ids=pair.stop_ids)
    first = _draw(one, _pack(PROMPTS), seats=3, sampling=sampling)
    second = _draw(other, _pack(PROMPTS), seats=3, sampling=sampling)
    assert one.shapes == other.shapes
    assert torch.equal(first.sequences.tokens, second.sequences.tokens)
    assert torch.equal(first.behaviour_logp, second.behaviour_logp)


def test_columns_that_only_finished_rows_needed_are_let_go() -> None:
    pair = tiny_pair()
    decoder = _decoder(pair)
    _draw(decoder, _pack([PROMPTS[2], PROMPTS[1]]), seats=None, new=[2, 8], sampling=Sampling())
    assert [shape[:3] for shape in decoder.shapes] == [(2, 23, 23), (2, 1, 24), *((1, 1, 4 + n) for n in range(6))]


def test_caches_that_keep_something_else_do_not_join() -> None:
    pair = tiny_pair("gemma3")
    decoder = _decoder(pair)
    assert decoder.joins(decoder.start())
    cache = decoder.start()
    cache.layers[0] = type("Quantised", (type(cache.layers[0]),), {})(sliding_window=16)
    assert not decoder.joins(cache)
    pair.student.config.layer_types = ["chunked_attention", "full_attention"]
    assert not decoder.joins(cache)
    assert not isinstance(_Apart(decoder), Joining)


def test_groups_that_follow_each_other_are_nearly_equal_and_turns_fill_all_seats() -> None:
    model = ScriptedModel(random_script(0, vocab_size=4), vocab_size=4)
    assert Turns.of(_Apart(model), rows=40, seats=32) == Turns(seats=20, joins=False)
    assert Turns.of(model, rows=40, seats=32) == Turns(seats=32, joins=True)
    assert Turns.of(model, rows=5, seats=32) == Turns(seats=5, joins=False)
    assert in_turn([0, 1, 2, 3], seats=2, lengths=[4, 4, 8, 2], limits=[12, 12, 16, 30]) == [3, 2, 0, 1]
