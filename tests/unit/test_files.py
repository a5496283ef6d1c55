"""JSON on disk: whole or not there, and told with its place where it is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import CheckpointError, DataError
from limbeck.files import alone_in, json_lines, read_json, read_row, read_rows, scratch_beside, write_whole

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)


@given(rows=st.lists(st.dictionaries(TEXTS, TEXTS, max_size=3), max_size=4))
def test_rows_come_back_whatever_their_texts_hold(
    rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_whole(path, json_lines(rows))
    assert list(read_rows(path)) == rows


def test_line_breaks_that_json_leaves_do_not_part_a_row(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c\x1cd\r\n"}, {"text": "\ud83d"}]
    write_whole(tmp_path / "a.jsonl", json_lines(rows))
    assert list(read_rows(tmp_path / "a.jsonl")) == rows


def test_a_broken_line_is_told_with_its_number_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": \n{"id": 3}\n')
    rows = read_rows(path, error=CheckpointError, remedy="remove it")
    assert next(rows) == {"id": 1}
    with pytest.raises(CheckpointError, match=r"a\.jsonl line 2 cannot be read: Expecting value\n  remove it"):
        next(rows)


@pytest.mark.parametrize("line", ["3", "[]", "null", '"id"', "", "{}}", "\xff"])
def test_a_line_that_is_no_object_is_no_row(line: str) -> None:
    with pytest.raises(DataError, match="x line 7 cannot be read"):
        read_row(line.encode("latin-1"), place="x line 7")


def test_only_a_growing_file_may_end_within_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2')
    assert list(read_rows(path, growing=True)) == [{"id": 1}]
    with pytest.raises(DataError, match="line 2"):
        list(read_rows(path))


def test_a_broken_line_within_a_growing_file_is_not_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id"\n{"id": 2}\n')
    with pytest.raises(DataError, match="line 1"):
        list(read_rows(path, growing=True))


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_a_json_file_that_is_missing_or_broken_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"a\.json cannot be read: .+\n  put it back"):
        read_json(path, error=CheckpointError, remedy="put it back")


def test_a_missing_file_of_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read: .*No such file"):
        list(read_rows(tmp_path / "a.jsonl"))


def test_a_kill_between_writing_and_naming_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    write_whole(path, "old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new and longer")
    assert path.read_text() == "old"


def test_a_write_that_fails_leaves_no_draft_and_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as failed:
        write_whole(tmp_path / "taken", "text")
    assert (failed.value.filename, failed.value.filename2) == (str(tmp_path / "taken"), None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_a_folder_is_one_process_s_until_it_lets_go_or_dies(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from limbeck.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for shared in (False, True):
            with pytest.raises(CheckpointError, match="another process"), alone_in(tmp_path, shared=shared):
                pass
        other.kill()
        other.wait()
    with alone_in(tmp_path):
        pass
    with alone_in(tmp_path, shared=True), alone_in(tmp_path, shared=True):
        pass


def test_scratch_lies_beside_and_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch_beside(tmp_path / "new" / "model") as scratch:
        assert scratch.parent == tmp_path / "new"
        (scratch / "made").mkdir()
        (scratch / "made").rename(tmp_path / "new" / "model")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_scratch_of_a_killed_process_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".model-{dead.pid}-abc.partial", f".model-{os.getpid()}-abc.partial", ".model-settings", "model"):
        (tmp_path / name).mkdir()
    with scratch_beside(tmp_path / "model"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".model-{os.getpid()}-abc.partial",
        ".model-settings",
        "model",
    ]
