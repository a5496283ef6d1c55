"""How likely a student finds rationales: what UNDO's rounds are meant to raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.blackbox.items import Item
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.students import Reader, example_of, subject_of
from limbeck.evaluation.agreement import agreement_rows
from limbeck.models.extending import evaluating
from limbeck.types import pack_rows

_CHUNK = 1_024
_DIGITS = 5


def likelihood_rows(
    recipe: UndoRecipe, model: str, rationales: Sequence[Mapping[str, Any]], items: Mapping[str, Item]
) -> list[dict[str, Any]]:
    """How likely a student finds each rationale after its question, in the template that it is trained with.

        nll = −(1/T) Σ_t log p_θ(y_t | x, y_<t),  in nats a token, over the T response tokens with the end of turn

    The probabilities are over the tokens that the tokenizer has. One row each: `id` and `item_id` of the rationale,
    `nll`, `num_tokens`. What does not fit into the student whole is left out. Rounded to five digits.
    """
    if not rationales:
        return []
    encoder = Reader.of(recipe, model).encoder
    encoded = {}
    for row in rationales:
        tokens = encoder.row(example_of(items[row["item_id"]]), response=str(row["text"]))
        if tokens is not None and not tokens.cut:
            encoded[str(row["id"])] = tokens
    subject = subject_of(recipe, model)
    sequences = pack_rows(
        [each.tokens for each in encoded.values()],
        [each.is_response for each in encoded.values()],
        origin=["reference"] * len(encoded),
        keys=[(id,) for id in encoded],
        pad_id=subject.pair.pad_id,
    )
    found: dict[str, dict[str, Any]] = {}
    with evaluating(subject.student.model):
        for group in agreement_rows(
            sequences, student=subject.student, teacher=None, chunk=_CHUNK, group_rows=recipe.student.answer_rows
        ):
            found |= {row["id"]: row for row in group}
    return [
        {
            "id": row["id"],
            "item_id": row["item_id"],
            "nll": round(found[row["id"]]["scores"]["cross_entropy"], _DIGITS),
            "num_tokens": found[row["id"]]["num_tokens"],
        }
        for row in rationales
        if row["id"] in found
    ]
