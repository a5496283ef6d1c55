"""Answers on disk: what a kill leaves behind, who may go on with a file, and which noise an answer is drawn with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import CheckpointError, ConfigError, UnknownName
from limbeck.evaluation.answering import answer_path
from limbeck.evaluation.answers import DECODINGS, Answerer, AnswerFile, Decoding
from limbeck.evaluation.measuring import evaluate_examples
from limbeck.evaluation.subjects import Subject
from limbeck.models.decoders import CausalDecoder
from limbeck.models.scoring import Scorer
from limbeck.records import AnswerRow
from limbeck.testing import tiny_pair, toy_examples

EXAMPLES = toy_examples(26)
SHORT = Decoding(max_new_tokens=6)
HEADER = {"model": "m", "seed": 10}


@pytest.fixture(scope="module")
def subject() -> Subject:
    pair = tiny_pair()
    encoder = Encoder(pair.tokenizer, choose_template("auto", pair.tokenizer), max_prompt=60, max_length=70)
    student = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    return Subject(name="tiny", pair=pair, encoder=encoder, student=student, teacher=None, batch_rows=3)


def answerer_of(subject: Subject, **changes) -> Answerer:
    settings = {
        "decoder": CausalDecoder(subject.student),
        "encoder": subject.encoder,
        "stop_ids": subject.pair.stop_ids,
        "banned_ids": frozenset(subject.pair.vocabulary.dropped_student),
        "pad_id": subject.pair.pad_id,
        "device": torch.device("cpu"),
        "batch_rows": subject.batch_rows,
    }
    return Answerer(**{**settings, **changes})


def answers(answerer: Answerer, *, seed: int = 10, decoding: Decoding = SHORT, **options) -> dict[str, AnswerRow]:
    groups = answerer.answers(EXAMPLES, corpus="toy", seeds=[seed], decoding=decoding, **options)
    return {row.id: row for group in groups for row in group}


def answer_row(id: str, text: str) -> AnswerRow:
    return AnswerRow(corpus="toy", seed=10, id=id, text=text, num_tokens=1, stopped=True, scores={})


def evaluated(subject: Subject, out: Path, examples=EXAMPLES) -> tuple[bytes, list]:
    rows = evaluate_examples(subject, examples, corpus="toy", decoding=SHORT, seeds=(10,), out=out)
    (file,) = out.glob("*answers*")
    return file.read_bytes(), rows


# What is drawn.


def test_the_same_student_answers_the_same_again_and_another_seed_otherwise(subject: Subject) -> None:
    answerer = answerer_of(subject)
    first, again, other = answers(answerer), answers(answerer), answers(answerer, seed=20)
    assert first == again
    assert first.keys() == {example.id for example in EXAMPLES}
    assert sum(first[id].tokens != other[id].tokens for id in first) > len(first) // 2


def test_an_answer_does_not_depend_on_the_batch_it_is_drawn_in(subject: Subject) -> None:
    one, all_at_once = (answers(answerer_of(subject, batch_rows=rows)) for rows in (1, 7))
    assert {id: row.tokens for id, row in one.items()} == {id: row.tokens for id, row in all_at_once.items()}


def test_an_answer_is_recorded_with_all_that_scoring_needs(subject: Subject) -> None:
    rows = answers(answerer_of(subject), decoding=Decoding(max_new_tokens=40))
    for example in EXAMPLES:
        row = rows[example.id]
        assert (row.corpus, row.seed, row.references, row.category) == ("toy", 10, example.references, example.category)
        assert row.num_tokens == len(row.tokens) <= 40
        assert row.stopped == (row.tokens[-1] in subject.pair.stop_ids)
        assert row.stopped or row.num_tokens == 40
        assert row.text == subject.encoder.decode(row.tokens)
        assert not set(row.tokens) & set(subject.pair.vocabulary.dropped_student)
        assert not set(row.tokens[:-1]) & subject.pair.stop_ids
    assert any(row.stopped for row in rows.values())


def test_too_many_rows_for_the_memory_are_answered_with_the_setting_and_fewer_then_go_on(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(*given: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr("limbeck.evaluation.answers.extend_in_turn", fill_up)
        with pytest.raises(ConfigError, match=r"answers for toy, 3 rows at a time\n  lower --batch-rows"):
            evaluated(subject, tmp_path)
    fewer = dataclasses.replace(subject, batch_rows=2)
    _, rows = evaluated(fewer, tmp_path)
    assert {row["id"] for row in rows} == {example.id for example in EXAMPLES}
    with pytest.raises(CheckpointError, match="batches differ"):
        evaluated(subject, tmp_path)


def test_a_row_is_never_longer_than_the_context(subject: Subject) -> None:
    rows = answers(answerer_of(subject, max_length=40), decoding=Decoding(max_new_tokens=200))
    assert all(len(subject.encoder.prompt(example)) + rows[example.id].num_tokens <= 40 for example in EXAMPLES)


def test_batches_hold_prompts_of_like_length_longest_first_whatever_the_order(subject: Subject) -> None:
    answerer = answerer_of(subject)
    prompts = {example.id: subject.encoder.prompt(example) for example in EXAMPLES}
    plan = answerer.plan(prompts)
    assert plan == answerer.plan(dict(reversed(prompts.items())))
    assert [len(group) for group in plan] == [12, 12, 2]
    lengths = [len(prompts[id]) for group in plan for id in group]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(id for group in plan for id in group) == sorted(prompts)


def test_a_batch_that_is_there_is_not_drawn_again_and_an_unfinished_one_is_drawn_whole(subject: Subject) -> None:
    answerer = answerer_of(subject)
    first, second, third = answerer.plan({example.id: subject.encoder.prompt(example) for example in EXAMPLES})
    again = answers(answerer, skip=frozenset([*first, second[0]]))
    assert list(again) == [*second, *third]
    assert again == {id: answers(answerer)[id] for id in again}


# Decoding.


def test_the_presets_are_complete_and_an_unknown_one_is_refused_with_a_suggestion() -> None:
    assert DECODINGS["plain"] == Decoding(temperature=1.0, top_p=1.0, top_k=0, no_repeat_ngram=0, max_new_tokens=256)
    assert DECODINGS["paper"] == Decoding(no_repeat_ngram=6)
    with pytest.raises(UnknownName, match="Did you mean 'paper'"):
        DECODINGS["papr"]


def test_greedy_answers_ignore_the_seed_and_the_paper_preset_repeats_no_six_tokens(subject: Subject) -> None:
    answerer = answerer_of(subject)
    greedy = Decoding(temperature=0.0, max_new_tokens=25)
    first, other = answers(answerer, decoding=greedy), answers(answerer, seed=20, decoding=greedy)
    assert [row.tokens for row in first.values()] == [row.tokens for row in other.values()]
    banned = answers(answerer, decoding=Decoding(temperature=0.0, no_repeat_ngram=6, max_new_tokens=25))
    for example in EXAMPLES:
        row = [*subject.encoder.prompt(example), *banned[example.id].tokens]
        ngrams = [tuple(row[i : i + 6]) for i in range(len(row) - 5)]
        own = ngrams[max(0, len(subject.encoder.prompt(example)) - 5) :]
        assert all(ngrams.count(ngram) == 1 for ngram in own)


# The file.


def test_a_new_file_begins_with_its_header_and_a_second_reader_finds_the_rows(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "deep" / "a.jsonl", header=HEADER)
    assert file.existing() == []
    file.append([answer_row("a", "Oui"), answer_row("b", "Non")])
    assert json.loads(file.path.read_text().splitlines()[0]) == HEADER
    assert [row["id"] for row in AnswerFile(file.path, header=HEADER).existing()] == ["a", "b"]


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b\x1c\x0b", "a\nb\r\nc\r", "é€🙂\ufffd", '"\\', ""])
def test_any_text_comes_back_as_it_was_drawn(tmp_path: Path, text: str) -> None:
    file = AnswerFile(tmp_path / "a.jsonl", header=HEADER)
    file.existing()
    file.append([answer_row("a", text), answer_row("b", "next")])
    assert [row["text"] for row in file.existing()] == [text, "next"]


def test_a_half_written_last_line_is_dropped_wherever_it_was_cut(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "a.jsonl", header=HEADER)
    file.existing()
    file.append([answer_row("a", "é"), answer_row("b", "é€🙂")])
    whole = file.path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole)):
        file.path.write_bytes(whole[:end])
        assert [row["id"] for row in file.existing()] == ["a"]
        assert file.path.read_bytes() == whole[:start]


def test_a_broken_row_within_the_file_is_told_with_its_line_and_left_as_it_is(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "a.jsonl", header=HEADER)
    file.existing()
    file.append([answer_row("a", "Oui"), answer_row("b", "Non")])
    lines = file.path.read_bytes().split(b"\n")
    broken = b"\n".join([lines[0], lines[1][:30], *lines[2:]])
    file.path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=r"a\.jsonl line 2 cannot be read: .*\n  remove that file"):
        file.existing()
    assert file.path.read_bytes() == broken


def test_a_kill_while_the_header_is_written_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text in ("", json.dumps(HEADER)[:7]):
        path.write_text(text)
        assert AnswerFile(path, header=HEADER).existing() == []
        assert path.read_text() == json.dumps(HEADER) + "\n"


@pytest.mark.parametrize("first", ['{"model": "other", "seed": 10}', "[]", "no JSON at all", '{"model": "m"}'])
def test_a_file_with_another_header_is_refused_and_left_as_it_is(tmp_path: Path, first: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{first}\n{{"id": "a"}}\nhalf')
    with pytest.raises(CheckpointError, match="Choose another --out"):
        AnswerFile(path, header=HEADER).existing()
    assert path.read_text() == f'{first}\n{{"id": "a"}}\nhalf'


def test_an_evaluation_killed_anywhere_ends_with_the_rows_of_one_that_was_not(subject: Subject, tmp_path: Path) -> None:
    expected, rows = evaluated(subject, tmp_path / "whole")
    lines = expected.splitlines(keepends=True)
    # In the header; after it; within the first batch, between rows and in one; between batches; in the last row.
    places = [
        5,
        len(lines[0]),
        *(sum(map(len, lines[:n])) + extra for n, extra in ((2, 0), (3, 9), (13, 0), (20, 20), (26, 20))),
    ]
    for place in places:
        out = tmp_path / f"killed-{place}"
        out.mkdir()
        answer_path(out, "toy", 10).write_bytes(expected[:place])
        assert evaluated(subject, out) == (expected, rows), f"killed after {place} bytes"


SEEDS = (10, 30, 20)


def several(subject: Subject, out: Path, seeds: Sequence[int] = SEEDS) -> tuple[dict[int, bytes], list]:
    rows = evaluate_examples(subject, EXAMPLES, corpus="toy", decoding=SHORT, seeds=seeds, out=out)
    return {seed: answer_path(out, "toy", seed).read_bytes() for seed in seeds}, rows


def test_seeds_that_are_drawn_together_have_the_answers_that_each_has_alone(subject: Subject, tmp_path: Path) -> None:
    files, _ = several(subject, tmp_path)
    for seed, content in files.items():
        header, *rows = map(json.loads, content.decode().splitlines())
        assert header["drawn_together"] == [10, 20, 30]
        alone = answers(answerer_of(subject), seed=seed)
        assert {row["id"]: tuple(row["tokens"]) for row in rows} == {id: row.tokens for id, row in alone.items()}
        assert all(row["seed"] == seed for row in rows)


def test_several_seeds_killed_anywhere_end_as_if_they_had_not_been(subject: Subject, tmp_path: Path) -> None:
    expected, rows = several(subject, tmp_path / "whole")
    # A batch holds four prompts three times: 26 prompts in seven batches.
    ends = {seed: [place for place, byte in enumerate(files) if byte == 10] for seed, files in expected.items()}
    # (rows of seed 10, of seed 20, of seed 30): a kill between the files, in a row, in a batch; a file that was lost.
    for kept in ((8, 4, 4), (8, 8, 4), (5, 4, 4), (26, 26, 25), (4, 0, 0), (26, 26, None), (26, 0, 26)):
        out = tmp_path / f"killed-{kept}"
        out.mkdir()
        for seed, count in zip((10, 20, 30), kept, strict=True):
            if count is not None:
                half = 7 if count < 26 else 0
                answer_path(out, "toy", seed).write_bytes(expected[seed][: ends[seed][count] + 1 + half])
        assert several(subject, out) == (expected, rows), f"killed with {kept} rows"


def test_a_row_that_was_taken_out_of_one_file_is_drawn_again(subject: Subject, tmp_path: Path) -> None:
    expected, rows = several(subject, tmp_path)
    path = answer_path(tmp_path, "toy", 20)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert several(subject, tmp_path) == (expected, rows)


def test_seeds_that_come_later_leave_the_earlier_ones_as_they_are(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = several(subject, tmp_path, [10])
    both, _ = several(subject, tmp_path, [20, 10, 30])
    assert both[10] == first[10]
    assert json.loads(both[20].splitlines()[0])["drawn_together"] == [20, 30]
    monkeypatch.setattr(CausalDecoder, "next_logp", None)
    found, rows = several(subject, tmp_path, [30, 10])
    assert found == {30: both[30], 10: both[10]}
    assert {row["seed"] for row in rows if row["measure"] == "answers"} == {10, 30}


def test_a_finished_evaluation_draws_nothing_again(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluated(subject, tmp_path)
    monkeypatch.setattr(CausalDecoder, "next_logp", None)
    assert evaluated(subject, tmp_path) == expected


def test_rows_of_other_examples_are_not_taken_for_answers_to_these(subject: Subject, tmp_path: Path) -> None:
    evaluated(subject, tmp_path)
    with pytest.raises(CheckpointError, match="Choose another --out"):
        evaluated(subject, tmp_path, toy_examples(7, seed=1))
