"""Plain text as rows of tokens: what is read, where it is cut, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from limbeck.data.plain_texts import plain_rows, read_texts
from limbeck.errors import DataError
from limbeck.testing import byte_tokenizer

BOS, EOS = 257, 258


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def with_bos() -> Any:
    tokenizer = byte_tokenizer()
    begin = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, BOS)]
    )
    tokenizer.backend_tokenizer.post_processor = begin
    return tokenizer


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_text_file_is_one_text_and_json_lines_are_one_each(tmp_path: Path) -> None:
    assert list(read_texts(written(tmp_path, "a.txt", "  one\n\ntwo\n"))) == ["one\n\ntwo"]
    assert list(read_texts(written(tmp_path, "a.txt.gz", gzip.compress("één".encode())))) == ["één"]
    rows = lines({"text": "one"}, {"text": " "}, {"text": "two", "id": 7})
    assert list(read_texts(written(tmp_path, "a.jsonl", rows))) == ["one", "two"]
    assert list(read_texts(written(tmp_path, "a.jsonl.gz", gzip.compress(rows.encode())))) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", lines({"text": "a"}, {"words": "b"}), "'text'.*\n.*line 2"),
        ("a.jsonl", lines({"text": 3}), "'text'"),
        ("a.jsonl", lines(["text"]), "'text'"),
        ("a.jsonl", '{"text": ', "broken JSON"),
        ("a.jsonl", lines({"text": ""}), "no text"),
        ("a.txt", " \n", "no text"),
        ("a.txt", b"\xff", "not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_texts(written(tmp_path, name, content)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, "corpus.txt", "x")
    with pytest.raises(DataError, match=r"Did you mean 'corpus\.txt'"):
        list(read_texts(tmp_path / "corpsu.txt"))


def test_texts_are_cut_and_never_share_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", lines({"text": "abcdef"}, {"text": "gh"}))
    rows = plain_rows(path, tokenizer=with_bos(), max_length=4)
    assert [row.tokens for row in rows] == [(BOS, 97, 98, 99), (100, 101, 102, EOS), (BOS, 103, 104, EOS)]
    assert all(row.prompt == () and row.is_response == (True,) * len(row.tokens) for row in rows)
    assert len({row.id for row in rows}) == 3


def test_a_last_token_by_itself_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "abc")
    assert [row.tokens for row in plain_rows(path, tokenizer=with_bos(), max_length=4)] == [(BOS, 97, 98, 99)]


def test_where_nothing_can_be_taught_it_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "abc")
    with pytest.raises(DataError, match="two tokens"):
        plain_rows(path, tokenizer=byte_tokenizer(), max_length=1)


@given(st.lists(st.text(alphabet="ab é北\n", max_size=12), max_size=4), st.integers(2, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_together_are_the_texts(tmp_path: Path, texts: list[str], length: int) -> None:
    path = written(tmp_path, "a.jsonl", lines(*({"text": text} for text in texts)))
    said = [text.strip() for text in texts if text.strip()]
    if not said:
        return
    rows = plain_rows(path, tokenizer=byte_tokenizer(), max_length=length)
    assert all(2 <= len(row.tokens) <= length for row in rows)
    whole = [[*text.encode(), EOS] for text in said]
    expected = [each[at : at + length] for each in whole for at in range(0, len(each), length)]
    assert [list(row.tokens) for row in rows] == [block for block in expected if len(block) > 1]
