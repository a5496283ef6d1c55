"""A run that keeps the teacher's work: the same loss and gradients, less work, and the same bits after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.models.scoring import Scorer
from limbeck.training import checkpoint, loop
from limbeck.training.session import Session
from limbeck.training.step import take_items, take_step
from training_kit import (
    ROWS,
    Models,
    assert_same_run,
    gradients,
    in_float64,
    metrics,
    opened,
    recipe,
    start,
    start_and_kill,
    tensors,
)

# 20 rows in steps of 6: the second epoch begins inside the fourth step, and the third inside the seventh.
EPOCHS = {"steps": 9, "batch_rows": 6, "micro_rows": 4, "learning_rate": 2e-3}


def _settings(folders: Models, base: str = "kd", /, *, kind: str = "memory", **sections: Any) -> dict[str, Any]:
    cache = {"kind": kind, **sections.pop("cache", {})}
    return recipe(folders, base, **{"train": EPOCHS, "cache": cache, **sections})


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows each forward of a teacher reads."""
    whole, found = Scorer.view, []

    def counted(self: Scorer, sequences: Any, where: Any) -> Any:
        found.append(len(sequences))
        return whole(self, sequences, where)

    monkeypatch.setattr(Scorer, "view", counted)
    return found


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_teacher_reads_each_fixed_row_once(kind: str, models: Models, tmp_path: Path, read_rows: list[int]) -> None:
    watched = {"watch": {"rows": 0}}
    start(_settings(models, kind=kind, **watched), tmp_path / "kept")
    assert sum(read_rows) == len(ROWS), "20 training rows and 4 validation rows"
    read_rows.clear()
    start(_settings(models, kind="off", **watched), tmp_path / "plain")
    assert sum(read_rows) == 9 * 6 + 3 * 4
    assert not (tmp_path / "kept" / "teacher_cache").exists(), "a finished run needs no cache"


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_losses_and_weights_are_those_without_a_cache(
    kind: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float64(monkeypatch)
    start(_settings(models, kind=kind), tmp_path / "kept")
    start(_settings(models, kind="off"), tmp_path / "plain")
    for kept, plain in zip(metrics(tmp_path / "kept"), metrics(tmp_path / "plain"), strict=True):
        for key in {"loss", "gradient_norm", "cross_entropy", "teacher_cross_entropy"} & plain.keys():
            assert kept[key] == pytest.approx(plain[key], abs=1e-9), key
    left, right = tensors(tmp_path / "kept"), tensors(tmp_path / "plain")
    assert all(torch.allclose(left[name], right[name], rtol=0, atol=1e-9) for name in right)


def test_the_first_epoch_is_the_same_bits(models: Models, tmp_path: Path) -> None:
    for kind in ("memory", "off"):
        settings = _settings(models, kind=kind, data={"valid": 2}, validate={"every": None})
        start(settings, tmp_path / kind, "data.valid=auto", rows=ROWS[:18])
    kept, plain = (metrics(tmp_path / kind) for kind in ("memory", "off"))
    assert kept[:3] == plain[:3]


@pytest.mark.parametrize("micro_rows", [1, 3])
def test_the_gradient_of_kept_rows_is_that_of_read_ones(micro_rows: int, models: Models, tmp_path: Path) -> None:
    found = {}
    for kind in ("memory", "off"):
        settings = _settings(models, kind=kind, train={**EPOCHS, "micro_rows": micro_rows})
        # Prompts of other lengths than in the first pass, and cut ones.
        settings["data"] |= {"max_prompt": 30, "long_prompt": "cut"}
        session = opened(settings, tmp_path / kind)
        for step in (1, 2, 3, 4):
            items, _ = take_items(session, step, 6 * (step - 1))
            take_step(session, step, items=items)
        again = take_items(session, 5, 4)[0]
        found[kind] = (take_step(session, 5, items=again).row["loss"], gradients(session))
        if session.cache is not None:
            assert session.cache.rows_read == 20
    (kept_loss, kept), (plain_loss, plain) = found["memory"], found["off"]
    assert kept_loss == pytest.approx(plain_loss, rel=1e-6)
    for name, gradient in plain.items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


REPLAYING = {"sequences": {"capacity": 8, "schedule": {"kind": "constant", "share": 0.9}, "fresh": "constant"}}
CASES: dict[str, dict[str, Any]] = {
    "memory": {},
    "disk": {"kind": "disk"},
    "bf16": {"models": {"teacher_dtype": "bf16"}, "kind": "disk"},
    "cut": {"data": {"max_prompt": 20, "long_prompt": "cut"}},
    "full": {"cache": {"max_gb": 1.2e-5}},
    "gkd": {"base": "gkd"},
    "replay": {"base": "mgsr:off-policy", "method": REPLAYING},
    "collection": {"base": "minillm", "method": {"sequences": {"rows": 12, "epochs": 2}}},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_in_the_second_epoch_and_resumed_is_never_killed(case: str, models: Models, tmp_path: Path) -> None:
    sections = dict(CASES[case])
    settings = _settings(models, sections.pop("base", "kd"), **sections)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=6)
    held = checkpoint.latest(tmp_path / "killed" / "checkpoints")
    assert held is not None
    assert len(held.state["teacher_cache"]["0"]["tokens"]) > 0
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("harm", ["gone", "cut off", "damaged"])
def test_a_lost_or_damaged_file_is_computed_again(harm: str, models: Models, tmp_path: Path) -> None:
    settings = _settings(models, kind="disk")
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=6)
    file = tmp_path / "killed" / "teacher_cache" / "rank-0.bin"
    data = bytearray(file.read_bytes())
    if harm == "gone":
        file.unlink()
    elif harm == "cut off":
        file.write_bytes(data[: len(data) // 2])
    else:
        file.write_bytes(bytes(255 - byte for byte in data))
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_full_cache_says_so_and_the_rest_is_read(
    models: Models, tmp_path: Path, read_rows: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    start(_settings(models, cache={"max_gb": 1.2e-5}, watch={"rows": 0}), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("the teacher cache is full") == 1
    assert "the rest is computed each time" in said
    assert len(ROWS) < sum(read_rows) < 9 * 6 + 3 * 4


def test_replayed_rows_are_not_read_again(models: Models, tmp_path: Path) -> None:
    settings = _settings(models, "mgsr:off-policy", method=REPLAYING, watch={"rows": 0})
    session = _last_session(settings, tmp_path / "run")
    turns = [row["replay"]["turn"] for row in metrics(tmp_path / "run") if row["kind"] == "step"]
    assert {"fresh", "replayed"} <= set(turns)
    cache = session.cache
    assert cache is not None
    fixed = 20 if turns.count("fixed") > 3 else 6 * turns.count("fixed")
    assert cache.rows_read <= 6 * turns.count("fresh") + fixed + 4
    passing = cache.state()
    held = int(passing["kept"].sum()) - 4 - min(20, 6 * turns.count("fixed"))
    assert held <= 8, "rows that have left the buffer are let go"


def test_a_collection_is_read_once_in_all(models: Models, tmp_path: Path, read_rows: list[int]) -> None:
    settings = _settings(models, "minillm", method={"sequences": {"rows": 12, "epochs": 2}}, watch={"rows": 0})
    settings["validate"] = {"every": None}
    session = _last_session(settings, tmp_path / "run")
    assert session.cache is not None
    # Nine steps of six rows: collections at steps 1, 5 and 9. The student reads each collection once too.
    assert session.cache.rows_read == 3 * 12
    assert sum(read_rows) == 2 * 3 * 12


def _last_session(settings: dict[str, Any], run: Path) -> Session:
    """Train; the session that the loop had."""
    found: list[Session] = []
    whole = loop.open_session
    with pytest.MonkeyPatch.context() as patch:

        def caught(*args: Any, **kwargs: Any) -> Session:
            found.append(whole(*args, **kwargs))
            return found[-1]

        patch.setattr(loop, "open_session", caught)
        start(settings, run)
    return found[-1]


def test_a_step_that_ran_out_of_memory_is_kept_in_its_smaller_groups(models: Models, tmp_path: Path) -> None:
    settings = _settings(models)
    session = opened(settings, tmp_path / "run")
    cache = session.cache
    assert cache is not None
    items, _ = take_items(session, 1, 0)
    mark = cache.mark()
    take_step(session, 1, items=items)
    before = cache.state()
    assert len(cache) == 6
    cache.back_to(mark)
    assert len(cache) == 0
    assert cache.state()["bytes"] == 0
    take_step(session, 1, items=items)
    after = cache.state()
    assert json.dumps(after["groups"].tolist()) == json.dumps(before["groups"].tolist())
    assert torch.equal(after["tokens"], before["tokens"])
