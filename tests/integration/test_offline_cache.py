"""A teacher that is not there: built once into a folder, and trained from as if it were."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.cli.entry import main
from limbeck.config import Recipe
from limbeck.errors import CheckpointError, ConfigError, DataError, LimbeckError
from limbeck.models.offline_cache import Manifest, Shards
from limbeck.models.scoring import Scorer
from limbeck.testing import save_tiny
from limbeck.training import cache_building
from limbeck.training.cache_building import build_cache, verify_cache
from limbeck.training.session import Session, open_session
from limbeck.training.step import take_items, take_step
from limbeck.training.world import World
from training_kit import (
    ROWS,
    Killed,
    Models,
    assert_same_run,
    gradients,
    kill_before,
    metrics,
    recipe,
    start,
    start_and_kill,
)

EPOCHS = {"steps": 6, "batch_rows": 6, "micro_rows": 4, "learning_rate": 2e-3}
SMALL = 0.002
"""Megabytes a shard: several for these few rows."""


def _settings(folders: Models, /, **sections: Any) -> dict[str, Any]:
    return recipe(folders, "kd", **{"train": EPOCHS, **sections})


def _offline(folders: Models, folder: Path, /, **sections: Any) -> dict[str, Any]:
    settings = _settings(folders, cache={"kind": "offline", "path": str(folder)}, **sections)
    settings["models"]["teacher"] = None
    return settings


@pytest.fixture(scope="module")
def hidden(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches") / "hidden"
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS, shard_mb=SMALL)
    return folder


@pytest.fixture(scope="module")
def topk(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches") / "topk"
    build_cache({**_settings(models), "run": "r"}, out=folder, kind="topk", rows=ROWS, shard_mb=SMALL)
    return folder


def _session(settings: Mapping[str, Any], run: Path) -> Session:
    whole = Recipe.load({**settings, "run": str(run)})
    return open_session(whole, world=World.start(device="cpu", strategy="auto"), rows=ROWS, recorded={})


def _step(settings: Mapping[str, Any], run: Path) -> tuple[float, dict[str, torch.Tensor]]:
    session = _session(settings, run)
    items, _ = take_items(session, 1, 0)
    return take_step(session, 1, items=items).row["loss"], gradients(session)


def test_loss_and_gradient_are_those_with_the_teacher(models: Models, hidden: Path, tmp_path: Path) -> None:
    loss, kept = _step(_offline(models, hidden), tmp_path / "a")
    expected, plain = _step(_settings(models), tmp_path / "b")
    assert loss == pytest.approx(expected, rel=1e-6)
    for name, gradient in plain.items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_top_k_is_nearly_the_teacher_and_never_more(models: Models, topk: Path, tmp_path: Path) -> None:
    loss, kept = _step(_offline(models, topk), tmp_path / "a")
    expected, plain = _step(_settings(models), tmp_path / "b")
    # Merging classes makes a divergence smaller, never larger; quantised numbers move it by a little.
    assert 0.5 * expected < loss < expected * 1.001
    left, right = (torch.cat([each[name].flatten() for name in sorted(plain)]) for each in (kept, plain))
    assert float(torch.cosine_similarity(left, right, dim=0)) > 0.9


def test_all_classes_are_the_teacher(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    build_cache({**_settings(models), "run": "r"}, out=folder, kind="topk", top=250, rows=ROWS)
    loss, _ = _step(_offline(models, folder), tmp_path / "a")
    expected, _ = _step(_settings(models), tmp_path / "b")
    assert loss == pytest.approx(expected, rel=2e-3)


def test_a_run_without_the_teacher_is_killed_and_resumed(models: Models, hidden: Path, tmp_path: Path) -> None:
    settings = _offline(models, hidden)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    start(_settings(models), tmp_path / "plain")
    for offline, plain in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "plain"), strict=True):
        for key in {"loss", "cross_entropy", "teacher_cross_entropy"} & plain.keys():
            assert offline[key] == pytest.approx(plain[key], rel=1e-4), key


def test_a_cache_that_another_teacher_filled_meanwhile_is_refused(models: Models, tmp_path: Path) -> None:
    folder, settings = tmp_path / "cache", _offline(models, tmp_path / "cache")
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS, shard_mb=SMALL)
    start_and_kill(settings, tmp_path / "run", call=5)
    shutil.rmtree(folder)
    save_tiny(tmp_path / "other", seed=9, layers=3, vocab_size=272)
    other = {**_settings(models), "run": "r"}
    build_cache({**other, "models": {**other["models"], "teacher": str(tmp_path / "other")}}, out=folder, rows=ROWS)
    with pytest.raises(CheckpointError, match=r"the teacher in .*cache is not the one that the run was started with"):
        start(settings, tmp_path / "run", resume=True)
    shutil.rmtree(folder)
    # The same teacher in one file instead of several is the same.
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS)
    start(settings, tmp_path / "run", resume=True)


def test_the_teacher_is_never_loaded(models: Models, hidden: Path, tmp_path: Path) -> None:
    session = _session(_offline(models, hidden), tmp_path / "run")
    assert (session.teacher, session.pair.teacher) == (None, None)
    assert any(line.startswith("teacher cache: hidden") for line in session.notes)
    assert session.pair.vocabulary.size == 261


@pytest.mark.parametrize("moment", ["_read", "add_shard"])
def test_a_killed_build_loses_one_shard_at_most(
    moment: str, models: Models, hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = tmp_path / "cache", {**_settings(models), "run": "r"}
    with pytest.MonkeyPatch.context() as patch:
        kill_before(patch, moment, call=3, module=cache_building)
        with pytest.raises(Killed):
            build_cache(settings, out=folder, rows=ROWS, shard_mb=SMALL)
    there = Manifest.read(folder)
    assert not there.is_complete
    with pytest.raises(DataError, match="is not finished"):
        Shards(folder)
    read: list[int] = []
    whole = Scorer.view
    monkeypatch.setattr(Scorer, "view", lambda *args: (read.append(len(args[1])), whole(*args))[1])
    build_cache(settings, out=folder, rows=ROWS, shard_mb=SMALL)
    assert sum(read) == len(ROWS) - sum(shard.rows for shard in there.shards)
    one, other = Manifest.read(folder), Manifest.read(hidden)
    assert one == other
    assert all((folder / each.file).read_bytes() == (hidden / each.file).read_bytes() for each in one.shards)
    assert len(one.shards) > 2
    read.clear()
    build_cache(settings, out=folder, rows=ROWS, shard_mb=SMALL)
    assert read == [], "a finished build reads nothing again"


def test_a_second_build_into_one_folder_is_refused(models: Models, hidden: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "cache", {**_settings(models), "run": "r"}
    refused = []

    def meanwhile(line: str) -> None:
        with pytest.raises(CheckpointError, match="another process is writing into") as found:
            build_cache(settings, out=folder, rows=ROWS, shard_mb=SMALL)
        refused.append(found.value.exit_code)

    assert build_cache(settings, out=folder, rows=ROWS, shard_mb=SMALL, note=meanwhile) == Manifest.read(hidden)
    assert set(refused) == {2}


def test_a_damaged_shard_is_found_and_built_again(models: Models, hidden: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hidden, tmp_path / "cache"))
    file = folder / "shard-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-00001\.safetensors is damaged"):
        verify_cache(folder)
    shards = Shards(folder)
    with pytest.raises(DataError, match=r"shard-00001\.safetensors is damaged"):
        _ = [shards.row(name) for name in shards._rows]
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS, shard_mb=SMALL)
    assert verify_cache(folder).is_complete, "one that has its size still, too"
    file.unlink()
    with pytest.raises(DataError, match="shard-00001"):
        Shards(folder)
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS, shard_mb=SMALL)
    assert verify_cache(folder).is_complete


@pytest.mark.parametrize("part", ["head.safetensors", "teacher", "teacher/config.json", "teacher/tokenizer.json"])
@pytest.mark.parametrize("harm", ["missing", "cut", "changed"])
def test_what_is_known_of_the_teacher_is_repaired(
    part: str, harm: str, models: Models, hidden: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(hidden, tmp_path / "cache"))
    for file in [folder / part] if (folder / part).is_file() else sorted((folder / part).iterdir()):
        data = file.read_bytes()
        if harm == "missing":
            file.unlink()
        else:
            file.write_bytes(data[: len(data) // 2] if harm == "cut" else data.replace(b"a", b"b"))
    place = re.escape(str(folder / part.partition("/")[0]))
    says = rf"{place} is damaged or missing\.\n  Remove it and go on with the limbeck cache build"
    if (harm, part) != ("changed", "teacher/config.json"):
        with pytest.raises(DataError, match=says):
            verify_cache(folder)
        with pytest.raises(DataError, match=says):
            _session(_offline(models, folder), tmp_path / "run")
    build_cache({**_settings(models), "run": "r"}, out=folder, rows=ROWS, shard_mb=SMALL)
    assert verify_cache(folder).is_complete
    _session(_offline(models, folder), tmp_path / "run")
    for file in (path for path in sorted(hidden.rglob("*")) if path.is_file()):
        assert (folder / file.relative_to(hidden)).read_bytes() == file.read_bytes(), file
    assert {path.name for path in folder.iterdir()} == {path.name for path in hidden.iterdir()}


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("no manifest", "so it is no teacher cache"),
        ("changed manifest", r"(?s)does not have the sum.*Remove the folder"),
        ("other data", "rows are not in the teacher cache"),
        ("other template", "the template is plain here and chat there"),
        ("other teacher", "the weights in"),
        ("other name", "models.teacher is 'big', but the cache"),
        ("damaged head", "head.safetensors is damaged or missing"),
    ],
)
def test_what_does_not_fit_is_refused(harm: str, says: str, models: Models, hidden: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hidden, tmp_path / "cache"))
    settings = _offline(models, folder)
    if harm == "no manifest":
        (folder / "manifest.json").unlink()
    elif harm == "changed manifest":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"hidden"', '"topk"', 1))
    elif harm == "other data":
        settings["data"]["max_prompt"] = 20
        settings["data"]["long_prompt"] = "cut"
    elif harm == "other template":
        settings["data"]["template"] = "plain"
    elif harm == "other teacher":
        settings["models"]["teacher"] = str(save_tiny(tmp_path / "other", seed=9, layers=3, vocab_size=272))
    elif harm == "other name":
        settings["models"]["teacher"] = "big"
    else:
        (folder / "head.safetensors").unlink()
    with pytest.raises(LimbeckError, match=says) as refused:
        _session(settings, tmp_path / "run")
    assert refused.value.exit_code == 2


def test_the_same_teacher_elsewhere_is_the_same_teacher(models: Models, hidden: Path, tmp_path: Path) -> None:
    settings = _offline(models, hidden)
    settings["models"]["teacher"] = str(shutil.copytree(models.teacher, tmp_path / "moved"))
    assert _session(settings, tmp_path / "run").teacher is None


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"token": {"kind": "dac-kl", "top": 32, "clip": {"kind": "fixed"}}}, "method.token is not match"),
        ({"token": {"temperature_square_scaled": 2.0}}, "at temperature 1"),
        ({"span": {"kind": "correlation"}}, "method.span compares whole distributions"),
    ],
)
def test_top_k_serves_what_it_knows(
    method: dict[str, Any], says: str, models: Models, topk: Path, hidden: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        _session(_offline(models, topk, method=method), tmp_path / "a")
    _session(_offline(models, hidden, method=method), tmp_path / "b")


def test_another_build_into_the_same_folder_is_refused(models: Models, hidden: Path) -> None:
    before = (hidden / "manifest.json").read_bytes()
    with pytest.raises(DataError, match=r"(?s)is the cache of something else.*kind: hidden there, topk now"):
        build_cache({**_settings(models), "run": "r"}, out=hidden, kind="topk", rows=ROWS)
    with pytest.raises(DataError, match="is not empty"):
        build_cache({**_settings(models), "run": "r"}, out=Path(models.teacher), rows=ROWS)
    assert (hidden / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("base", "options", "says"),
    [
        ("gkd", {}, "corpus's responses alone"),
        ("sft", {}, "corpus's responses alone"),
        ("kd", {"top": 8}, "--top and --draws are of --kind topk"),
        ("kd", {"kind": "topk", "top": 0}, "--top is 0; allowed: 1 to 250"),
        ("kd", {"kind": "topk", "draws": 300}, "--draws is 300; allowed: 1 to 250"),
        ("kd", {"kind": "topk", "draws": 3, "top": 3}, "give one"),
        ("kd", {"shard_mb": 0.0}, "--shard-mb is 0"),
    ],
)
def test_a_build_of_nothing_useful_is_refused(
    base: str, options: dict[str, Any], says: str, models: Models, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        build_cache({**recipe(models, base), "run": "r"}, out=tmp_path / "cache", rows=ROWS, **options)
    assert not (tmp_path / "cache").exists()


def test_drawn_classes_are_unbiased(models: Models, tmp_path: Path) -> None:
    """E[t̂] = t: the mean over the rows' own draws of −Σ t̂·log q nears −Σ t·log q as draws are taken."""
    folder = tmp_path / "drawn"
    build_cache({**_settings(models), "run": "r"}, out=folder, kind="topk", draws=250, rows=ROWS)
    _, drawn = _step(_offline(models, folder), tmp_path / "a")
    _, plain = _step(_settings(models), tmp_path / "b")
    left, right = (torch.cat([each[name].flatten() for name in sorted(plain)]) for each in (drawn, plain))
    assert float(torch.cosine_similarity(left, right, dim=0)) > 0.95
    assert float(left.norm() / right.norm()) == pytest.approx(1, abs=0.15)
    reverse = _offline(models, folder, method={"token": {"divergence": {"kind": "reverse-kl"}}})
    with pytest.raises(ConfigError, match="unbiased for forward-kl only"):
        _session(reverse, tmp_path / "c")


def test_few_drawn_classes_say_nothing_of_the_teachers_own_entropy(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    build_cache({**_settings(models), "run": "r"}, out=folder, kind="topk", draws=2, rows=ROWS)
    start(_offline(models, folder), tmp_path / "run")
    assert "Infinity" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    validated = [row for row in metrics(tmp_path / "run") if row["kind"] == "validation"]
    assert validated
    assert not any("teacher_cross_entropy" in row for row in validated)


def test_the_command_line(models: Models, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings(models)
    settings["data"]["corpus"] = str(toy_file)
    file, folder = tmp_path / "recipe.yaml", tmp_path / "cache"
    file.write_text(json.dumps(settings))
    assert main(["cache", "info", str(folder)]) == 2
    assert "so it is no teacher cache" in capsys.readouterr().err
    assert main(["cache", "build", str(file)]) == 2
    assert "no folder for the cache" in capsys.readouterr().err
    assert main(["cache", "build", str(file), "--out", str(folder), "--kind", "topk"]) == 0
    built = capsys.readouterr()
    assert "the 32 likeliest classes; 24 rows" in built.out
    assert "shard 1 of 1: 24 rows" in built.err
    assert main(["cache", "verify", str(folder), "--recipe", str(file)]) == 0
    assert capsys.readouterr().out.startswith("whole: the 32 likeliest classes")
    assert main(["cache", "info", str(folder)]) == 0
    assert f"teacher: {models.teacher}" in capsys.readouterr().out
    settings["models"]["teacher"] = models.with_dropout
    file.write_text(json.dumps(settings))
    assert main(["cache", "verify", str(folder), "--recipe", str(file)]) == 2
    assert "was read by" in capsys.readouterr().err
    assert main(["train", str(file), "cache.kind=offline", f"cache.path={folder}", f"run={tmp_path / 'run'}"]) == 2
    assert "the weights in" in capsys.readouterr().err
