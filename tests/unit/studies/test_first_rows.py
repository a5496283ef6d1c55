"""The rows of a quickstart, and whose folder it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.studies.first_rows import gather_rows

SETTINGS = {"minutes": 12.0, "fast": False, "tune_teacher": False}


def _file(folder: Path, count: int) -> Path:
    path = folder / "mine.jsonl"
    rows = [{"instruction": f"Say {i}.", "input": "now" if i % 2 else "", "output": str(i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_starter_corpus_has_its_own_splits(tmp_path: Path) -> None:
    rows = gather_rows(None, out=tmp_path / "out", most=64, settings=SETTINGS)
    assert (rows.num_train, len(rows.held_out)) == (256, 64)
    assert len(rows.train.read_text().splitlines()) == 256


def test_no_held_out_row_is_learned_or_validated_on(tmp_path: Path) -> None:
    rows = gather_rows(_file(tmp_path, 100), out=tmp_path / "out", most=16, settings=SETTINGS)
    learned = rows.train.read_text() + rows.valid.read_text()
    assert len(rows.held_out) == 16
    for example in rows.held_out:
        assert f'"content": "{example.messages[-1].content}"' not in learned
    assert rows.num_train + len(rows.valid.read_text().splitlines()) == 84


def test_a_question_that_stands_twice_is_not_learned_where_it_is_held_out(tmp_path: Path) -> None:
    path = _file(tmp_path, 60)
    path.write_text(path.read_text() * 2)
    rows = gather_rows(path, out=tmp_path / "out", most=16, settings=SETTINGS)
    asked = {example.messages[-1].content for example in rows.held_out}
    parts = [
        {json.loads(line)["messages"][0]["content"].split("\n")[0] for line in file.read_text().splitlines()}
        for file in (rows.train, rows.valid)
    ]
    assert asked.isdisjoint(parts[0] | parts[1])
    assert parts[0].isdisjoint(parts[1])
    assert rows.num_train > 60
    path.write_text((path.read_text().splitlines()[0] + "\n") * 50)
    with pytest.raises(DataError, match="hardly a row"):
        gather_rows(path, out=tmp_path / "other", most=16, settings=SETTINGS)


def test_of_many_rows_some_are_taken_the_same_ones_each_time(tmp_path: Path) -> None:
    taken = [gather_rows(_file(tmp_path, 2_600), out=tmp_path / out, most=16, settings=SETTINGS) for out in ("a", "b")]
    assert taken[0].num_train == 2_000
    assert "2,000 of 2,455 rows to learn from" in taken[0].what
    assert taken[0].train.read_text() == taken[1].train.read_text()


def test_too_few_rows_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 40"):
        gather_rows(_file(tmp_path, 12), out=tmp_path / "out", most=16, settings=SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_quickstart_is_refused(tmp_path: Path) -> None:
    gather_rows(None, out=tmp_path / "out", most=64, settings=SETTINGS)
    again = gather_rows(None, out=tmp_path / "out", most=64, settings=SETTINGS)
    assert again.num_train == 256
    with pytest.raises(ConfigError, match=r"another quickstart \(fast: False there, True now"):
        gather_rows(None, out=tmp_path / "out", most=64, settings={**SETTINGS, "fast": True})
    with pytest.raises(ConfigError, match=r"data: starter there, mine\.jsonl now"):
        gather_rows(_file(tmp_path, 100), out=tmp_path / "out", most=64, settings=SETTINGS)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds no quickstart"):
        gather_rows(None, out=tmp_path / "out", most=64, settings=SETTINGS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
