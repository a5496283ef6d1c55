"""A collection of rollouts: gathered from all ranks, given its advantages, and learned from a portion at a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from limbeck.losses.policy_gradient import ExperiencedTerm
from limbeck.sequences.source import Collecting
from limbeck.training.session import Session
from limbeck.training.world import World
from limbeck.types import Sequences, joined


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The rows of all ranks, those of them that this rank learns from in this step, and the step's field of metrics."""

    whole: Sequences
    portion: Sequences
    row: dict[str, Any]


def collected(session: Session, drawn: Sequences, *, step: int) -> Collection | None:
    """This step's part of its collection, new where rows were drawn; None for a source that keeps no collection.

    Every rank must call it, outside `decoding`, and then holds the whole collection: which rows a step learns from, and
    what the advantages are relative to, does not depend on the ranks. A new collection gets its advantages once, with
    the weights that it was drawn at; what an inner step finds is that, and nothing is drawn or read again.
    """
    source = session.source
    if not isinstance(source, Collecting):
        return None
    batch_rows = session.recipe.train.batch_rows
    is_new = source.prompts(step, batch_rows=batch_rows, seeds=session.seeds) > 0
    found = _of_all_ranks(session.world, drawn, pad_id=session.rollouts.pad_id) if is_new else source.collection()
    assert found is not None, "a collection is kept from its first step on"
    term = session.distiller.objective.terms.get("token")
    row: dict[str, Any] = {"rows": len(found), "is_new": is_new}
    if is_new and isinstance(term, ExperiencedTerm) and found.experience is not None:
        lengths = found.scored.sum(dim=1)
        row |= term.summary(found.experience, row_lengths=lengths)
        found = replace(found, experience=term.prepared(found.experience, row_lengths=lengths))
    chosen = source.portion(step, batch_rows=batch_rows, seeds=session.seeds)
    own: Sequence[int] = chosen[session.world.rank :: session.world.size]
    return Collection(whole=found, portion=found.rows(own), row=row)


def _of_all_ranks(world: World, drawn: Sequences, *, pad_id: int) -> Sequences:
    """The rows in the order of the loader, which deals them to the ranks one by one."""
    if world.size == 1:
        return drawn
    by_rank = world.gather([[drawn.rows([row]) for row in range(len(drawn))]])
    count = sum(map(len, by_rank))
    return joined([by_rank[row % world.size][row // world.size] for row in range(count)], pad_id=pad_id)
