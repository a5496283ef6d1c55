"""How plain text, and a study of injected errors, can go wrong in silence; see `wounds.py`."""

from __future__ import annotations

from mutants import text_invariants as invariants
from mutants.wounds import Mutant

TEXT = 16
_BATCHING = "limbeck.training.batching"
_DETECTING = "limbeck.studies.detecting"

MUTANTS = (
    Mutant(
        TEXT,
        "the term on plain text is taken on the method's rows too",
        f"{_BATCHING}:micro_batches",
        "frozenset(session.distiller.objective.row_names)",
        "frozenset(session.distiller.objective.names)",
        invariants.plain_text_has_a_mean_of_its_own,
    ),
    Mutant(
        TEXT,
        "plain text is one more reference",
        f"{_BATCHING}:micro_batches",
        "term=PLAIN_TEXT, size=size)",
        'term="supervised", size=size)',
        invariants.plain_text_has_a_mean_of_its_own,
    ),
    Mutant(
        TEXT,
        "every step reads the same texts",
        f"{_BATCHING}:text_items",
        "(step - 1) * rows",
        "0",
        invariants.every_step_reads_texts_of_its_own,
    ),
    Mutant(
        TEXT,
        "every rank reads the texts of the first",
        f"{_BATCHING}:text_items",
        "[session.world.rank :: session.world.size]",
        "[:: session.world.size]",
        invariants.every_step_reads_texts_of_its_own,
    ),
    Mutant(
        TEXT,
        "text beside a step without a response is enough",
        "limbeck.losses.objective:Objective.weights",
        "self.terms.keys() & set(self.row_names)",
        "self.terms",
        invariants.plain_text_does_not_hide_that_there_is_nothing_to_learn,
    ),
    Mutant(
        TEXT,
        "any token of an error is a right guess",
        f"{_DETECTING}:_verdict",
        '"right": first == place,',
        '"right": first is not None and place <= first < end,',
        invariants.a_hit_is_a_hit_of_the_first_wrong_token,
    ),
    Mutant(
        TEXT,
        "the place of an error is counted from the prompt",
        f"{_DETECTING}:_places",
        " - len(case.clean.prompt)",
        "",
        invariants.a_hit_is_a_hit_of_the_first_wrong_token,
    ),
    Mutant(
        TEXT,
        "an error begins one token late",
        "limbeck.studies.injecting:changed_tokens",
        "return place, len(changed) - kept",
        "return place + 1, len(changed) - kept",
        invariants.a_hit_is_a_hit_of_the_first_wrong_token,
    ),
)
