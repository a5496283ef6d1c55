"""Rows with a token that the teacher does not share: refused before the first step, or taken where nothing reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import VocabularyMismatch
from limbeck.testing import byte_tokenizer, save_tiny
from limbeck.testing.byte_level import CHAT_TEMPLATE
from training_kit import ROWS, Models, metrics, recipe, start

EXTRA = "<think>"


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Students with one more token than their teachers: one ends every turn with it, one only knows it."""
    folder = tmp_path_factory.mktemp("students")
    ending = byte_tokenizer(extra_tokens=[EXTRA])
    ending.chat_template = CHAT_TEMPLATE.replace("<end>", EXTRA)
    tokenizers = {"ending": ending, "knowing": byte_tokenizer(extra_tokens=[EXTRA])}
    return {
        name: str(save_tiny(folder / name, seed=2, vocab_size=272, tokenizer=tokenizer))
        for name, tokenizer in tokenizers.items()
    }


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Teachers without that token: with a column for each of their own tokens only, and with padding behind them."""
    folder = tmp_path_factory.mktemp("teachers")
    sizes = {"narrow": 261, "wide": 272}
    return {name: str(save_tiny(folder / name, seed=1, layers=3, vocab_size=size)) for name, size in sizes.items()}


def _settings(base: str, *, student: str, teacher: str | None, **sections: Any) -> dict[str, Any]:
    plain = recipe(Models(teacher="", student="", with_dropout=""), base, train={"steps": 2}, **sections)
    return {**plain, "models": {"student": student, "teacher": teacher, "device": "cpu"}}


def _with(prompt: str, completion: str) -> list[dict[str, str]]:
    """Eleven rows and one with these texts."""
    return [*ROWS[:11], {"prompt": prompt, "completion": completion}]


@pytest.mark.parametrize("base", ["kd", "gkd", "mgsr"])
@pytest.mark.parametrize(
    ("teacher", "why"),
    [("narrow", "the teacher has columns for 261 tokens only"), ("wide", "the teacher does not have that token there")],
)
def test_an_end_of_turn_that_the_teacher_does_not_know_is_refused_with_the_way_out(
    base: str, teacher: str, why: str, students: dict[str, str], teachers: dict[str, str], tmp_path: Path
) -> None:
    settings = _settings(base, student=students["ending"], teacher=teachers[teacher])
    with pytest.raises(VocabularyMismatch) as caught:
        start(settings, tmp_path / "run")
    said = str(caught.value)
    assert f"every response ends with '{EXTRA}' (id 261), but {why}" in said
    assert "data.template=paper" in said
    assert "seqkd" in said
    assert not (tmp_path / "run").exists()


def test_with_the_papers_layout_the_same_pair_is_trained(
    students: dict[str, str], teachers: dict[str, str], tmp_path: Path
) -> None:
    data = {"template": "paper", "max_prompt": 200, "max_length": 220}
    settings = _settings("gkd", student=students["ending"], teacher=teachers["narrow"], data=data)
    steps = [row for row in start(settings, tmp_path / "run").metrics() if row["kind"] == "step"]
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("row", "teacher", "place"),
    [
        ((f"say {EXTRA}", "no"), "narrow", "the prompt of row 'rows-12'"),
        (("say no", f"no {EXTRA}"), "narrow", "the response of row 'rows-12'"),
        (("say no", f"no {EXTRA}"), "wide", "the response of row 'rows-12'"),
    ],
)
def test_a_row_with_a_token_that_the_teacher_cannot_read_is_named(
    row: tuple[str, str], teacher: str, place: str, students: dict[str, str], teachers: dict[str, str], tmp_path: Path
) -> None:
    settings = _settings("kd", student=students["knowing"], teacher=teachers[teacher], validate={"every": None})
    with pytest.raises(VocabularyMismatch, match=rf"{place} holds '{EXTRA}' \(id 261\)"):
        start(settings, tmp_path / "run", rows=_with(*row))


def test_a_validation_row_is_looked_at_too(students: dict[str, str], teachers: dict[str, str], tmp_path: Path) -> None:
    valid = tmp_path / "valid.jsonl"
    valid.write_text(json.dumps({"prompt": "say it", "completion": EXTRA}) + "\n")
    data = {"max_prompt": 48, "max_length": 64, "valid": str(valid)}
    settings = _settings("gkd", student=students["knowing"], teacher=teachers["wide"], data=data)
    with pytest.raises(VocabularyMismatch, match="the response of row 'valid-1'"):
        start(settings, tmp_path / "run")


def test_plain_text_is_looked_at_too(students: dict[str, str], teachers: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(f"some {EXTRA} text")
    data = {"max_prompt": 48, "max_length": 64, "plain_text": str(text)}
    method = {"weights": {"plain_text": 1.0}}
    settings = _settings("kd", student=students["knowing"], teacher=teachers["wide"], data=data, method=method)
    with pytest.raises(VocabularyMismatch, match="the response of row 'plain-0'"):
        start(settings, tmp_path / "run")


def test_a_prompt_may_hold_a_token_that_the_teacher_has_a_column_for(
    students: dict[str, str], teachers: dict[str, str], tmp_path: Path
) -> None:
    settings = _settings("kd", student=students["knowing"], teacher=teachers["wide"], validate={"every": None})
    run = start(settings, tmp_path / "run", rows=_with(f"say {EXTRA}", "no"))
    assert len(metrics(run.directory)) == 2


def test_without_a_teacher_every_token_of_the_student_is_learned(students: dict[str, str], tmp_path: Path) -> None:
    settings = _settings("sft", student=students["ending"], teacher=None)
    run = start(settings, tmp_path / "run", rows=_with(f"{EXTRA}?", EXTRA))
    assert [row["kind"] for row in run.metrics()] == ["step", "step", "validation"]


def test_a_teacher_that_only_writes_text_needs_none_of_the_students_tokens(
    students: dict[str, str], teachers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    settings = _settings("seqkd", student=students["ending"], teacher=teachers["narrow"])
    steps = [row for row in start(settings, tmp_path / "run").metrics() if row["kind"] == "step"]
    assert len(steps) == 2


def test_a_student_without_a_column_for_a_token_of_its_own_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra_tokens=[EXTRA])
    student = str(save_tiny(tmp_path / "student", vocab_size=261, tokenizer=tokenizer))
    settings = _settings("sft", student=student, teacher=None)
    with pytest.raises(VocabularyMismatch, match="the student has columns for 261 tokens only"):
        start(settings, tmp_path / "run", rows=_with(f"say {EXTRA}", "no"))
