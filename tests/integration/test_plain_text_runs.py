"""Plain text beside a method's rows: one step, two normalisers, and the same rows whatever happens to the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.errors import CheckpointError
from limbeck.losses.objective import PLAIN_TEXT
from limbeck.training.batching import micro_batches, text_items
from limbeck.training.step import take_items, take_step
from training_kit import (
    Models,
    assert_same_run,
    gradients,
    in_float64,
    metrics,
    opened,
    recipe,
    start,
    start_and_kill,
)

SHORT = {"steps": 4, "batch_rows": 4, "micro_rows": 3}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    texts = [f"A plain text, {place} " * (1 + place % 4) for place in range(7)]
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    return path


def _settings(models: Models, text: Path, base: str = "gkd", **sections: Any) -> dict[str, Any]:
    method = {"weights": {"plain_text": 0.25}, **sections.pop("method", {})}
    data = {"plain_text": str(text), "max_length": 64}
    return recipe(models, base, method=method, data=data, train={**SHORT, **sections.pop("train", {})}, **sections)


def test_the_step_adds_the_texts_own_mean_and_leaves_the_other_terms_alone(
    models: Models, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float64(monkeypatch)
    with_text = opened(_settings(models, text, "kd"), tmp_path / "a")
    without = opened(recipe(models, "kd", train=SHORT, data={"max_length": 64}), tmp_path / "b")
    items, _ = take_items(with_text, 1, 0)
    one, other = take_step(with_text, 1, items=items), take_step(without, 1, items=items)
    texts = text_items(with_text, 1)
    assert len(texts) == len(items) == 4
    model, total, count = with_text.pair.student, 0.0, 0
    assert with_text.texts is not None
    for _, row in texts:
        tokens = torch.tensor([row.tokens])
        with torch.no_grad():
            logp = model(tokens).logits[..., : with_text.pair.vocabulary.width].log_softmax(dim=-1)[0]
        total -= float(sum(logp[at, token] for at, token in enumerate(row.tokens[1:])))
        count += len(row.tokens) - 1
    assert one.row["terms"]["plain_text"] == pytest.approx(total / count, rel=1e-6)
    assert one.row["tokens"] == {"token": other.row["tokens"]["token"], "plain_text": count}
    assert one.row["terms"]["token"] == pytest.approx(other.row["loss"], rel=1e-9)
    assert one.row["loss"] == pytest.approx(other.row["loss"] + 0.25 * total / count, rel=1e-6)
    left, right = gradients(with_text), gradients(without)
    assert all(not torch.equal(value, right[name]) for name, value in left.items())
    assert one.row["origin"] == other.row["origin"], "a text is no row of the method"
    assert one.row["response_tokens"] == other.row["response_tokens"]


def test_weights_of_the_term_add_up_to_one_however_the_step_is_cut(models: Models, text: Path, tmp_path: Path) -> None:
    for reduction in ("token", "sequence"):
        found = []
        for micro_rows in (1, 3):
            settings = _settings(
                models, text, "imitkd", method={"reduction": reduction}, train={"micro_rows": micro_rows}
            )
            session = opened(settings, tmp_path / f"{reduction}-{micro_rows}")
            items, _ = take_items(session, 1, 0)
            drawn = session.rollouts.student(items)
            batches = micro_batches(session, items=items, drawn=drawn, texts=text_items(session, 1))
            weights, counts = session.distiller.objective.weights(batches, total=session.world.sum)
            assert [batch.terms for batch in batches if PLAIN_TEXT in batch.terms] == [frozenset({PLAIN_TEXT})] * (
                4 if micro_rows == 1 else 2
            )
            for name in ("token", PLAIN_TEXT):
                assert sum(float(each[name].sum()) for each in weights if name in each) == pytest.approx(1.0, abs=1e-6)
            found.append(counts)
        assert found[0] == found[1]


def test_the_rows_of_a_step_are_those_of_seed_and_step(models: Models, text: Path, tmp_path: Path) -> None:
    session = opened(_settings(models, text), tmp_path / "a")
    again = opened(_settings(models, text), tmp_path / "b")
    other = opened(_settings(models, text, train={"seed": 1}), tmp_path / "c")
    rows = [text_items(session, step) for step in (1, 2, 3)]
    assert [text_items(again, step) for step in (3, 1, 2)] == [rows[2], rows[0], rows[1]]
    assert text_items(other, 1) != rows[0]
    assert session.texts is not None
    seen = [row.id for part in rows for _, row in part][: session.texts.rows_per_epoch]
    assert len(set(seen)) == len(seen) == 7, "each row once, then all over again"
    keys = {key for part in rows for key, _ in part}
    assert len(keys) == 12
    assert all(key[0] == PLAIN_TEXT for key in keys)


@pytest.mark.parametrize("base", ["mgsr", "minillm"])
def test_killed_and_resumed_is_never_killed(base: str, models: Models, text: Path, tmp_path: Path) -> None:
    method = {"sequences": {"rows": 8, "epochs": 2}} if base == "minillm" else {"sequences": {"share": 0.7}}
    settings = _settings(models, text, base, method=method)
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=4)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    steps = [row for row in metrics(tmp_path / "whole") if row["kind"] == "step"]
    assert all(math.isfinite(row["terms"]["plain_text"]) and row["tokens"]["plain_text"] > 0 for row in steps)
    assert all("plain_text" in row["gradient_shares"] for row in steps if "gradient_shares" in row)
    checked = [row for row in metrics(tmp_path / "whole") if row["kind"] == "validation"]
    assert checked
    assert all("plain_text" not in row["terms"] for row in checked), "validation rows are no plain text"


def test_a_text_that_has_changed_is_another_run(models: Models, text: Path, tmp_path: Path) -> None:
    settings = _settings(models, text, "kd")
    start_and_kill(settings, tmp_path / "run", call=3)
    text.write_text(text.read_text() + json.dumps({"text": "One more."}) + "\n")
    with pytest.raises(CheckpointError, match="the training rows are not those"):
        start(settings, tmp_path / "run", resume=True)
