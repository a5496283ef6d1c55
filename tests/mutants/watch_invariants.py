"""What must hold of the rules that watch a run, on rows written by hand; see `invariants.py`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from limbeck.training import readings, watch
from limbeck.training.signatures import SIGNATURES
from limbeck.training.watch import Sign, Watch

Row = dict[str, Any]
LIMITS = {"revision_harm": 0.1, "span_dominates": 0.8}


def sign_in(name: str, rows: Sequence[Row], *, threshold: float) -> Sign | None:
    """What the rule says, its functions looked up again by their names: the table holds those that were imported."""
    rule = SIGNATURES[name]
    again = {part: getattr(readings, getattr(rule, part).__name__) for part in ("read", "judge")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIGNATURES, name, dataclasses.replace(rule, **again))
        return watch.sign_in(name, rows, threshold=threshold)


def _steps(parts: Sequence[Row]) -> list[Row]:
    return [{"kind": "step", "step": place + 1, **part} for place, part in enumerate(parts)]


def _harm(*harms: float) -> list[Row]:
    return _steps([{"revision": {"teacher_logp_before": -3.0, "teacher_logp_after": -3.0 - harm}} for harm in harms])


def _lengths(*lengths: float) -> list[Row]:
    return _steps([{"own": {"tokens": each, "reference_tokens": 40.0, "at_limit": 0.0}} for each in lengths])


def _clip(*uppers: float, drawn: Sequence[bool]) -> list[Row]:
    rows = []
    for upper, is_drawn in zip(uppers, drawn, strict=True):
        measures = {"token/lower": 0.1, "token/upper": upper, "token/kept_mass": 0.5}
        rows.append({"measures": measures, "origin": {"revised" if is_drawn else "reference": 1.0}})
    return _steps(rows)


def a_rule_waits_for_its_window_and_one_wild_step_is_none() -> None:
    assert sign_in("revision-harm", _harm(*[0.5] * 8), threshold=0.1) is not None
    assert sign_in("revision-harm", _harm(*[0.5] * 7), threshold=0.1) is None
    assert sign_in("revision-harm", _harm(*[0.0] * 7, 90.0), threshold=0.1) is None
    assert sign_in("revision-harm", _harm(*[0.5] * 8, *[0.0] * 8), threshold=0.1) is None, "what is long past is past"


def a_harm_is_a_loss_and_no_gain() -> None:
    assert sign_in("revision-harm", _harm(*[-0.5] * 8), threshold=0.1) is None


def a_sign_shows_once_and_a_resumed_watch_goes_on_as_the_one_before() -> None:
    """Cut at any place: what was told is not told again, and what was read still counts."""
    spans = [{"gradient_shares": {"token": 0.1, "span": 0.9}} for _ in range(3)]
    rows = [*_harm(*[0.5] * 10), *_steps(spans), *_harm(*[0.5] * 3)]
    rows = [{**row, "step": place + 1} for place, row in enumerate(rows)]
    whole, told = Watch(LIMITS), list[tuple[int, str]]()
    for row in rows:
        told += [(sign.step, sign.name) for sign in whole.look(row)]
    assert told == [(8, "revision-harm"), (13, "span-dominates")]
    for cut in range(len(rows) + 1):
        before, after, found = Watch(LIMITS), Watch(LIMITS), list[tuple[int, str]]()
        written: list[Row] = []
        for row in rows[:cut]:
            signs = before.look(row)
            written += [row, *(sign.row() for sign in signs)]
            found += [(sign.step, sign.name) for sign in signs]
        after.recall(written)
        for row in rows[cut:]:
            found += [(sign.step, sign.name) for sign in after.look(row)]
        assert found == told, f"cut after {cut} rows"


def steps_on_references_and_on_drawn_rows_are_no_neighbours() -> None:
    """A clip that is wide on one kind and narrow on the other stands still on each."""
    drawn = [place % 2 == 1 for place in range(9)]
    assert sign_in("clip-unstable", _clip(*(0.9 if d else 0.4 for d in drawn), drawn=drawn), threshold=0.1) is None
    shaking = [0.9 if place % 2 else 0.4 for place in range(9)]
    assert sign_in("clip-unstable", _clip(*shaking, drawn=[True] * 9), threshold=0.1) is not None


def responses_that_come_nearer_to_the_references_do_not_drift() -> None:
    assert sign_in("length-drift", _lengths(*[10.0] * 8, *[40.0] * 8), threshold=2.0) is None
    assert sign_in("length-drift", _lengths(*[40.0] * 8, *[10.0] * 8), threshold=2.0) is not None
    assert sign_in("length-drift", _lengths(*[40.0] * 8, *[100.0] * 8), threshold=2.0) is not None


def a_length_is_held_against_the_references_in_both_directions() -> None:
    assert sign_in("length-mismatch", _lengths(*[40.0] * 8), threshold=1.5) is None
    for length in (200.0, 8.0):
        found = sign_in("length-mismatch", _lengths(*[40.0] * 8, *[length] * 8), threshold=4.0)
        assert found is not None
        assert found.value == 5.0


def what_is_no_number_is_passed_over() -> None:
    rows = [*_harm(*[0.5] * 4), *_harm(math.nan, math.inf), *_harm(*[0.5] * 4)]
    found = sign_in("revision-harm", rows, threshold=0.1)
    assert found is not None
    assert found.value == 0.5
    assert sign_in("revision-harm", [*_harm(*[0.5] * 7), *_harm(math.nan)], threshold=0.1) is None


def a_term_by_itself_dominates_nothing() -> None:
    assert sign_in("span-dominates", _steps([{"gradient_shares": {"span": 1.0}}] * 3), threshold=0.8) is None
    both = {"gradient_shares": {"token": 0.05, "span": 0.95}}
    assert sign_in("span-dominates", _steps([both] * 3), threshold=0.8) is not None


def a_term_that_counted_once_does_count() -> None:
    def rows(*spans: int) -> list[Row]:
        return _steps([{"tokens": {"token": 5}, "spans": each} for each in spans])

    assert sign_in("counts-nothing", rows(0, 0, 0, 0), threshold=4.0) is not None
    assert sign_in("counts-nothing", rows(0, 0, 1, 0), threshold=4.0) is None
    assert SIGNATURES["counts-nothing"].size(4.0) == 4


CHECKS = (
    a_rule_waits_for_its_window_and_one_wild_step_is_none,
    a_harm_is_a_loss_and_no_gain,
    a_sign_shows_once_and_a_resumed_watch_goes_on_as_the_one_before,
    steps_on_references_and_on_drawn_rows_are_no_neighbours,
    responses_that_come_nearer_to_the_references_do_not_drift,
    a_length_is_held_against_the_references_in_both_directions,
    what_is_no_number_is_passed_over,
    a_term_by_itself_dominates_nothing,
    a_term_that_counted_once_does_count,
)
