"""Runs that learn from what the teacher wrote: once, shared, resumed, and by a teacher of another vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.data.templates import ChatTemplate
from limbeck.data.tokenizing import Encoder
from limbeck.errors import VocabularyMismatch
from limbeck.sequences import answering
from limbeck.sequences.answer_cache import AnswerCache
from limbeck.testing import byte_tokenizer, save_tiny, tiny_model
from limbeck.training import sourcing
from limbeck.training.session import Session
from limbeck.types import Sequences
from training_kit import Killed, Models, assert_same_run, metrics, opened, recipe, start, start_and_kill, tensors


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of its own for each test."""
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "teacher-written"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher whose tokenizer has every byte at another id, and no chat template."""
    tokenizer = _turned_round()
    return str(save_tiny(tmp_path_factory.mktemp("stranger"), seed=4, tokenizer=tokenizer))


def _turned_round() -> Any:
    tokenizer = byte_tokenizer(chat=False)
    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = plain["model"]["vocab"]
    plain["model"]["vocab"] = {token: (255 - id if id < 256 else id) for token, id in vocabulary.items()}
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def _answers(folder: Path) -> dict[str, dict[str, Any]]:
    (file,) = folder.glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    assert len({row["prompt"] for row in rows}) == len(rows)
    return {row["prompt"]: row for row in rows}


def _drawn(session: Session, steps: int = 4) -> Iterator[tuple[Any, Sequences, int]]:
    """Each row of the first steps: its item, the rows drawn with it, and its place among them."""
    for step in range(1, steps + 1):
        items = session.loader.take(6 * (step - 1), 6)
        drawn = session.source.draw(items, rollouts=session.rollouts, step=step)
        for place, (_, item) in enumerate(items):
            yield item, drawn, place


def test_what_is_learned_are_the_answers_in_the_cache_and_no_references(
    models: Models, cache: Path, tmp_path: Path
) -> None:
    session = opened(recipe(models, "seqkd"), tmp_path / "run")
    answers = _answers(cache)
    assert len(answers) == session.loader.rows_per_epoch
    assert session.teacher is None
    for item, drawn, place in _drawn(session):
        length = int(drawn.lengths[place])
        response = drawn.tokens[place, len(item.prompt) : length].tolist()
        found = answers[_hash(item.prompt)]
        assert (drawn.origin[place], response) == ("teacher", found["tokens"])
        assert drawn.is_response[place, :length].tolist() == [False] * len(item.prompt) + [True] * len(response)
        assert 1 <= len(response) <= 5
        assert found["stopped"] == (response[-1] in (258, 260))
        assert found["text"] == session.encoder.decode(response)


def _hash(prompt: tuple[int, ...]) -> str:
    return answering.prompt_hash(prompt)


def test_a_second_run_writes_nothing_and_another_seed_reads_the_same_answers(
    models: Models, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(recipe(models, "seqkd", train={"steps": 2}), tmp_path / "one")
    (file,) = cache.glob("*.jsonl")
    said = capsys.readouterr().err
    assert "the teacher's answers: 0 of 12" in said
    assert "12 of 12 written" in said
    before = file.read_bytes()
    start(recipe(models, "seqkd", train={"steps": 2}), tmp_path / "two")
    assert file.read_bytes() == before
    assert "12 of 12 are in" in capsys.readouterr().err
    assert_same_run(tmp_path / "one", tmp_path / "two")
    first = _answers(cache)
    # Other rows are read first; what was there stays, and what it asked more is added.
    start(recipe(models, "seqkd", train={"seed": 1}), tmp_path / "three")
    assert first.items() <= _answers(cache).items()


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.0}, {"top_p": 0.5}, {"top_k": 3}],
    ids=str,
)
def test_another_way_of_asking_has_answers_of_its_own(
    change: dict[str, Any], models: Models, cache: Path, tmp_path: Path
) -> None:
    for number, sequences in enumerate(({}, change)):
        opened(recipe(models, "seqkd", method={"base": "seqkd", "sequences": sequences}), tmp_path / str(number))
    assert len(list(cache.glob("*.jsonl"))) == 2


def test_a_cache_of_ones_own(models: Models, cache: Path, tmp_path: Path) -> None:
    method = {"base": "seqkd", "sequences": {"cache": str(tmp_path / "shared")}}
    opened(recipe(models, "seqkd", method=method), tmp_path / "run")
    assert not cache.exists()
    assert _answers(tmp_path / "shared")


@pytest.mark.parametrize("call", [1, 2])
def test_killed_while_writing_the_same_answers_are_written(
    call: int, models: Models, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(models, "seqkd", train={"batch_rows": 4, "micro_rows": 1})
    start(settings, tmp_path / "whole")
    whole = _answers(cache)
    assert len(whole) > 16
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "again"))
    add, calls = AnswerCache.add, iter(range(1, 99))

    def cut_short(self: AnswerCache, answers: Any) -> Any:
        if next(calls) != call:
            return add(self, answers)
        add(self, answers)
        with self.path.open("r+b") as file:
            file.truncate(self.path.stat().st_size - 40)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerCache, "add", cut_short)
        with pytest.raises(Killed):
            start(settings, tmp_path / "killed")
    assert not (tmp_path / "killed").exists()
    start(settings, tmp_path / "killed")
    assert _answers(tmp_path / "again" / "teacher-written") == whole
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_killed_while_training_and_resumed_is_never_killed(models: Models, tmp_path: Path) -> None:
    sequences = {"kind": "mixture", "share": 0.5, "second": {"kind": "teacher"}}
    settings = recipe(models, "gkd", method={"base": "gkd", "sequences": sequences, "weights": {"supervised": 1}})
    start(settings, tmp_path / "whole")
    start_and_kill(settings, tmp_path / "killed", call=5)
    start(settings, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    origins = {tuple(row["origin"]) for row in metrics(tmp_path / "whole") if row["kind"] == "step"}
    assert origins == {("student",), ("teacher",)}


def test_a_teacher_of_another_vocabulary_writes_text_and_is_matched_by_no_method(
    models: Models, stranger: str, cache: Path, tmp_path: Path
) -> None:
    named = {"models": {"teacher": stranger}}
    for base in ("kd", "seqkd:kl"):
        with pytest.raises(VocabularyMismatch, match="seqkd"):
            opened(recipe(models, base, **named), tmp_path / "refused")
    session = opened(recipe(models, "seqkd", **named), tmp_path / "run")
    answers = _answers(cache)
    (file,) = cache.glob("*.jsonl")
    assert json.loads(file.read_text().splitlines()[0])["template"] == "the teacher's own: paper"
    texts = {row["text"] for row in answers.values()}
    teacher = _turned_round()
    for row in answers.values():
        ids = row["tokens"][:-1] if row["stopped"] else row["tokens"]
        assert teacher.decode(ids, skip_special_tokens=True).strip() == row["text"]
    for item, drawn, place in _drawn(session):
        length = int(drawn.lengths[place])
        response = drawn.tokens[place, len(item.prompt) : length].tolist()
        assert drawn.tokens[place, : len(item.prompt)].tolist() == list(item.prompt)
        assert session.encoder.decode(response) in texts
        found = [row for row in answers.values() if row["text"] == session.encoder.decode(response)]
        assert {row["stopped"] for row in found} == {bool(response) and response[-1] == session.encoder.end_id}
    run = start(recipe(models, "seqkd", **named), tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in tensors(run.directory).values())


def test_a_teacher_of_another_vocabulary_is_asked_in_its_own_template(
    models: Models, stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    whole = sourcing._OwnTokens.prompt

    def noted(self: Any, row: Any) -> tuple[int, ...]:
        asked.append((self.teacher.tokenizer.decode(whole(self, row)), row.prompt))
        return whole(self, row)

    monkeypatch.setattr(sourcing._OwnTokens, "prompt", noted)
    session = opened(recipe(models, "seqkd", models={"teacher": stranger}), tmp_path / "run")
    assert asked
    for text, prompt in asked:
        said = session.encoder.decode(prompt).split("u:")[-1].split("a:")[0]
        assert "### Instruction:" in text
        assert said in text


@pytest.mark.parametrize(("stopped", "text", "tokens"), [(True, "", [260]), (False, "ab", [97, 98]), (False, "", [])])
def test_an_empty_answer_teaches_its_end_and_a_cut_one_does_not(
    stopped: bool, text: str, tokens: list[int], models: Models, tmp_path: Path
) -> None:
    session = opened(recipe(models, "sft"), tmp_path / "run")
    (_, item), *_ = session.loader.take(0, 1)
    encoder = Encoder(session.encoder.tokenizer, session.encoder.template, max_prompt=48, max_length=64)
    (example,) = [each for each in _examples() if encoder.prompt(each) == item.prompt]
    own = sourcing._OwnTokens(teacher=encoder, student=encoder, asked={item.prompt: example})
    shared = sourcing._SharedTokens(encoder)
    answer = answering.Answer(prompt="", text=text, tokens=tuple(tokens), stopped=stopped)
    for reading in (own, shared):
        row = reading.learned(item, answer)
        assert row.tokens == (*item.prompt, *tokens)
        assert row.is_response == (*[False] * len(item.prompt), *[True] * len(tokens))
        assert row.cut is not stopped


def test_a_thought_that_the_teachers_own_template_begins_is_learned_whole() -> None:
    thinking, plain = byte_tokenizer(), byte_tokenizer()
    thinking.chat_template = f"{plain.chat_template}{{% if add_generation_prompt %}}<think>\n{{% endif %}}"
    (example, *_) = _examples()
    teacher, silent = (Encoder(each, ChatTemplate(each)) for each in (thinking, plain))
    answer = answering.Answer(prompt="", text="hm</think>la", tokens=(), stopped=True)
    for student, learned in ((silent, "<think>\nhm</think>la"), (teacher, "hm</think>la")):
        item = student.row(example)
        assert item is not None
        row = sourcing._OwnTokens(teacher=teacher, student=student, asked={item.prompt: example}).learned(item, answer)
        assert student.decode(row.tokens[len(item.prompt) :]) == learned


def _examples() -> Any:
    from limbeck.data.examples import from_rows
    from training_kit import ROWS

    return from_rows(ROWS, columns={}, corpus="rows", source="rows").examples


def test_a_teacher_of_a_shorter_context_is_not_driven_past_it(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tmp_path / "short"
    tiny_model("gpt2", positions=40, seed=5).save_pretrained(teacher)
    byte_tokenizer().save_pretrained(teacher)
    written: list[int] = []
    whole = answering._drawn

    def followed(group: Any, tokens_of: Any, **settings: Any) -> Any:
        answers = whole(group, tokens_of, **settings)
        written.extend(len(tokens_of[each.prompt]) + len(each.tokens) for each in answers)
        return answers

    monkeypatch.setattr(answering, "_drawn", followed)
    settings = recipe(models, "seqkd", models={"teacher": str(teacher)}, sampling={"max_new_tokens": 60})
    run = start(settings, tmp_path / "run")
    assert len(metrics(run.directory)) == 8
    assert max(written) == 40
