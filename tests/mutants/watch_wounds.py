"""How the rules that watch a run can cry wolf, or sleep: one-line changes to the real functions; see `wounds.py`."""

from __future__ import annotations

from mutants import watch_invariants as invariants
from mutants.wounds import Mutant

WATCH = 15
_WATCH = "limbeck.training.watch"
_READ = "limbeck.training.readings"

MUTANTS = (
    Mutant(
        WATCH,
        "a rule judges before its window is full",
        f"{_WATCH}:Readings.judged",
        "len(self.last) < signature.size(self.threshold)",
        "not self.last",
        invariants.a_rule_waits_for_its_window_and_one_wild_step_is_none,
    ),
    Mutant(
        WATCH,
        "the worst step of a window speaks for all",
        f"{_READ}:harm",
        "median(",
        "max(",
        invariants.a_rule_waits_for_its_window_and_one_wild_step_is_none,
    ),
    Mutant(
        WATCH,
        "old readings never leave the window",
        f"{_WATCH}:Readings.add",
        "if len(self.last) > size:",
        "if False:",
        invariants.a_rule_waits_for_its_window_and_one_wild_step_is_none,
    ),
    Mutant(
        WATCH,
        "a gain is taken for a harm",
        f"{_READ}:harm",
        'each["teacher_logp_before"] - each["teacher_logp_after"]',
        'abs(each["teacher_logp_before"] - each["teacher_logp_after"])',
        invariants.a_harm_is_a_loss_and_no_gain,
    ),
    Mutant(
        WATCH,
        "a sign is told at every step",
        f"{_WATCH}:Watch.look",
        "self._told |= {(sign.name, sign.threshold) for sign in signs}",
        "pass",
        invariants.a_sign_shows_once_and_a_resumed_watch_goes_on_as_the_one_before,
    ),
    Mutant(
        WATCH,
        "a resumed run tells its signs again",
        f"{_WATCH}:Watch.recall",
        'self._told.add((str(row["name"]), float(row["threshold"])))',
        "pass",
        invariants.a_sign_shows_once_and_a_resumed_watch_goes_on_as_the_one_before,
    ),
    Mutant(
        WATCH,
        "a resumed run has forgotten what it read",
        f"{_WATCH}:Watch.recall",
        "rule.add(row)",
        "pass",
        invariants.a_sign_shows_once_and_a_resumed_watch_goes_on_as_the_one_before,
    ),
    Mutant(
        WATCH,
        "a step on references is the neighbour of one on drawn rows",
        f"{_READ}:swing",
        '[[each for each in last if (each["reference"] > 0.5) is is_reference] for is_reference in (True, False)]',
        "[list(last)]",
        invariants.steps_on_references_and_on_drawn_rows_are_no_neighbours,
    ),
    Mutant(
        WATCH,
        "whatever becomes longer drifts",
        f"{_READ}:drift",
        "if here <= then:",
        "if False:",
        invariants.responses_that_come_nearer_to_the_references_do_not_drift,
    ),
    Mutant(
        WATCH,
        "only what becomes longer drifts",
        f"{_READ}:drift",
        "max(now / before, before / now)",
        "now / before",
        invariants.responses_that_come_nearer_to_the_references_do_not_drift,
    ),
    Mutant(
        WATCH,
        "only what is longer than the references is far from them",
        f"{_READ}:mismatch",
        "max(ratio, 1 / ratio)",
        "ratio",
        invariants.a_length_is_held_against_the_references_in_both_directions,
    ),
    Mutant(
        WATCH,
        "a NaN is read as a number",
        f"{_READ}:_is_number",
        " and math.isfinite(value)",
        "",
        invariants.what_is_no_number_is_passed_over,
    ),
    Mutant(
        WATCH,
        "the only term dominates itself",
        f"{_READ}:span_share",
        " and len(shares) > 1",
        "",
        invariants.a_term_by_itself_dominates_nothing,
    ),
    Mutant(
        WATCH,
        "one step without a span is none at all",
        f"{_READ}:nothing",
        "if all(each.get(name) == 0",
        "if any(each.get(name) == 0",
        invariants.a_term_that_counted_once_does_count,
    ),
)
