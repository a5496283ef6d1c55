from __future__ import annotations

from collections import Counter

import pytest

from limbeck.data.loader import Loader, Mix, batch, prompts
from limbeck.errors import ConfigError, DataError
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds


def rows(count: int, word: str = "r") -> tuple[EncodedRow, ...]:
    return tuple(
        EncodedRow(id=f"{word}{i}", prompt=(5, 6), tokens=(5, 6, *range(7, 8 + i % 3)), is_response=flags(i))
        for i in range(count)
    )


def flags(i: int) -> tuple[bool, ...]:
    return (False, False, *[True] * (1 + i % 3))


def loader(data: Mix | tuple[EncodedRow, ...], seed: int = 0) -> Loader:
    return Loader(data, seeds=Seeds(seed), pad_id=0)


def test_every_row_once_an_epoch_in_an_order_of_its_own() -> None:
    reader = loader(rows(20))
    epochs = [[row.id for _, row in reader.take(20 * epoch, 20)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(row.id for row in rows(20))
    assert epochs[0] != epochs[1] != epochs[2]


def test_rows_depend_on_seed_epoch_and_index_alone() -> None:
    whole = loader(rows(7)).take(0, 50)
    reader = loader(rows(7))
    pieces = [reader.take(first, 5) for first in reversed(range(0, 50, 5))]
    assert sum(reversed(pieces), ()) == whole
    assert loader(rows(7)).row(4, 3) == whole[4 * 7 + 3]
    assert whole[4 * 7 + 3][0] == (4, 3) == reader.place(31)
    assert [row.id for _, row in loader(rows(7), seed=1).take(0, 7)] != [row.id for _, row in whole[:7]]


def test_keys_are_unique_over_the_run() -> None:
    keys = [key for key, _ in loader(rows(3)).take(0, 30)]
    assert len(set(keys)) == 30


def test_a_mix_keeps_its_shares_exactly() -> None:
    mix = Mix((rows(30, "a"), rows(10, "b")), (1, 3))
    reader = loader(mix)
    assert (reader.rows_per_epoch, mix.quotas) == (40, (10, 30))
    for epoch in range(3):
        drawn = [row.id for _, row in reader.take(40 * epoch, 40)]
        assert Counter(name[0] for name in drawn) == {"a": 10, "b": 30}
        assert max(Counter(drawn).values()) == 3
    thirds = [row.id for _, row in reader.take(0, 120) if row.id.startswith("a")]
    assert sorted(thirds) == sorted(row.id for row in rows(30, "a"))


def test_a_mix_has_no_state_either() -> None:
    mix = Mix((rows(5, "a"), rows(8, "b"), rows(3, "c")), (2, 1, 1))
    whole = loader(mix).take(0, 100)
    reader = loader(mix)
    assert [reader.take(first, 1)[0] for first in reversed(range(100))][::-1] == list(whole)
    assert "".join(row.id[0] for _, row in whole[:16]) != "".join(row.id[0] for _, row in whole[16:32])


def test_bad_mixes() -> None:
    with pytest.raises(DataError, match="set 1 of the mix has no rows"):
        Mix((rows(2), ()), (1, 1))
    with pytest.raises(DataError, match="no rows"):
        loader(())
    with pytest.raises(ConfigError, match="one a set"):
        Mix((rows(2),), (1, 1))
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive"):
            Mix((rows(2), rows(2)), (1, weight))
    with pytest.raises(ConfigError, match="a set gets none"):
        Mix((rows(2), rows(2)), (1, 1e-6))


def test_batch_and_prompts() -> None:
    items = loader(rows(3)).take(0, 3)
    whole, asked = batch(items, pad_id=9), prompts(items, pad_id=9)
    assert whole.keys == asked.keys == ((0, 0), (0, 1), (0, 2))
    assert set(whole.origin) == {"reference"}
    for b, (_, row) in enumerate(items):
        size = len(row.tokens)
        assert whole.tokens[b, :size].tolist() == list(row.tokens)
        assert whole.tokens[b, size:].tolist() == [9] * (5 - size)
        assert whole.is_response[b, :size].tolist() == list(row.is_response)
        assert not whole.is_response[b, size:].any()
        assert asked.tokens[b].tolist() == [5, 6]
    assert whole.prompt_lengths.tolist() == [2, 2, 2]
    assert asked.num_scored == 0
    assert asked.prompt_lengths.tolist() == [2, 2, 2]
