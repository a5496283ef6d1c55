"""Rows that a teacher and a student both read: every token of them must mean the same to both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from limbeck.data.tokenizing import Encoder
from limbeck.errors import VocabularyMismatch
from limbeck.models.pair import Vocabulary
from limbeck.records import EncodedRow


def check_shared(vocabulary: Vocabulary, encoder: Encoder, rows: Iterable[EncodedRow]) -> None:
    """Raise `VocabularyMismatch` for a token that a model has no column for, and for one to be learned that is not
    shared: the token that ends every response, or one of a row.

    A prompt may hold a token that only the student's tokenizer names, where the teacher has a column for it.
    """
    # The rows are the student's own encoding: what is not shared is what the tokenizers or widths differ in.
    strange = {id for id, _ in vocabulary.dropped}
    if not strange:
        return
    if encoder.end_id in strange:
        _refuse(vocabulary, encoder, encoder.end_id, place="every response ends with")
    width = vocabulary.size + min(len(vocabulary.dropped_teacher), len(vocabulary.dropped_student))
    for row in rows:
        if strange.isdisjoint(row.tokens):
            continue
        for id, is_response in zip(row.tokens, row.is_response, strict=True):
            if id in strange and (is_response or id >= width):
                part = "response" if is_response else "prompt"
                _refuse(vocabulary, encoder, id, place=f"the {part} of row '{row.id}' holds")


def _refuse(vocabulary: Vocabulary, encoder: Encoder, id: int, *, place: str) -> NoReturn:
    token = encoder.tokenizer.convert_ids_to_tokens(id)
    student, teacher = (
        vocabulary.size + len(each) for each in (vocabulary.dropped_student, vocabulary.dropped_teacher)
    )
    said = f"{place} {token!r} (id {id})"
    if id >= student:
        raise VocabularyMismatch(
            f"{said}, but the student has columns for {student} tokens only.\n"
            "  Take the tokenizer that belongs to the student, or resize the student's embeddings"
        )
    why = f"has columns for {teacher} tokens only" if id >= teacher else "does not have that token there"
    raise VocabularyMismatch(
        f"{said}, but the teacher {why}.\n"
        "  The teacher reads the student's tokens, and distributions are compared id by id. Give the student the"
        " teacher's\n  tokenizer and chat template, set data.template=paper if only the template brings the token, or"
        " take a text\n  method: seqkd; evaluate without a teacher"
    )
