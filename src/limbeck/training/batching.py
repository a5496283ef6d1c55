"""What a step learns from, in micro-batches: the method's rows, their references, and plain text beside them."""

from __future__ import annotations

from limbeck.data.loader import batch
from limbeck.losses.objective import PLAIN_TEXT, Batch
from limbeck.models.scoring import split_rows
from limbeck.sequences.replay import REPLAYED
from limbeck.sequences.source import Item
from limbeck.training.session import Session
from limbeck.training.swapping import of_other_rows, teaching_rows
from limbeck.types import Sequences


def micro_batches(
    session: Session, *, items: tuple[Item, ...], drawn: Sequences, texts: tuple[Item, ...] = ()
) -> list[Batch]:
    """The drawn rows in micro-batches with the terms taken on each; supervised rows beside them where they differ.

    Rows that are references carry the supervised term in the same forward; beside rows of another origin the
    same prompts' references make micro-batches of their own. Replayed rows were read in another step: the loader finds
    their references by their keys. Rows of plain text come last, with the term that is taken on them alone.
    """
    size = int(session.auto["micro_rows"])
    active = frozenset(session.distiller.objective.row_names)
    is_reference = all(origin == "reference" for origin in drawn.origin)
    own_terms = active if is_reference else active - {"supervised"}
    if int((drawn.scored.sum(dim=1) > 0).sum()) < 2:
        # No other row says anything: a row that taught itself would be taught by its own teacher.
        own_terms -= of_other_rows(session.distiller.objective)
    taught_by = teaching_rows(session.distiller.objective, drawn)
    batches = [
        Batch(sequences=part, terms=own_terms, pairs=session.pairs(part), taught_by=taught_by(group))
        for group, part in ((group, drawn.rows(group)) for group in split_rows(drawn, size))
    ]
    if "supervised" in active and not is_reference:
        if REPLAYED in drawn.origin:
            items = tuple(session.loader.named(key) for key in drawn.keys)
        batches += _alone(session.rollouts.reference(items), term="supervised", size=size)
    if texts:
        batches += _alone(batch(texts, pad_id=session.rollouts.pad_id), term=PLAIN_TEXT, size=size)
    return batches


def text_items(session: Session, step: int) -> tuple[Item, ...]:
    """This rank's rows of plain text of a step, as many as it has others; none for a method without that term.

    They are decided by seed, epoch and index among the texts, and by the step alone: nothing has to be remembered.
    """
    if session.texts is None:
        return ()
    rows = session.recipe.train.batch_rows
    taken = session.texts.take((step - 1) * rows, rows)[session.world.rank :: session.world.size]
    return tuple(((PLAIN_TEXT, *key), row) for key, row in taken)


def _alone(rows: Sequences, *, term: str, size: int) -> list[Batch]:
    return [Batch(sequences=rows.rows(group), terms=frozenset({term})) for group in split_rows(rows, size)]
