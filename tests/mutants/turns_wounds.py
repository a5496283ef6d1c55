"""How rows that take turns can be decoded wrong, as one-line changes to the real functions; see `wounds.py`."""

from __future__ import annotations

from mutants import turns_invariants as invariants
from mutants.wounds import Mutant

_TURNS = "limbeck.models.turns"
TURNS = 17

MUTANTS = (
    Mutant(
        TURNS,
        "rows that come in get the positions of those that sit there",
        f"{_TURNS}:seated_together",
        "torch.cat([table.positions for table in tables])",
        "torch.cat([table.positions for table in reversed(tables)])",
        invariants.whoever_sits_beside_a_row_its_tokens_are_its_own,
    ),
    Mutant(
        TURNS,
        "caches are put together at the left",
        f"{_TURNS}:_last_columns",
        "torch.cat([tensor.new_zeros(padding), tensor], dim=dim)",
        "torch.cat([tensor, tensor.new_zeros(padding)], dim=dim)",
        invariants.whoever_sits_beside_a_row_its_tokens_are_its_own,
    ),
    Mutant(
        TURNS,
        "columns are let go that the longest row needs",
        f"{_TURNS}:Table.past",
        "max()",
        "min()",
        invariants.whoever_sits_beside_a_row_its_tokens_are_its_own,
    ),
    Mutant(
        TURNS,
        "a row draws with the noise of its seat",
        "limbeck.models.extending:_Loop._draw",
        "[drawn.rows[i] for i in rows], places",
        "list(range(len(rows))), places",
        invariants.whoever_sits_beside_a_row_its_tokens_are_its_own,
    ),
    Mutant(
        TURNS,
        "the order of the seats is lost when one is left",
        "limbeck.models.extending:_Loop.step",
        "[table.rows[b] for b in kept]",
        "sorted(table.rows[b] for b in kept)",
        invariants.whoever_sits_beside_a_row_its_tokens_are_its_own,
    ),
)
