"""The study on a tiny pair: rows first, a table made of them, and a killed study that goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli import main
from limbeck.errors import CheckpointError, ConfigError, UnknownName
from limbeck.revision import DETECTORS, Heuristic
from limbeck.studies import Detections, detector_study, injected_errors
from limbeck.studies.error_kinds import ERROR_KINDS
from limbeck.studies.printing import FORMATS
from limbeck.testing import save_tiny

ROWS = (
    ("It was 1969 and Anna was on the boat.", "Who?"),
    ("There is no one here but Paul, says he.", "Where?"),
    ("So be it.", "Well?"),
    ("The 4 cats can see Rome in the dark now.", "Cats?"),
    ("In Rome they did say 12 words to Lucas.", "Say?"),
)
SMALL: dict[str, Any] = {"max_prompt": 48, "max_new_tokens": 80, "batch_rows": 2}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("injected")
    data = folder / "rows.jsonl"
    lines = [json.dumps({"instruction": asked, "input": "", "output": said}) for said, asked in ROWS]
    data.write_text("\n".join(lines) + "\n")
    teacher = save_tiny(folder / "teacher", seed=1, layers=3)
    return {"teacher": teacher, "student": save_tiny(folder / "student", seed=2), "data": str(data), **SMALL}


@pytest.fixture(scope="module")
def whole(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Detections:
    return injected_errors(**given, out=tmp_path_factory.mktemp("whole"))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_there_is_a_row_for_each_error_and_detector_and_one_for_each_that_does_not_apply(whole: Detections) -> None:
    counts = Counter((row["source"], row["kind"]) for row in whole.rows if row["measure"] == "not-applicable")
    per = Counter((row["source"], row["kind"], row["detector"]) for row in whole.rows if row["measure"] == "injected")
    for source in ("references", "student"):
        for kind in ERROR_KINDS:
            for detector in DETECTORS:
                assert per[source, kind, detector] + counts[source, kind] == len(ROWS)
    assert counts["references", "number"] == 2
    assert counts["references", "drift"] == 1
    assert per["references", "repetition", "kld-argmax"] == 4
    assert all(row["right"] == (row["guesses"][:1] == [row["place"]]) for row in whole.rows if "guesses" in row)


def test_rows_hold_no_text_and_no_path_and_the_table_is_on_disk(given: dict[str, Any], whole: Detections) -> None:
    assert whole.folder is not None
    written = (whole.folder / "rows.jsonl").read_text()
    assert not any(str(given[model]) in written for model in ("teacher", "student"))
    assert not any(word in written for word in ("Anna", "Paul", "Lucas", "boat", "cats"))
    shown = (whole.folder / "table.md").read_text()
    assert shown == whole.markdown()
    assert "| repetition | kld-argmax | 4 |" in shown
    assert "number: 2 of 5 responses have nothing for it to spoil." in shown


def test_a_study_that_was_killed_loses_its_batch_at_most_and_ends_with_the_same_rows(
    given: dict[str, Any], whole: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.folder is not None
    full = (whole.folder / "rows.jsonl").read_bytes()
    lines = full.splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if b'"batch"' in line and place) + 1
    # Killed in the middle of a line of the second batch.
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[: first + 2]) + lines[first + 2][:20])
    taken = []
    real = detector_study.judged
    monkeypatch.setattr(
        detector_study, "judged", lambda cases, **named: taken.append(len(cases)) or real(cases, **named)
    )
    said: list[str] = []
    again = injected_errors(**given, out=tmp_path, say=said.append)
    assert said == [f"injected errors: {number} of 3 batches of 2 rows" for number in (2, 3)]
    assert len(taken) == 2, "the first of three batches is not taken again"
    assert (tmp_path / "rows.jsonl").read_bytes() == full
    assert again.rows == whole.rows
    taken.clear()
    assert injected_errors(**given, out=tmp_path).rows == whole.rows
    assert not taken
    with pytest.raises(CheckpointError, match="otherwise"):
        injected_errors(**given, out=tmp_path, seed=1)


def test_detectors_kinds_and_sources_can_be_chosen_and_do_not_change_each_others_rows(
    given: dict[str, Any], whole: Detections, tmp_path: Path
) -> None:
    part = injected_errors(
        **given,
        out=tmp_path,
        detectors={"kld-argmax": DETECTORS["kld-argmax"](), "mine": Heuristic(loop_tokens=2)},
        kinds=["number"],
        sources=["references"],
    )
    mine = [row for row in part.rows if row.get("detector") == "kld-argmax"]
    same = {"source": "references", "kind": "number", "detector": "kld-argmax"}
    theirs = [row for row in whole.rows if same.items() <= row.items()]
    # Scores may move in their last bits with the rows that share a batch.
    assert [(row["id"], row["place"], row["end"]) for row in mine] == [
        (row["id"], row["place"], row["end"]) for row in theirs
    ]
    assert {row["detector"] for row in part.rows if "detector" in row} == {"kld-argmax", "mine"}


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"kinds": ["numbers"]}, UnknownName, "number"),
        ({"kinds": []}, ConfigError, "at least one"),
        ({"sources": ["teacher"]}, ConfigError, "references, student"),
        ({"detectors": ["kld"]}, UnknownName, "kld-argmax"),
        ({"rows": 0}, ConfigError, "at least 1"),
        ({"batch_rows": 0}, ConfigError, "at least 1"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_loaded(
    given: dict[str, Any], tmp_path: Path, changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        injected_errors(**{**given, "teacher": "/nowhere", **changed}, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_prints_the_table_of_rows_that_are_there(
    whole: Detections, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    assert whole.folder is not None
    shutil.copytree(whole.folder, tmp_path / "injected-errors")
    command = ["study", "injected-errors", "--rows", str(tmp_path), "--table", "--format", format]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in ("repetition", "negation", "kld-argmax"))
    if format == "markdown":
        tables = shown.replace("\n", "")
        assert all(table.markdown().replace("\n", "") in tables for _, table in whole.tables())


def test_without_rows_the_command_says_how_they_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "injected-errors", "--rows", str(tmp_path), "--table"]) == 2
    assert "limbeck study injected-errors" in capsys.readouterr().err
