"""What a run learns from: rows from Python, several corpora, all turns, empty answers, and nothing at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import limbeck
from limbeck.errors import ConfigError, NothingToLearn
from limbeck.sequences import Fixed
from limbeck.testing import byte_tokenizer, tiny_model
from limbeck.training import loop
from training_kit import ROWS, Models, metrics, recipe, start, tensors

STOP = 260


def _file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_from_python_are_rows_from_a_file(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "sft", train={"steps": 2}, validate={"every": None})
    start(settings, tmp_path / "python")
    path = _file(tmp_path / "rows.jsonl", ROWS)
    start({**settings, "data": {**settings["data"], "corpus": path}}, tmp_path / "file", rows=None)
    left, right = tensors(tmp_path / "python"), tensors(tmp_path / "file")
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_rows_may_be_any_iterable(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "sft", train={"steps": 1}, data={"columns": {"prompt": "q", "completion": "a"}})
    rows = ({"q": row["prompt"], "a": row["completion"]} for row in ROWS)
    run = limbeck.train({**settings, "run": str(tmp_path / "run")}, rows=rows)
    assert metrics(run.directory)[0]["tokens"]["token"] > 0


def test_without_rows_or_corpus_the_recipe_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.corpus is missing"):
        start(recipe(models, "sft"), tmp_path / "run", rows=None)
    assert not (tmp_path / "run").exists()


def test_several_corpora_come_by_weight(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _file(tmp_path / "ours.jsonl", [{"prompt": f"ours {i}", "completion": "yes"} for i in range(12)])
    theirs = _file(tmp_path / "theirs.jsonl", [{"prompt": f"theirs {i}", "completion": "no"} for i in range(12)])
    corpora = [{"corpus": ours, "weight": 3}, {"corpus": theirs, "weight": 1}]
    settings = recipe(
        models, "sft", data={"corpus": corpora}, train={"steps": 4, "micro_rows": 6}, validate={"every": None}
    )
    seen: list[str] = []
    take_step = loop.take_step

    def looked(session: Any, step: int, *, items: Any) -> Any:
        seen.extend(row.id for _, row in items)
        return take_step(session, step, items=items)

    monkeypatch.setattr(loop, "take_step", looked)
    run = start(settings, tmp_path / "run", rows=None)
    assert len(seen) == 24
    assert sum(id.startswith("ours") for id in seen) == 18
    assert metrics(run.directory)[-1]["epoch"] == pytest.approx(1.0)


def test_all_turns_are_learned(models: Models, tmp_path: Path) -> None:
    turns = [("user", "a?"), ("assistant", "one"), ("user", "b?"), ("assistant", "three")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for _ in range(8)]
    counts = {}
    for train_on in ("last", "all"):
        data = {"train_on": train_on, "valid": 1}
        settings = recipe(models, "sft", data=data, train={"steps": 1}, validate={"every": None})
        run = start(settings, tmp_path / train_on, rows=rows)
        counts[train_on] = metrics(run.directory)[0]["tokens"]["token"]
    # "three" and its end-of-turn token; and, with all turns, "one" and its.
    assert counts == {"last": 6 * 6, "all": 6 * (6 + 4)}


def test_all_turns_go_with_fixed_responses_only(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fixed responses only"):
        start(recipe(models, "gkd", data={"train_on": "all"}), tmp_path / "run")


def test_a_student_that_says_nothing_is_trained(models: Models, tmp_path: Path) -> None:
    """Every answer is the stop token alone: one scored token a row, a finite loss, weights that move."""
    student = tiny_model("gpt2", seed=5)
    with torch.no_grad():
        # The head is tied to the embedding; a bias along the stop token's row outweighs everything else.
        row = student.transformer.wte.weight[STOP]
        student.transformer.ln_f.bias.copy_(200.0 * row / row.norm())
    folder = tmp_path / "silent"
    student.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    settings = recipe(models, "imitkd", models={"student": str(folder)}, train={"steps": 2})
    run = start(settings, tmp_path / "run")
    first, *_ = metrics(run.directory)
    assert first["response_tokens"] == 1.0
    assert first["tokens"] == {"token": 6}
    assert first["gradient_norm"] > 0
    validation = next(row for row in run.metrics() if row["kind"] == "validation")
    assert validation["answers_stopped"] == 1.0
    assert validation["answer_tokens"] == 1.0


def test_a_step_without_a_response_token_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Fixed.draw

    def silent(self: Fixed, items: Any, *, rollouts: Any, step: int) -> Any:
        drawn = draw(self, items, rollouts=rollouts, step=step)
        none = torch.zeros_like(drawn.is_response)
        return dataclasses.replace(drawn, is_response=none) if step == 3 else drawn

    monkeypatch.setattr(Fixed, "draw", silent)
    with pytest.raises(NothingToLearn, match="none of the 6 rows of this step has a response token"):
        start(recipe(models, "sft", validate={"every": None}), tmp_path / "run")
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]


def test_some_rows_without_a_response_token_count_for_nothing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Fixed.draw

    def half_silent(self: Fixed, items: Any, *, rollouts: Any, step: int) -> Any:
        drawn = draw(self, items, rollouts=rollouts, step=step)
        heard = torch.arange(len(drawn))[:, None] < 2
        return dataclasses.replace(drawn, is_response=drawn.is_response & heard)

    settings = recipe(models, "sft", train={"steps": 1, "micro_rows": 2}, validate={"every": None})
    with monkeypatch.context() as patch:
        patch.setattr(Fixed, "draw", half_silent)
        part = start(settings, tmp_path / "part")
    assert (
        metrics(part.directory)[0]["tokens"]["token"]
        < metrics(start(settings, tmp_path / "all").directory)[0]["tokens"]["token"]
    )
    assert metrics(part.directory)[0]["loss"] > 0


def test_rows_from_python_are_limited_and_validated_as_those_of_a_file(models: Models, tmp_path: Path) -> None:
    columns = {"prompt": "q", "completion": "a"}
    rows = [{"q": row["prompt"], "a": row["completion"]} for row in ROWS]
    valid = _file(tmp_path / "valid.jsonl", rows[:3])
    data = {"columns": columns, "max_rows": 12, "valid": valid}
    run = start(recipe(models, "sft", data=data, train={"steps": 1}, validate={"every": 1}), tmp_path / "a", rows=rows)
    counted = json.loads((run.directory / "rows.json").read_text())
    assert [part["rows"] for part in counted["sources"]] == [12]
    assert (counted["train"]["read"], counted["validation"]["read"]) == (12, 3)


def test_the_home_folder_may_hold_the_named_corpora(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "corpora" / "dolly").mkdir(parents=True)
    for split in ("train", "valid"):
        _file(tmp_path / "corpora" / "dolly" / f"{split}.jsonl", ROWS)
    settings = recipe(models, "sft", data={"corpus": "dolly", "root": "~/corpora", "valid": "auto"})
    run = limbeck.train({**settings, "run": "~/runs/mine"}, "train.steps=3", rows=None)
    assert run.directory == tmp_path / "runs" / "mine"
    again = limbeck.train({**settings, "run": "~/runs/mine"}, "train.steps=3", rows=None, resume=True)
    assert again.directory == run.directory


SPANS_ALONE = {"weights": {"token": 0, "supervised": 0}, "span": {"extractor": {"kind": "window"}}}


def test_spans_alone_without_a_span_in_a_step_are_a_loss_of_0(models: Models, tmp_path: Path) -> None:
    settings = recipe(
        models, "mgsr", method={**SPANS_ALONE, "sequences": "student", "revision": None}, validate={"every": None}
    )
    run = start(settings, tmp_path / "none", "sampling.max_new_tokens=1")
    assert [(row["spans"], row["loss"], row["gradient_norm"]) for row in metrics(run.directory)] == [(0, 0.0, 0.0)] * 6
    some = start(settings, tmp_path / "some", "train.steps=1")
    assert metrics(some.directory)[0]["spans"] > 0
    assert metrics(some.directory)[0]["gradient_norm"] > 0


def test_spans_alone_without_a_response_token_are_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Fixed.draw

    def silent(self: Fixed, items: Any, *, rollouts: Any, step: int) -> Any:
        drawn = draw(self, items, rollouts=rollouts, step=step)
        return dataclasses.replace(drawn, is_response=torch.zeros_like(drawn.is_response))

    monkeypatch.setattr(Fixed, "draw", silent)
    method = {**SPANS_ALONE, "sequences": "fixed", "revision": None}
    with pytest.raises(NothingToLearn, match="none of the 6 rows of this step has a response token"):
        start(recipe(models, "mgsr", method=method, validate={"every": None}), tmp_path / "run")


def test_a_mixture_of_chosen_and_fixed_responses_needs_no_term_with_a_teacher(models: Models, tmp_path: Path) -> None:
    method = {"sequences": {"first": {"kind": "best-of"}, "share": 1.0}, "token": "likelihood"}
    run = start(recipe(models, "gkd", method=method, train={"steps": 2}, validate={"every": None}), tmp_path / "run")
    assert [row["origin"] for row in metrics(run.directory)] == [{"student": 1.0}] * 2


def test_an_id_with_half_a_surrogate_pair_is_validated(models: Models, tmp_path: Path) -> None:
    rows = [{"id": f"\ud83d{place}", **row} for place, row in enumerate(ROWS)]
    run = start(recipe(models, "kd", train={"steps": 3}), tmp_path / "run", rows=rows)
    followed = [json.loads(line)["id"] for line in (run.directory / "tokens.jsonl").read_bytes().splitlines()]
    assert followed
    assert all(id.startswith("\ud83d") for id in followed)
