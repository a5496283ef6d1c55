"""Each rule on rows written by hand: where it fires, where it just does not, and what never makes it fire."""

from __future__ import annotations

import copy
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.config import WatchSection
from limbeck.config.sections import THRESHOLDS
from limbeck.training.signatures import SIGNATURES
from limbeck.training.watch import Readings, Sign, Watch, sign_in

Row = dict[str, Any]
PAGE = Path(__file__).parents[3] / "docs" / "watching.md"


def _revision(harm: float) -> Row:
    return {"revision": {"teacher_logp_before": -3.0, "teacher_logp_after": -3.0 - harm}}


def _only_target(share: float) -> Row:
    return {"measures": {"token/only_target": share}}


def _clip(place: int, swing: float, *, moves: str = "upper", drawn: bool = False) -> Row:
    """A clip whose bound or mass goes up and down by `swing` from one row to the next."""
    measures = {"token/lower": 0.25, "token/upper": 0.25, "token/kept_mass": 0.25}
    measures[f"token/{moves}"] += swing * (place % 2)
    return {"measures": measures, "origin": {"revised": 1.0} if drawn else {"reference": 1.0}}


def _span(share: float) -> Row:
    return {"gradient_shares": {"token": 1.0 - share, "span": share}}


def _pairs(distinct: float) -> Row:
    return {"own": {"distinct_2": distinct, "reference_distinct_2": 0.5}}


def _length(tokens: float, reference: float = 10.0) -> Row:
    return {"own": {"tokens": tokens, "reference_tokens": reference, "at_limit": 0.25}}


def _entropy(lead: float) -> Row:
    return {"kind": "validation", "cross_entropy": 2.0 + lead, "teacher_cross_entropy": 2.0}


def _numbered(rows: list[Row]) -> list[Row]:
    return [{"kind": "step", "step": place, **row} for place, row in enumerate(rows, start=1)]


# Rows that fire at the last of them, rows at the very edge that do not, the threshold, and the value found.
Case = tuple[str, list[Row], list[Row], float, float]
CASES: list[Case] = [
    ("revision-harm", [_revision(0.75)] * 8, [_revision(0.5)] * 8, 0.5, 0.75),
    ("clip-collapsed", [_only_target(0.875)] * 8, [_only_target(0.75)] * 8, 0.75, 0.875),
    ("clip-unstable", [_clip(n, 0.5) for n in range(9)], [_clip(n, 0.25) for n in range(9)], 0.25, 0.5),
    ("clip-unstable", [_clip(n, 0.5, moves="kept_mass") for n in range(9)], [_clip(0, 0.0)] * 9, 0.25, 0.5),
    ("span-dominates", [_span(0.875)] * 3, [_span(0.75)] * 3, 0.75, 0.875),
    ("repetition", [_pairs(0.125)] * 8, [_pairs(0.25)] * 8, 0.5, 0.25),
    ("length-drift", [_length(10.0)] * 8 + [_length(30.0)] * 8, [_length(10.0)] * 8 + [_length(20.0)] * 8, 2.0, 3.0),
    ("length-drift", [_length(8.0)] * 8 + [_length(2.0)] * 8, [_length(8.0)] * 8 + [_length(4.0)] * 8, 2.0, 4.0),
    ("length-mismatch", [_length(16.0, 2.0)] * 8, [_length(8.0, 2.0)] * 8, 4.0, 8.0),
    ("length-mismatch", [_length(2.0, 16.0)] * 8, [_length(2.0, 8.0)] * 8, 4.0, 8.0),
    ("teacher-no-better", [_entropy(0.0)], [_entropy(0.125)], 0.0, 0.0),
    ("stale-replay", [{"replay": {"age": 201.0}}] * 8, [{"replay": {"age": 200.0}}] * 8, 200.0, 201.0),
    (
        "counts-nothing",
        [{"tokens": {"token": 5}, "spans": 0}] * 4,
        [{"tokens": {"token": 5}, "spans": 0}] * 3,
        4.0,
        4.0,
    ),
]
_IDS = [f"{n}-{case[0]}" for n, case in enumerate(CASES)]
every_case = pytest.mark.parametrize("case", CASES, ids=_IDS)
# A validation is no single step, and a term that counted something once is none that counts nothing.
_BY_MEDIAN = [case for case in CASES if case[0] not in ("teacher-no-better", "counts-nothing")]


def test_every_signature_has_a_case_a_threshold_and_a_row_in_the_documentation() -> None:
    assert {case[0] for case in CASES} == set(SIGNATURES)
    assert sorted(each.key for each in SIGNATURES.values()) == sorted(THRESHOLDS)
    signs = {operator.gt: "above", operator.ge: "at or above", operator.lt: "below", operator.le: "at or below"}
    written = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    table = {row[0].strip("`"): row[1:] for row in written if row and row[0].startswith("`")}
    assert list(table) == list(SIGNATURES)
    for name, signature in SIGNATURES.items():
        key, default, measures, fires, over = table[name]
        assert key == f"`{signature.key}`"
        assert default == f"{getattr(WatchSection(), signature.key):g} {signature.unit}"
        assert (measures, fires) == (signature.measures, signs[signature.fires])
        assert re.match(r"\d+|as many", over)
        assert over.split()[0] == ("as" if signature.window is None else str(signature.window))


@every_case
def test_a_rule_fires_and_at_the_edge_it_does_not(case: Case) -> None:
    name, sick, edge, threshold, value = case
    sign = sign_in(name, _numbered(sick), threshold=threshold)
    assert sign is not None
    assert (sign.name, sign.step, sign.value, sign.threshold) == (name, len(sick), value, threshold)
    key = f"watch.{SIGNATURES[name].key} is {threshold:g}"
    assert key in sign.message
    assert "{" not in sign.message
    assert sign.row() == {"kind": "watch", "step": len(sick), "name": name, "value": value, "threshold": threshold,
                          "message": sign.message, "advice": SIGNATURES[name].advice}  # fmt: skip
    assert sign_in(name, _numbered(edge), threshold=threshold) is None


@every_case
def test_a_rule_waits_until_its_window_is_full(case: Case) -> None:
    name, sick, _, threshold, _ = case
    window = SIGNATURES[name].size(threshold)
    assert window > 1 or name == "teacher-no-better", "one step alone is never judged"
    assert sign_in(name, _numbered(sick[-window + 1 :] if window > 1 else []), threshold=threshold) is None


@pytest.mark.parametrize("noise", range(3))
@pytest.mark.parametrize("case", _BY_MEDIAN, ids=lambda case: case[0])
def test_one_step_out_of_line_never_fires(case: Case, noise: int) -> None:
    """A healthy run with one row of the sick one anywhere: three places, of which one is the last."""
    name, sick, edge, threshold, _ = case
    if name == "length-drift":
        edge = edge[:8] * 2
    place = (len(edge) - 1, len(edge) // 2, len(edge) - 2)[noise]
    rows = copy.deepcopy(edge)
    rows[place] = sick[-1] if name != "clip-unstable" else _clip(0, 0.0) | {"measures": dict.fromkeys(
        ("token/lower", "token/upper", "token/kept_mass"), 1.0)}  # fmt: skip
    assert sign_in(name, _numbered(rows), threshold=threshold) is None


@every_case
def test_a_row_that_says_nothing_is_passed_over(case: Case) -> None:
    """Rows of other kinds between the readings move nothing, and alone they do not make a rule fire again."""
    name, sick, _, threshold, value = case
    idle: Row = {"kind": "step", "origin": {"reference": 1.0}, "measures": {}, "revision": {}, "own": {}}
    rows = _numbered([each for row in sick for each in (idle, row)])
    sign = sign_in(name, rows, threshold=threshold)
    assert sign is not None
    assert sign.value == value
    assert sign_in(name, _numbered([*sick, idle]), threshold=threshold) is None


def test_references_and_drawn_responses_are_not_compared_with_each_other() -> None:
    """A clip that keeps 0.9 of references and 0.5 of drawn responses at every step is a steady one."""
    rows = [_clip(n, 0.5, moves="kept_mass", drawn=n % 2 == 1) for n in range(12)]
    assert sign_in("clip-unstable", _numbered(rows), threshold=0.05) is None


def test_a_length_that_comes_nearer_to_the_references_is_no_drift() -> None:
    nearer = [_length(64.0)] * 8 + [_length(8.0)] * 8
    assert sign_in("length-drift", _numbered(nearer), threshold=2.0) is None
    past_them = [_length(20.0)] * 8 + [_length(2.0)] * 8
    sign = sign_in("length-drift", _numbered(past_them), threshold=2.0)
    assert sign is not None
    assert "20 tokens then, 2 now, 25% of them cut at the limit" in sign.message


def test_a_student_that_stops_ending_at_once_is_a_mismatch_and_no_drift() -> None:
    """Its first window of steps is long already, so that nothing has moved since."""
    rows = _numbered([_length(86.0, 80.0), _length(944.0, 80.0)] + [_length(1024.0, 80.0)] * 14)
    assert sign_in("length-drift", rows, threshold=2.0) is None
    sign = sign_in("length-mismatch", rows, threshold=4.0)
    assert sign is not None
    assert "by a factor of 12.80, median of 8 steps (1.02e+03 tokens, references 80, 25% of them" in sign.message


def test_a_span_term_that_is_alone_dominates_nothing() -> None:
    rows = [{"gradient_shares": {"span": 1.0}}] * 3
    assert sign_in("span-dominates", _numbered(rows), threshold=0.8) is None


def test_the_term_that_counts_nothing_is_named_and_one_token_ends_its_run() -> None:
    empty: Row = {"tokens": {"token": 5, "supervised": 0}, "spans": 0}
    sign = sign_in("counts-nothing", _numbered([empty] * 3), threshold=3.0)
    assert sign is not None
    assert "the span and supervised term counts nothing: not one token or span in 3 steps" in sign.message
    once = {"tokens": {"token": 5, "supervised": 1}, "spans": 2}
    assert sign_in("counts-nothing", _numbered([empty, once, empty]), threshold=3.0) is None


def _watch(**thresholds: float | None) -> Watch:
    return Watch({**dict.fromkeys(THRESHOLDS), **thresholds})


def _seen(watch: Watch, rows: list[Row]) -> list[Sign]:
    return [sign for row in rows for sign in watch.look(row)]


def test_a_signature_is_told_of_once() -> None:
    rows = _numbered([_span(0.95)] * 20)
    signs = _seen(_watch(span_dominates=0.8, clip_collapsed=0.5), rows)
    assert [(sign.name, sign.step) for sign in signs] == [("span-dominates", 3)]
    assert _seen(_watch(), rows) == [], "null switches a signature off"


@pytest.mark.parametrize("cut", range(21))
def test_a_watch_goes_on_from_the_rows_of_a_run(cut: int) -> None:
    """Whatever row the run was cut at, what is told of after it is the same."""
    rows = _numbered([_length(10.0) | _span(0.5)] * 8 + [_length(50.0) | _span(0.95)] * 12)
    thresholds = {"length_drift": 2.0, "span_dominates": 0.8}
    whole = _watch(**thresholds)
    logged = [each for row in rows for each in (row, *(sign.row() for sign in whole.look(row)))]
    steps = [row["step"] for row in logged if row["kind"] == "watch"]
    assert steps == [10, 12]
    again = _watch(**thresholds)
    again.recall([row for row in logged if row["step"] <= cut])
    assert [sign.step for sign in _seen(again, rows[cut:])] == [step for step in steps if step > cut]


def test_another_threshold_may_be_told_of_once_more() -> None:
    rows = _numbered([_span(0.9)] * 4)
    logged = [each for row in rows for each in (row, *(s.row() for s in _seen(_watch(span_dominates=0.8), rows[:3])))]
    for threshold, told in ((0.8, False), (0.85, True), (0.95, False)):
        watch = _watch(span_dominates=threshold)
        watch.recall(logged)
        assert bool(watch.look({**_span(0.9), "kind": "step", "step": 5})) is told


_VALUE = st.one_of(
    st.none(), st.text(max_size=2), st.booleans(), st.integers(-3, 3), st.floats(), st.just(0.0), st.lists(st.none())
)
_PARTS: dict[str, list[str]] = {
    "revision": ["teacher_logp_before", "teacher_logp_after"],
    "measures": ["token/only_target", "token/lower", "token/upper", "token/kept_mass"],
    "gradient_shares": ["token", "span"],
    "own": ["tokens", "at_limit", "distinct_2", "reference_tokens", "reference_distinct_2"],
    "origin": ["reference", "student"],
    "replay": ["age"],
    "tokens": ["token", "supervised"],
}


def _rows() -> st.SearchStrategy[Row]:
    parts: dict[str, st.SearchStrategy[Any]] = {
        part: st.one_of(_VALUE, st.dictionaries(st.sampled_from(names), _VALUE)) for part, names in _PARTS.items()
    }
    loose = dict.fromkeys(("spans", "cross_entropy", "teacher_cross_entropy"), _VALUE)
    return st.fixed_dictionaries({"step": st.integers(1, 9)}, optional={**parts, **loose})


@given(rows=st.lists(_rows(), max_size=16), threshold=st.sampled_from([0.0, 1.0, 3.0]))
def test_no_row_breaks_a_rule_and_one_pass_says_what_the_whole_says(rows: list[Row], threshold: float) -> None:
    for name, signature in SIGNATURES.items():
        readings = Readings(name=name, threshold=threshold)
        found = None
        for row in rows:
            found = readings.judged(row["step"]) if readings.add(row) else None
        assert len(readings.first) <= signature.size(threshold)
        assert found == sign_in(name, rows, threshold=threshold)
        assert found is None or (math.isfinite(found.value) and signature.fires(found.value, threshold))


_FULL: dict[str, Callable[[float], Row]] = {
    "revision-harm": _revision,
    "clip-collapsed": _only_target,
    "span-dominates": _span,
}


@given(values=st.lists(st.floats(0.0, 1.0), min_size=8, max_size=12), name=st.sampled_from(sorted(_FULL)))
def test_fewer_than_half_of_the_readings_never_fire(values: list[float], name: str) -> None:
    threshold, window = 0.5, SIGNATURES[name].size(0.5)
    sign = sign_in(name, _numbered([_FULL[name](value) for value in values]), threshold=threshold)
    beyond = sum(value > threshold for value in values[-window:])
    assert sign is None or beyond >= window / 2
    if beyond > window / 2 and min(abs(value - threshold) for value in values) > 1e-9:
        assert sign is not None
