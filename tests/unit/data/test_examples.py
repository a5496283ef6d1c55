from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from limbeck.data.examples import from_rows, read_examples
from limbeck.errors import DataError, LimbeckError, UnknownName
from limbeck.records import Message

ROW = {"instruction": "Say hello", "input": "", "output": "Hello."}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def refused(path: Path, *parts: str, columns: dict[str, str] | None = None) -> str:
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LimbeckError) as caught:
        read_examples(path, columns=columns)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    assert caught.value.exit_code == 2
    assert (path.read_bytes() if path.is_file() else b"") == before
    return message


def test_shared_schema(tmp_path: Path) -> None:
    row = {"instruction": "Add", "input": "1 2", "output": ["3", "three"], "category": "sums", "id": "s1"}
    data = read_examples(write(tmp_path / "my.jsonl", row))
    (example,) = data.examples
    assert data.format == "instruction"
    assert example.messages == (Message(role="user", content="Add", input="1 2"),)
    assert (example.references, example.category, example.id) == (("3", "three"), "sums", "s1")
    assert example.corpus == "my"
    assert example.source.endswith("my.jsonl line 1")


def test_ids_come_from_the_line_blank_lines_counted(tmp_path: Path) -> None:
    data = read_examples(write(tmp_path / "my.jsonl", ROW, "", ROW, "  "))
    assert [example.id for example in data.examples] == ["my-1", "my-3"]


def test_gzip_equals_plain(tmp_path: Path) -> None:
    plain = write(tmp_path / "my.jsonl", ROW, ROW)
    packed = tmp_path / "my.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    ours, theirs = read_examples(packed).examples, read_examples(plain).examples
    assert [(e.id, e.content_hash()) for e in ours] == [(e.id, e.content_hash()) for e in theirs]


def test_json_list_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    listed = tmp_path / "alpaca.json"
    listed.write_text(json.dumps([ROW, ROW], indent=1))
    marked = tmp_path / "windows.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n" + json.dumps(ROW).encode())
    assert [e.id for e in read_examples(listed).examples] == ["alpaca-1", "alpaca-2"]
    assert len(read_examples(marked)) == 2


@pytest.mark.parametrize("answer", ["completion", "response"])
def test_prompt_completion(answer: str) -> None:
    data = from_rows([{"prompt": "2+2?", answer: "4", "id": 7}])
    assert data.format == "prompt-completion"
    assert (data.examples[0].references, data.examples[0].id) == (("4",), "7")


def test_databricks_columns() -> None:
    data = from_rows([{"instruction": "Who?", "context": "Ann did.", "response": "Ann", "category": "qa"}])
    assert data.examples[0].messages[0].input == "Ann did."
    assert data.examples[0].references == ("Ann",)


def test_chat_goes_up_to_the_last_assistant_turn() -> None:
    turns = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "never answered"},
    ]
    data = from_rows([{"messages": turns}])
    (example,) = data.examples
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Be brief"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert example.references == ("d",)
    assert "1 with several turns" in data.describe()
    assert "1 with a system message" in data.describe()


def test_conversations_with_from_and_value() -> None:
    data = from_rows([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}])
    assert data.format == "conversations"
    assert data.examples[0].references == ("b",)


def test_columns_rename(tmp_path: Path) -> None:
    path = write(tmp_path / "my.jsonl", {"question": "2+2?", "answer": "4", "output": "unused"})
    data = read_examples(path, columns={"instruction": "question", "output": "answer"})
    assert data.examples[0].messages[0].content == "2+2?"
    assert data.examples[0].references == ("4",)


def test_describe_counts(tmp_path: Path) -> None:
    rows = [{**ROW, "input": "x", "category": "a"}, {**ROW, "output": ["y", "z"], "category": "b"}]
    line = read_examples(write(tmp_path / "my.jsonl", *rows)).describe()
    for part in ("2 rows", "format instruction", "1 with input", "1 with several references", "2 categories"):
        assert part in line


def test_missing_file_suggests_a_near_name(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROW)
    assert "Did you mean 'train.jsonl'?" in refused(tmp_path / "trian.jsonl", "does not exist")
    refused(tmp_path / "no" / "where.jsonl", "folder does not exist")


def test_broken_json_names_line_17(tmp_path: Path) -> None:
    path = write(tmp_path / "my.jsonl", *[ROW] * 16, '{"instruction": "x" "output": "y"}', ROW)
    refused(path, "line 17", "broken JSON", "column 21")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "x", "input": ""},
        {"instruction": "x", "output": None},
        {"instruction": "x", "output": "  "},
        {"instruction": "x", "output": []},
        {"instruction": "x", "output": ["a", ""]},
        {"prompt": "x"},
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]},
    ],
)
def test_row_without_a_response(tmp_path: Path, row: dict[str, object]) -> None:
    path = write(tmp_path / "my.jsonl", row)
    refused(path, "line 1", "a row without a response")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ([1, 2], "not an object"),
        ("7", "not an object"),
        ({"instruction": 5, "output": "y"}, "'instruction' is a number (5); text is expected"),
        ({"instruction": "", "output": "y"}, "'instruction' is empty"),
        ({"instruction": "x", "input": ["y"], "output": "z"}, "'input' is a list"),
        ({"instruction": "x", "output": 4}, "'output' is a number (4); text or a list of texts is expected"),
        ({"instruction": "x", "output": {"a": 1}}, "'output' is an object"),
        ({"instruction": "x", "output": "y", "category": 1}, "'category' is a number"),
        ({"instruction": "x", "output": "y", "id": 1.5}, "'id' is a number"),
        ({"instruction": "x", "output": "y", "id": True}, "'id' is a truth value"),
        ({"messages": "hello"}, "'messages' is text"),
        ({"messages": []}, "'messages' is a list"),
        ({"messages": ["hello"]}, "'messages[0]' is text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool turns are not supported"),
        ({"messages": [{"role": "user", "content": None}]}, "'messages[0].content' is missing or null"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "does not follow a user turn"),
        (
            {"messages": [{"role": "user", "content": " \n"}, {"role": "assistant", "content": "x"}]},
            "'messages[0].content' is empty",
        ),
        ({"question": "x", "answer": "y"}, "no known format has these columns: question, answer"),
        ({"question": "x", "answer": "y"}, "limbeck evaluate and init have no such setting: rename them in the file"),
        ('{"instruction": "x", "output": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "broken JSON"),
        ('{"instruction": ' + "9" * 5000 + "}", "broken JSON"),
    ],
)
def test_wrong_types(tmp_path: Path, row: object, part: str) -> None:
    # A blank object line first would decide the format, so the bad row stands alone.
    refused(write(tmp_path / "my.jsonl", row), part)


def test_late_system_turn(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "system", "user", "assistant")]
    refused(write(tmp_path / "my.jsonl", {"messages": turns}), "only the first turn may be")


def test_second_row_of_another_format(tmp_path: Path) -> None:
    path = write(tmp_path / "my.jsonl", ROW, {"prompt": "x", "completion": "y"})
    refused(path, "line 2", "'instruction' is missing or null")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]"])
def test_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my.jsonl"
    path.write_bytes(content)
    refused(path, "no rows")


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "my.jsonl", {**ROW, "id": "a"}, {**ROW, "id": "b"}, {**ROW, "id": "a"})
    refused(path, "'a' stands twice", "line 1", "line 3")


def test_given_id_that_equals_a_made_one(tmp_path: Path) -> None:
    refused(write(tmp_path / "my.jsonl", {**ROW, "id": "my-2"}, ROW), "'my-2' stands twice")


def test_a_directory(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROW)
    refused(tmp_path, "is a folder", "train.jsonl")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b'\n{"instruction": "caf\xe9", "output": "x"}\n')
    assert "iconv -f latin1" in refused(path, "not UTF-8", "0xe9", "line 2")


def test_utf16_and_tables_are_not_taken_for_latin1(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-16")
    refused(path, "not UTF-8", "iconv -f utf-16 -t utf-8", "line 1")
    path.write_bytes(b"PAR1\x15\x04\x15\x9c\x09\x00\x4c\x15")
    assert "iconv" not in refused(path, "not UTF-8", "it is no text", "line 1")


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl.gz"
    path.write_bytes(json.dumps(ROW).encode())
    refused(path, "no intact gzip")
    path.write_bytes(gzip.compress(json.dumps(ROW).encode() * 50)[:-12])
    refused(path, "no intact gzip")


def test_columns_that_are_missing_or_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "my.jsonl", ROW)
    refused(path, "'answer', which this row lacks", "instruction, input, output", columns={"output": "answer"})
    with pytest.raises(UnknownName, match="Did you mean 'instruction'"):
        read_examples(path, columns={"instructon": "instruction"})


def test_rows_of_python_users_are_counted_from_one() -> None:
    with pytest.raises(DataError, match="in mine row 2"):
        from_rows([ROW, {"instruction": "x"}], corpus="mine")
    assert from_rows(iter([ROW]), corpus="mine").examples[0].id == "mine-1"
