"""The quickstart: how fast a model decodes, and the command that repeats it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from limbeck.cli.entry import app
from limbeck.data.examples import read_examples
from limbeck.evaluation.answering import answer_path
from limbeck.evaluation.answers import BATCH_ROWS
from limbeck.models.turns import UNIT_TURNS
from limbeck.studies import scoring_arms
from limbeck.studies.first_run import OUT, _command
from limbeck.studies.scoring_arms import CORPUS, SEED, ScoredArm, score_arm
from limbeck.testing import save_tiny, save_toy


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Score a tiny model with a clock that says 2 s for the drawing of its answers."""
    student, rows = save_tiny(tmp_path / "student", seed=2), save_toy(tmp_path / "rows.jsonl", 80)
    examples = read_examples(rows).examples

    def score() -> ScoredArm:
        clock = iter([10.0, 12.0])
        monkeypatch.setattr(scoring_arms.time, "perf_counter", lambda: next(clock, 12.0))
        return score_arm(
            "kd", student, examples, teacher=None, max_prompt=48, new_tokens=4, out=tmp_path / "out", run=None
        )

    return score


def test_of_a_stopped_scoring_only_what_was_drawn_now_counts_for_its_speed(scored: Any, tmp_path: Path) -> None:
    whole = scored()
    lengths = {id: row["num_tokens"] for id, row in whole.answers().items()}
    assert whole.tokens_per_second == sum(lengths.values()) / 2
    (tmp_path / "out" / "scored.json").unlink()
    path = answer_path(tmp_path / "out", CORPUS, SEED)
    lines = path.read_text().splitlines(keepends=True)
    header, *rows = lines
    there = rows[: BATCH_ROWS * UNIT_TURNS]
    assert 0 < len(there) < len(rows)
    path.write_text("".join([header, *there]))
    again = scored()
    kept = {json.loads(row)["id"] for row in there}
    assert again.tokens_per_second == sum(length for id, length in lengths.items() if id not in kept) / 2
    assert again.answers() == whole.answers()


def test_where_no_answer_was_drawn_no_speed_is_known(scored: Any, tmp_path: Path) -> None:
    scored()
    (tmp_path / "out" / "scored.json").unlink()
    assert scored().tokens_per_second is None
    # Read back it is the same.
    assert scored().tokens_per_second is None


def test_the_command_on_the_page_is_the_one_that_was_given() -> None:
    data, out = Path("../my data/rows #1.jsonl"), Path("/tmp/a quick start")
    told = _command(data=data, minutes=2.5, out=out, fast=True, tune_teacher=True)
    words = shlex.split(told)
    assert words[:2] == ["limbeck", "quickstart"]
    command: Any = typer.main.get_command(app)
    read = command.commands["quickstart"].make_context("quickstart", words[2:]).params
    assert {key: read[key] for key in ("data", "minutes", "out", "fast", "tune_teacher")} == {
        "data": data, "minutes": 2.5, "out": out, "fast": True, "tune_teacher": True,
    }  # fmt: skip


def test_the_command_names_only_what_was_given() -> None:
    assert _command(data=None, minutes=None, out=OUT, fast=False, tune_teacher=False) == "limbeck quickstart"
    command: Any = typer.main.get_command(app)
    assert command.commands["quickstart"].make_context("quickstart", []).params["out"] == OUT
