"""What of a training row counts: the rationale with its end, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from limbeck.blackbox.items import Item
from limbeck.blackbox.mixing import training_rows
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.scratch import save_scratch
from limbeck.blackbox.sections import ScratchSection
from limbeck.blackbox.students import Reader, example_of
from limbeck.models.scoring import scored_tokens
from limbeck.types import pack_rows
from undo_kit import undo_values

ITEM = Item(id="1", question="6 times 7?", gold="42", kind="numeric")
TEXT = "6 * 7 = 42\n#### 42"


def reader(folder: Path) -> Reader:
    student = {"scratch": None, "model": str(folder / "student"), "max_prompt": 24, "max_new_tokens": 40}
    section = ScratchSection(width=16, layers=1, heads=2, positions=96, vocabulary=300)
    save_scratch(folder / "student", section, [ITEM.question, TEXT])
    return Reader.of(UndoRecipe.load(undo_values(folder, student=student)), str(folder / "student"))


def test_the_loss_is_over_the_rationale_and_its_end_and_no_token_of_the_question(tmp_path: Path) -> None:
    reads = reader(tmp_path)
    tokenizer = reads.encoder.tokenizer
    row = reads.encoder.row(example_of(ITEM), response=TEXT)
    assert row is not None
    batch = pack_rows([row.tokens], [row.is_response], origin=["reference"], keys=[("1",)], pad_id=0)
    learned = scored_tokens(batch).tokens.tolist()
    assert tokenizer.decode(learned) == f"{TEXT}<end>"
    asked = list(row.tokens[: len(row.tokens) - len(learned)])
    assert ITEM.question in tokenizer.decode(asked)
    assert not any(row.is_response[: len(asked)])
    count = reads.length(ITEM, TEXT)
    assert (count, reads.prompt_length(ITEM)) == (len(learned), len(asked))


def test_a_rationale_that_does_not_fit_whole_is_refused(tmp_path: Path) -> None:
    reads = reader(tmp_path)
    most = next(n for n in range(1, 99) if reads.length(ITEM, "7 " * n + TEXT) is None)
    assert reads.length(ITEM, "7 " * (most - 1) + TEXT) <= 40  # type: ignore[operator]
    assert reads.length(ITEM, "7 " * 300 + TEXT) is None


def test_equal_rows_are_learned_from_once() -> None:
    row = {"id": "a" * 12, "item_id": "1", "text": TEXT, "num_tokens": 9}
    made = training_rows(
        [(row, "new"), ({**row, "id": "b" * 12}, "carried")], [row], {"1": ITEM}, prompt_tokens={"1": 5}
    )
    assert [(each["prompt"], each["completion"], each["kind"]) for each in made] == [(ITEM.asked(), TEXT, "new")]
