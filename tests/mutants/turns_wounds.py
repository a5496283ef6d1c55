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
    Mutant(
        TURNS,
        "copies go on from the first prompt that was read",
        "limbeck.models.copies:PromptReader.next_logp",
        "[distinct.index(prompt) for prompt in prompts]",
        "[0 for _ in prompts]",
        invariants.an_answer_is_the_same_whoever_shares_its_prompt,
    ),
    Mutant(
        TURNS,
        "what is held of a prompt lacks its first token",
        "limbeck.models.copies:PromptReader._taken",
        "int(table.attended[-1].sum())",
        "int(table.attended[-1].sum()) - 1",
        invariants.an_answer_is_the_same_whoever_shares_its_prompt,
    ),
    Mutant(
        TURNS,
        "copies that come later are told what the first prompt of their forward was told",
        "limbeck.models.copies:PromptReader._taken",
        "logp_pV[-1].clone()",
        "logp_pV[0].clone()",
        invariants.an_answer_is_the_same_whoever_shares_its_prompt,
    ),
)
