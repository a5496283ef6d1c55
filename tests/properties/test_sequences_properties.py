"""Packing, weights, the loader's order and the rows' noise, for any rows."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.loader import Loader, Mix, batch, prompts
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Match
from limbeck.losses.objective import Batch, Objective, one_process
from limbeck.models.scoring import scored_tokens, split_rows
from limbeck.records import EncodedRow
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import Sequences, pack_rows

quick = settings(deadline=None, max_examples=40)

Rows = list[list[tuple[int, bool]]]
ids = st.integers(0, 9)
ragged_rows = st.lists(st.lists(st.tuples(ids, st.booleans()), min_size=1, max_size=9), min_size=1, max_size=6)
reductions = st.sampled_from(["token", "sequence"])


def pack(rows: Rows, pad_id: int = 0) -> Sequences:
    return pack_rows(
        [[token for token, _ in row] for row in rows],
        [[flag for _, flag in row] for row in rows],
        origin=["reference"] * len(rows),
        keys=[(0, index) for index in range(len(rows))],
        pad_id=pad_id,
    )


def unpack(sequences: Sequences) -> Rows:
    lengths = sequences.lengths.tolist()
    return [
        list(zip(sequences.tokens[b, :n].tolist(), sequences.is_response[b, :n].tolist(), strict=True))
        for b, n in enumerate(lengths)
    ]


# Packing.


@quick
@given(ragged_rows, ids)
def test_packed_rows_come_back_and_padding_is_neither_attended_nor_learned(rows: Rows, pad_id: int) -> None:
    sequences = pack(rows, pad_id)
    assert unpack(sequences) == rows
    assert sequences.tokens.shape[1] == max(map(len, rows))
    for b, row in enumerate(rows):
        assert sequences.attended[b].tolist() == [i < len(row) for i in range(sequences.tokens.shape[1])]
        assert not sequences.is_response[b, len(row) :].any()
        assert (sequences.tokens[b, len(row) :] == pad_id).all()


@quick
@given(ragged_rows, ids, ids)
def test_which_tokens_are_scored_does_not_depend_on_the_pad_id(rows: Rows, pad_id: int, other: int) -> None:
    places = [(b, s, token) for b, row in enumerate(rows) for s, (token, flag) in enumerate(row) if flag and s > 0]
    for sequences in (pack(rows, pad_id), pack(rows, other)):
        where = scored_tokens(sequences)
        found = zip(where.rows.tolist(), where.positions.tolist(), where.tokens.tolist(), strict=True)
        assert list(found) == places
        assert sequences.num_scored == len(where) == len(places)


@quick
@given(ragged_rows, st.data())
def test_chosen_rows_are_those_rows_in_that_order_without_spare_padding(rows: Rows, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    chosen = pack(rows).rows(index)
    assert unpack(chosen) == [rows[i] for i in index]
    assert chosen.keys == tuple((0, i) for i in index)
    assert chosen.tokens.shape[1] == max((len(rows[i]) for i in index), default=1)


@quick
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=6))
def test_the_prompt_ends_where_the_last_response_begins(shapes: list[tuple[int, int, int]]) -> None:
    """Each row: a prompt, perhaps an earlier response with a turn between, and the last response."""
    rows, expected = [], []
    for prompt, earlier, last in shapes:
        before = [(1, False)] * prompt + ([(2, True)] * earlier + [(1, False)] if earlier and last else [])
        rows.append(before + [(3, True)] * last)
        expected.append(len(before))
    assert pack(rows).prompt_lengths.tolist() == expected


@quick
@given(ragged_rows, st.integers(1, 8))
def test_rows_are_split_into_groups_each_once_longest_first(rows: Rows, size: int) -> None:
    groups = split_rows(pack(rows), size)
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    assert len(groups) == -(-len(rows) // size)
    assert max(map(len, groups)) == -(-len(rows) // len(groups))
    lengths = [len(rows[row]) for group in groups for row in group]
    assert lengths == sorted(lengths, reverse=True)


# Weights.


def objective(reduction: str) -> Objective:
    return Objective.of(Match(ForwardKL()), scales={"token": 1.0, "supervised": 0.5}, reduction=reduction)


def exact_weights(rows: Rows, reduction: str) -> list[list[Fraction]]:
    scored = [sum(flag for _, flag in row[1:]) for row in rows]
    with_one = sum(count > 0 for count in scored)
    if reduction == "token":
        return [[Fraction(1, sum(scored)) for _ in range(count)] for count in scored]
    return [[Fraction(1, with_one * count) for _ in range(count)] for count in scored]


@quick
@given(ragged_rows, reductions, st.integers(1, 6), st.randoms(use_true_random=False))
def test_weights_add_up_to_one_for_each_term_however_the_rows_are_split(rows, reduction, size, random) -> None:
    if not any(flag for row in rows for _, flag in row[1:]):
        return
    sequences, order = pack(rows), list(range(len(rows)))
    random.shuffle(order)
    groups = [order[first : first + size] for first in range(0, len(order), size)]
    both = frozenset({"token", "supervised"})
    weights, counts = objective(reduction).weights(
        [Batch(sequences=sequences.rows(group), terms=both) for group in groups], total=one_process
    )
    exact = exact_weights(rows, reduction)
    for term in both:
        assert counts.tokens[term] == sequences.num_scored
        assert math.isclose(sum(float(weight[term].double().sum()) for weight in weights), 1.0, rel_tol=1e-5)
        for group, weight in zip(groups, weights, strict=True):
            expected = [float(one) for row in group for one in exact[row]]
            torch.testing.assert_close(weight[term].double(), torch.tensor(expected, dtype=torch.float64))


@quick
@given(ragged_rows, ragged_rows, reductions)
def test_a_term_counts_only_the_batches_it_is_taken_on(drawn: Rows, references: Rows, reduction: str) -> None:
    batches = [
        Batch(sequences=pack(drawn), terms=frozenset({"token"})),
        Batch(sequences=pack(references), terms=frozenset({"supervised"})),
    ]
    if not any(part.sequences.num_scored for part in batches):
        return
    weights, counts = objective(reduction).weights(batches, total=one_process)
    for part, weight, term in zip(batches, weights, ("token", "supervised"), strict=True):
        assert counts.tokens[term] == part.sequences.num_scored
        assert set(weight) == ({term} if part.sequences.num_scored else set())
        if weight:
            assert math.isclose(float(weight[term].double().sum()), 1.0, rel_tol=1e-5)


# The loader.


def encoded(count: int, *, name: str = "row") -> list[EncodedRow]:
    return [EncodedRow(id=f"{name}-{i}", prompt=(1,), tokens=(1, 2), is_response=(False, True)) for i in range(count)]


@quick
@given(st.integers(1, 30), st.integers(0, 10**6), st.integers(0, 5))
def test_every_epoch_is_a_permutation_of_the_rows(count: int, seed: int, epoch: int) -> None:
    loader = Loader(encoded(count), seeds=Seeds(seed), pad_id=0)
    items = loader.take(epoch * count, count)
    assert [key for key, _ in items] == [(epoch, index) for index in range(count)]
    assert sorted(row.id for _, row in items) == sorted(row.id for row in encoded(count))


@quick
@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.integers(0, 9))
def test_a_stretch_of_rows_does_not_depend_on_how_it_is_taken(count: int, first: int, size: int, seed: int) -> None:
    loader = Loader(encoded(count), seeds=Seeds(seed), pad_id=0)
    piecewise = [loader.take(place, 1)[0] for place in reversed(range(first, first + size))][::-1]
    again = Loader(encoded(count), seeds=Seeds(seed), pad_id=0).take(first, size)
    assert list(again) == piecewise


@quick
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9))
def test_a_mix_takes_the_same_quota_in_every_epoch_and_uses_its_rows_evenly(
    left: int, right: int, weight: int, seed: int
) -> None:
    parts = (encoded(left, name="left"), encoded(right, name="right"))
    quota = (left + right) * weight / (weight + 1)
    if not 1 <= round(quota) < left + right:
        return
    mix = Mix(parts, (weight, 1))
    loader = Loader(mix, seeds=Seeds(seed), pad_id=0)
    taken: Counter[str] = Counter()
    for epoch in range(4):
        rows = [row.id for _, row in loader.take(epoch * len(mix), len(mix))]
        taken.update(rows)
        assert sum(id.startswith("left") for id in rows) == mix.quotas[0]
    assert abs(mix.quotas[0] - quota) < 1
    for part in parts:
        uses = [taken[row.id] for row in part]
        assert max(uses) - min(uses) <= 1


@quick
@given(st.lists(st.lists(ids, min_size=1, max_size=6), min_size=1, max_size=5), ids)
def test_a_prompt_batch_is_the_reference_batch_without_responses(prompts_of: list[list[int]], pad_id: int) -> None:
    items = []
    for index, prompt in enumerate(prompts_of):
        tokens, flags = (*prompt, 7), (*[False] * len(prompt), True)
        row = EncodedRow(id=str(index), prompt=tuple(prompt), tokens=tokens, is_response=flags)
        items.append(((0, index), row))
    whole, asked = batch(items, pad_id=pad_id), prompts(items, pad_id=pad_id)
    assert asked.keys == whole.keys
    assert asked.num_scored == 0
    assert asked.lengths.tolist() == whole.prompt_lengths.tolist()
    assert [[token for token, _ in row] for row in unpack(asked)] == prompts_of


# Noise.


@quick
@given(st.lists(st.integers(0, 1200), min_size=1, max_size=12), st.integers(0, 10**9), st.integers(0, 3))
def test_a_positions_uniform_does_not_depend_on_what_was_asked_before(positions, root, row) -> None:
    own = Seeds(root).child("draw", row)
    asked = RowNoise([Seeds(root).child("other"), own]).at([1] * len(positions), positions).tolist()
    assert asked == [float(RowNoise([own]).at([0], [position])[0]) for position in positions]
    assert all(0.0 <= uniform < 1.0 for uniform in asked)


@quick
@given(st.integers(0, 10**9), st.integers(1, 600), st.integers(1, 600))
def test_the_first_uniforms_do_not_depend_on_how_many_are_drawn(root: int, fewer: int, more: int) -> None:
    short, long = (Seeds(root).generator().random(count).tolist() for count in sorted((fewer, more)))
    assert long[: len(short)] == short
