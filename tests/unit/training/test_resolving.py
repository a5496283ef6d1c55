"""What `auto` becomes by the memory that is free, why, and that a recorded value holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.losses.heads import auto_chunk
from limbeck.training import resolving
from limbeck.training.session import open_session
from limbeck.training.world import World
from training_kit import ROWS, Models, opened, recipe

WIDTH = 261


def test_a_chunk_fits_into_a_quarter_of_what_is_free_beside_training(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(models, "kd")
    session = opened(settings, tmp_path / "roomy")
    assert session.auto["chunk"] == auto_chunk(WIDTH, "cpu")
    assert [note for note in session.notes if "as many as are ever taken" in note]
    trained = sum(p.numel() for p in session.pair.student.parameters())
    # Gradients and two moments, and eight blocks of 100 tokens four times over: 64 is the power of two that fits.
    monkeypatch.setattr(resolving, "free_bytes", lambda device: 3 * 4 * trained + 100 * 4 * 8 * 4 * WIDTH)
    tight = opened(settings, tmp_path / "tight")
    assert tight.auto["chunk"] == tight.distiller.chunk == 64
    line = next(note for note in tight.notes if note.startswith("vocabulary layer: 64 tokens"))
    assert f"not {auto_chunk(WIDTH, 'cpu')}" in line
    assert opened(settings, tmp_path / "asked", "train.chunk=7").auto["chunk"] == 7
    again = open_session(
        session.recipe,
        world=World.start(device="cpu", strategy="auto"),
        rows=ROWS,
        recorded={key: tight.auto[key] for key in ("chunk", "rows", "precision", "ranks", "micro_rows")},
    )
    assert again.auto["chunk"] == 64
    monkeypatch.setattr(resolving, "free_bytes", lambda device: 0)
    assert opened(settings, tmp_path / "full").auto["chunk"] == 32


@given(room=st.integers(0, 2**40), width=st.integers(1, 300_000), kind=st.sampled_from(["cpu", "cuda"]))
def test_more_room_never_gives_fewer_tokens_and_all_stay_between_the_bounds(room: int, width: int, kind: str) -> None:
    chunk, most = auto_chunk(width, kind, room=room), auto_chunk(width, kind)
    assert 32 <= chunk <= most
    assert chunk <= auto_chunk(width, kind, room=2 * room) <= most
    assert chunk == 32 or 4 * 8 * 4 * width * chunk <= room
