"""How replay and teacher-written rows can be built wrong: one-line changes to the real functions; see `wounds.py`."""

from __future__ import annotations

from mutants import source_invariants as invariants
from mutants.wounds import Mutant

_REPLAYING = "limbeck.sequences.replay:Replaying"
SOURCES = 14

MUTANTS = (
    Mutant(
        SOURCES,
        "rows of the buffer are revised again",
        f"{_REPLAYING}._sampled",
        "origin=[REPLAYED] * len(own)",
        'origin=["student"] * len(own)',
        invariants.replayed_rows_are_not_revised_again,
    ),
    Mutant(
        SOURCES,
        "each rank tosses a coin of its own",
        f"{_REPLAYING}.turn",
        'seeds.child("coin", step)',
        'seeds.child("coin", step, self._ground.rank)',
        invariants.all_ranks_take_the_same_turn,
    ),
    Mutant(
        SOURCES,
        "the threshold moves at every look",
        f"{_REPLAYING}.observe",
        "elif self.component.schedule.rose(validation_loss, since=self._since):",
        "else:",
        invariants.only_a_rise_of_the_loss_moves_the_threshold,
    ),
    Mutant(
        SOURCES,
        "any rise moves the threshold",
        "limbeck.sequences.schedules:Adaptive.rose",
        "since + self.rise",
        "since",
        invariants.only_a_rise_of_the_loss_moves_the_threshold,
    ),
    Mutant(
        SOURCES,
        "a resumed buffer has no end",
        f"{_REPLAYING}.restore",
        "maxlen=self.component.capacity",
        "maxlen=None",
        invariants.the_oldest_rows_leave_the_buffer,
    ),
    Mutant(
        SOURCES,
        "a cut answer is learned as a whole one",
        "limbeck.training.sourcing:_OwnTokens.learned",
        "if answer.stopped or encoded.cut:",
        "if True:",
        invariants.a_cut_answer_teaches_no_end,
    ),
)
