"""Hidden states that are kept: the bits of the first reading, whatever is asked for beside them or lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.models.pair import Vocabulary
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.models.state_stores import FileStore, MemoryStore, StateStore
from limbeck.models.teacher_cache import TeacherCache, row_names
from limbeck.testing import tiny_model
from limbeck.types import Sequences, pack_rows

WIDTH = 32
LENGTHS = (9, 5, 7, 12, 4, 6)


@pytest.fixture(scope="module")
def teacher() -> Scorer:
    return Scorer.of(tiny_model(seed=4), vocabulary=Vocabulary(size=261, shared=None, dropped_student=()))


def _rows(places: Sequence[int], *, origin: str = "reference", pad_id: int = 256) -> Sequences:
    tokens = [[(7 * place + t) % 250 for t in range(LENGTHS[place])] for place in places]
    return pack_rows(
        tokens,
        [[t > 1 for t in range(len(row))] for row in tokens],
        origin=[origin] * len(tokens),
        keys=[(place,) for place in places],
        pad_id=pad_id,
    )


def _read(teacher: Scorer, rows: Sequences) -> torch.Tensor:
    return teacher.view(rows, scored_tokens(rows)).hidden


def _cache(teacher: Scorer, store: StateStore | None = None, *, most_bytes: int = 10**9, said: list[str] | None = None):
    note = (lambda line: None) if said is None else said.append
    return TeacherCache(teacher, store=store or MemoryStore(), most_bytes=most_bytes, keeps_passing=True, note=note)


def _per_row(hidden: torch.Tensor, rows: Sequences) -> dict[bytes, torch.Tensor]:
    return dict(zip(row_names(rows), hidden.split(rows.scored.sum(dim=1).tolist()), strict=True))


def test_a_row_keeps_the_bits_of_its_first_reading(teacher: Scorer) -> None:
    cache, first = _cache(teacher), _rows([0, 1, 2])
    expected = _read(teacher, first)
    assert torch.equal(cache.read(first).hidden, expected)
    found = cache.read(_rows([2, 3, 0])).hidden
    by_name = _per_row(expected, first) | _per_row(_read(teacher, _rows([3])), _rows([3]))
    assert torch.equal(found, torch.cat([by_name[name] for name in row_names(_rows([2, 3, 0]))]))
    assert cache.rows_read == 4
    view = cache.read(first)
    assert torch.equal(
        view.log_probabilities(slice(0, 4)), teacher.view(first, scored_tokens(first)).log_probabilities(slice(0, 4))
    )


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_is_lost_is_read_again_in_its_group(kind: str, teacher: Scorer, tmp_path: Path) -> None:
    def store() -> StateStore:
        if kind == "memory":
            return MemoryStore()
        return FileStore(tmp_path / "states" / "rank-0.bin", width=WIDTH, dtype=torch.float32)

    cache = _cache(teacher, store())
    cache.read(_rows([0, 1, 2], pad_id=7))
    cache.read(_rows([3, 4]))
    cache.read(_rows([5, 1], origin="student"))
    asked = _rows([4, 2, 5])
    expected = cache.read(asked).hidden
    state = cache.state()
    cache.read(_rows([2]))
    again = _cache(teacher, store())
    again.restore(state)
    assert torch.equal(again.read(asked).hidden, expected)
    # Groups 1, 2 and 3 were asked for; a file has the first two still.
    assert again.rows_read == (3 + 2 + 1 if kind == "memory" else 1)
    told, tells = state, again.state()
    assert {key: value for key, value in told.items() if isinstance(value, int)} == {
        key: value for key, value in tells.items() if isinstance(value, int)
    }
    assert all(torch.equal(tells[key], value) for key, value in told.items() if isinstance(value, torch.Tensor))
    assert all(torch.equal(tells["store"][key], value) for key, value in told["store"].items())
    again.close()
    assert not (tmp_path / "states").exists()


def test_passing_rows_are_let_go_and_lasting_ones_stay(teacher: Scorer) -> None:
    cache = _cache(teacher)
    cache.read(_rows([0]))
    drawn = _rows([1, 2, 3], origin="revised")
    cache.read(drawn)
    before = cache.state()["bytes"]
    lengths = drawn.lengths.tolist()
    cache.keep_only([(drawn.tokens[1, : lengths[1]], drawn.is_response[1, : lengths[1]])])
    assert len(cache) == 2
    assert cache.state()["bytes"] == before - (LENGTHS[1] - 2 + LENGTHS[3] - 2) * WIDTH * 4
    cache.read(_rows([0, 2]))
    assert cache.rows_read == 4
    cache.keep_only([])
    assert (len(cache), len(cache.state()["rows"])) == (1, 1)


def test_nothing_is_kept_beyond_the_limit_and_it_is_said_once(teacher: Scorer) -> None:
    said: list[str] = []
    room = (LENGTHS[0] + LENGTHS[1] - 4) * WIDTH * 4
    cache = _cache(teacher, most_bytes=room, said=said)
    cache.read(_rows([0, 1]))
    for _ in range(3):
        cache.read(_rows([0, 2]))
        cache.read(_rows([3]))
    assert len(cache) == 2
    assert cache.rows_read == 2 + 3 + 3
    assert len(said) == 1
    assert said[0].startswith("the teacher cache is full: 2 rows")


def test_rows_that_never_come_again_are_not_kept(teacher: Scorer) -> None:
    cache = TeacherCache(teacher, store=MemoryStore(), most_bytes=10**9)
    for origin in ("student", "revised", "idle"):
        cache.read(_rows([0], origin=origin))
    cache.read(_rows([1], origin="teacher"))
    assert len(cache) == 1


def test_twins_are_kept_once_and_rows_with_nothing_to_learn_never(teacher: Scorer) -> None:
    cache = _cache(teacher)
    twins = _rows([1, 1, 2])
    assert torch.equal(cache.read(twins).hidden, _read(teacher, twins))
    assert len(cache) == 2
    nothing = pack_rows([[5, 6]], [[False, False]], origin=["reference"], keys=[(0,)], pad_id=0)
    assert cache.read(nothing).hidden.shape == (0, WIDTH)
    assert len(cache) == 2


def test_a_file_of_one_dtype_takes_no_other(tmp_path: Path) -> None:
    """Read back as its own dtype it would be twice as many rows, of which a loss would read the first half."""
    store = FileStore(tmp_path / "states.bin", width=3, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match=r"cache\.kind to memory"):
        store.put(b"a", torch.zeros(2, 3))


def test_a_file_knows_what_was_cut_off_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "states.bin"
    store = FileStore(path, width=3, dtype=torch.bfloat16)
    rows = {name: torch.randn(n, 3).bfloat16() for name, n in ((b"a", 2), (b"b", 0), (b"c", 4))}
    for name, states in rows.items():
        store.put(name, states)
    for name, states in rows.items():
        found = store.get(name)
        assert found is not None
        assert torch.equal(found, states)
    state = store.state(list(rows))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data[:-1])
    other = FileStore(path, width=3, dtype=torch.bfloat16)
    other.restore(list(rows), state)
    assert (other.get(b"a"), other.get(b"c")) == (None, None)
    other.put(b"a", rows[b"a"])
    other.put(b"c", rows[b"c"])
    assert torch.equal(other.state(list(rows))["extents"], state["extents"])
    assert path.stat().st_size == 6 * 3 * 2
