"""The suite notices each of the field's old wounds: put back into the code, an invariant fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mutants import (
    clip_invariants,
    clip_wounds,
    invariants,
    mgsr_invariants,
    mgsr_wounds,
    minillm_invariants,
    minillm_wounds,
    source_invariants,
    source_wounds,
    structure_invariants,
    structure_wounds,
    text_invariants,
    text_wounds,
    turns_invariants,
    turns_wounds,
    watch_invariants,
    watch_wounds,
    wounds,
)
from mutants.wounds import Mutant

ROWS = {
    1: "shift",
    2: "mask",
    3: "denominator",
    structure_wounds.COPY: "copy",
    5: "text",
    structure_wounds.KNOB: "knob",
    7: "nothing",
    structure_wounds.FLAG: "flag",
    structure_wounds.AVERAGE: "average",
    mgsr_wounds.MGSR: "mgsr",
    clip_wounds.CLIP: "clip",
    minillm_wounds.MINILLM: "minillm",
    source_wounds.SOURCES: "sources",
    watch_wounds.WATCH: "watch",
    text_wounds.TEXT: "plain text and injected errors",
    turns_wounds.TURNS: "turns",
}
CHECKS = (
    *invariants.CHECKS,
    *mgsr_invariants.CHECKS,
    *clip_invariants.CHECKS,
    *minillm_invariants.CHECKS,
    *source_invariants.CHECKS,
    *structure_invariants.CHECKS,
    *watch_invariants.CHECKS,
    *text_invariants.CHECKS,
    *turns_invariants.CHECKS,
)
MUTANTS = (
    *wounds.MUTANTS,
    *mgsr_wounds.MUTANTS,
    *clip_wounds.MUTANTS,
    *minillm_wounds.MUTANTS,
    *source_wounds.MUTANTS,
    *structure_wounds.MUTANTS,
    *watch_wounds.MUTANTS,
    *text_wounds.MUTANTS,
    *turns_wounds.MUTANTS,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_invariant_holds(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{ROWS[mutant.row]}: {mutant.name}")
def test_the_mutant_is_killed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.introduce(monkeypatch)
    with pytest.raises(AssertionError):
        mutant.killed_by()


def test_every_invariant_kills_something_and_every_row_has_mutants() -> None:
    assert {mutant.killed_by for mutant in MUTANTS} == set(CHECKS)
    assert {mutant.row for mutant in MUTANTS} == set(ROWS)


def test_a_mutant_that_no_longer_fits_the_source_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Mutant(1, "stale", "limbeck.models.scoring:predicting_states", "gone", "", CHECKS[0])
    with pytest.raises(AssertionError, match="stands 0 times"):
        stale.introduce(monkeypatch)
