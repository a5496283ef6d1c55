"""The teacher's answers on disk: there once, whole batches only, whoever writes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from limbeck.errors import ConfigError, DataError
from limbeck.sequences.answer_cache import Answer, AnswerCache, prompt_hash

ASKED = {"teacher": {"name": "big"}, "sampling": {"temperature": 1.0}}


def answer(number: int, *, by: str = "one") -> Answer:
    text = f"answer {number} of {by}, \u2028 and ü"
    return Answer(prompt=prompt_hash([number]), text=text, tokens=(number, 5), stopped=number % 2 == 0)


def batch(first: int, *, by: str = "one", size: int = 4) -> list[Answer]:
    return [answer(number, by=by) for number in range(first, first + size)]


def test_what_was_added_is_read_by_another_process_of_the_same_question(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, ASKED)
    assert cache.read() == {}
    assert cache.add(batch(0)) == batch(0)
    cache.add(batch(4))
    assert AnswerCache(tmp_path, ASKED).read() == {each.prompt: each for each in (*batch(0), *batch(4))}
    header, *rows = [json.loads(line) for line in cache.path.read_text().splitlines()]
    assert header == {"format": 1, **ASKED}
    assert [row["ends_batch"] for row in rows] == [False, False, False, True] * 2


def test_another_question_is_another_file(tmp_path: Path) -> None:
    one = AnswerCache(tmp_path, ASKED)
    other = AnswerCache(tmp_path, {**ASKED, "sampling": {"temperature": 0.5}})
    assert one.path != other.path
    one.add(batch(0))
    assert other.read() == {}


def test_who_comes_second_is_given_what_the_first_wrote(tmp_path: Path) -> None:
    first, second = AnswerCache(tmp_path, ASKED), AnswerCache(tmp_path, ASKED)
    assert second.read() == {}
    first.add(batch(0))
    expected = [*batch(2, size=2), answer(4, by="two"), answer(5, by="two")]
    assert second.add(batch(2, by="two")) == expected
    assert first.add(batch(4, by="three", size=1)) == [answer(4, by="two")]
    assert len(AnswerCache(tmp_path, ASKED).read()) == 6


def test_whatever_was_written_of_a_batch_before_a_kill_is_no_answer(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, ASKED)
    cache.add(batch(0))
    whole = len(cache.path.read_bytes())
    cache.add(batch(4))
    text = cache.path.read_bytes()
    for length in range(len(text)):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / cache.path.name).write_bytes(text[:length])
        left = AnswerCache(folder, ASKED)
        found = left.read()
        assert len(found) == (0 if length < whole else 4), length
        if length % 97 == 0:
            left.add(batch(4) if length >= whole else [*batch(0), *batch(4)])
            assert len(AnswerCache(folder, ASKED).read()) == 8
            assert text[-60:] in left.path.read_bytes()


def _write(folder: Path, name: str, orders: list[int]) -> None:
    cache = AnswerCache(folder, ASKED)
    for first in orders:
        cache.add(batch(first, by=name, size=5))


def test_processes_that_write_at_once_keep_one_answer_a_prompt(tmp_path: Path) -> None:
    orders = [list(range(0, 60, 3)), list(range(57, -1, -3)), [*range(30, 60, 3), *range(0, 30, 3)]]
    processes = [
        multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path, str(number), order))
        for number, order in enumerate(orders)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0, 0]
    cache = AnswerCache(tmp_path, ASKED)
    assert cache.read().keys() == {prompt_hash([number]) for number in range(62)}
    header, *rows = [json.loads(line) for line in cache.path.read_text().splitlines()]
    assert header["format"] == 1
    assert len(rows) == len({row["prompt"] for row in rows}) == 62


@pytest.mark.parametrize(
    "line", ["{broken", "[]", '{"prompt": "x"}', '{"prompt": "x", "text": "", "tokens": 3, "stopped": true}']
)
def test_a_damaged_file_is_named_and_left_alone(line: str, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, ASKED)
    cache.add(batch(0))
    with cache.path.open("a") as file:
        file.write(line + "\n")
    before = cache.path.read_bytes()
    for action in (lambda each: each.read(), lambda each: each.add(batch(8))):
        with pytest.raises(DataError, match=r"is damaged before byte \d+"):
            action(AnswerCache(tmp_path, ASKED))
    assert cache.path.read_bytes() == before


def test_a_file_of_another_question_under_this_name_is_refused(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, ASKED)
    cache.path.write_text('{"format": 1, "teacher": {"name": "else"}}\n')
    with pytest.raises(DataError, match="not the header of its name"):
        cache.read()


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"method\.sequences\.cache") as refused:
        AnswerCache(tmp_path / "file" / "inside", ASKED).add(batch(0))
    assert refused.value.exit_code == 2
