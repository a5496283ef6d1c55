"""Replay: the turn of each step, the buffer, and what of it a checkpoint holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.errors import ConfigError
from limbeck.seeds import Seeds
from limbeck.sequences import Adaptive, Constant, Fixed, Ground, Linear, Mixture, Replay, Student, TeacherWritten
from limbeck.sequences.replay import Replaying
from limbeck.testing import ScriptedModel, random_script, scripted_rollouts
from limbeck.training import checkpoint
from limbeck.types import Sequences, pack_rows
from reference.replay import course

BATCH = 4
SEEDS = Seeds(3)


def ground(steps: int = 40, **changes: Any) -> Ground:
    return Ground(**{"steps": steps, "batch_rows": BATCH, "pad_id": 0, **changes})


def rows_of(step: int, *, origin: str = "revised", rows: range = range(BATCH)) -> Sequences:
    """The rows of a step, of different lengths; their key says when they were drawn."""
    tokens = [[1, step, *range(2, 2 + step % 3 + row)] for row in rows]
    flags = [[False, *[True] * (len(each) - 1)] for each in tokens]
    return pack_rows(tokens, flags, origin=[origin] * len(tokens), keys=[(step, row) for row in rows], pad_id=0)


def run(source: Replaying, steps: range, *, losses: Any = None) -> list[str]:
    """Steps without a model: what is fresh is `rows_of`; the losses are given after a step."""
    turns = []
    for step in steps:
        turn = source.turn(step, seeds=SEEDS)
        turns.append(turn)
        source.keep(rows_of(step), step=step, seeds=SEEDS)
        if losses is not None and source.observes(step):
            source.observe(losses[step])
    return turns


def keys(source: Replaying) -> list[list[int]]:
    found: list[list[int]] = source.state()["keys"].tolist()
    return found


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    steps=st.integers(4, 60),
    capacity=st.integers(BATCH, 30),
    initial=st.sampled_from([0.0, 0.3, 1.0]),
    increase=st.sampled_from([0.1, 0.5]),
    rise=st.sampled_from([0.0, 0.1, 0.2]),
    fresh=st.sampled_from(["decreasing", "constant", "increasing"]),
    every=st.integers(1, 7),
    data=st.data(),
)
def test_turns_thresholds_and_buffer_are_those_of_the_loop(
    seed: int,
    steps: int,
    capacity: int,
    initial: float,
    increase: float,
    rise: float,
    fresh: Any,
    every: int,
    data: st.DataObject,
) -> None:
    seeds = Seeds(seed)
    looks = range(0, steps + 1, every)
    losses = {step: data.draw(st.floats(0, 3), label=f"loss after step {step}") for step in looks}
    schedule = Adaptive(initial=initial, increase=increase, rise=rise, check_every=every)
    source = Replay(schedule=schedule, capacity=capacity, fresh=fresh).build(ground(steps))
    expected = course(
        [seeds.child("coin", step).uniform() for step in range(1, steps + 1)],
        drawn=lambda step: [[step, row] for row in range(BATCH)],
        losses=losses,
        capacity=capacity,
        initial=initial,
        increase=increase,
        rise=rise,
        replay_ratio=fresh,
    )
    assert [step for step in range(steps + 1) if source.observes(step)] == list(looks)
    source.observe(losses[0])
    for step in range(1, steps + 1):
        assert source.turn(step, seeds=seeds) == expected.turns[step - 1]
        assert source.thresholds(step)[0] == pytest.approx(expected.thresholds[step - 1])
        wanted = 0 if expected.turns[step - 1] == "replayed" else BATCH
        assert source.prompts(step, batch_rows=BATCH, seeds=seeds) == wanted
        source.keep(rows_of(step), step=step, seeds=seeds)
        assert [list(key) for key in keys(source)] == expected.buffers[step - 1]
        if step in losses:
            source.observe(losses[step])


def test_once_full_the_shares_are_s_and_what_lies_between_it_and_phi() -> None:
    source = Replay(schedule=Constant(0.6), capacity=BATCH, fresh="constant").build(ground(4000))
    turns = Counter(run(source, range(1, 4001)))
    for turn, share in {"fresh": 0.3, "replayed": 0.3, "fixed": 0.4}.items():
        assert abs(turns[turn] / 4000 - share) < 0.03
    told = source.told(4001, seeds=SEEDS)
    assert sum(told[turn] for turn in turns) == pytest.approx(1.0)


def test_a_row_of_metrics_counts_its_own_step() -> None:
    source = Replay(schedule=Constant(1.0), capacity=BATCH).build(ground())
    assert dict(source.told(1, seeds=SEEDS)) == {
        "turn": "fresh",
        "threshold": 1.0,
        "fresh_threshold": 1 - 1 / 40,
        "rows": 0,
        "fresh": 1.0,
        "replayed": 0.0,
        "fixed": 0.0,
    }


def test_the_oldest_rows_leave_first_and_a_sample_has_no_row_twice() -> None:
    source = Replay(schedule=Constant(1.0), capacity=10).build(ground(4))
    for step in (1, 2, 3):
        assert source.turn(step, seeds=SEEDS) == "fresh"
        source.keep(rows_of(step), step=step, seeds=SEEDS)
    assert keys(source) == [[step, row] for step in (1, 2, 3) for row in range(BATCH)][2:]
    seen = Counter[Any]()
    for step in range(5, 2005):
        drawn = source._sampled(list(source._buffer), step=step, seeds=SEEDS)
        assert len(set(drawn.keys)) == BATCH
        assert drawn.origin == ("replayed",) * BATCH
        seen.update(drawn.keys)
    assert len(seen) == 10
    assert all(abs(count / 2000 - BATCH / 10) < 0.05 for count in seen.values())


def test_a_replayed_row_is_as_it_was_kept() -> None:
    source = Replay(schedule=Constant(1.0), capacity=BATCH).build(ground(2))
    kept = rows_of(1)
    source.keep(kept, step=1, seeds=SEEDS)
    assert source.turn(2, seeds=SEEDS) == "replayed"
    rollouts = scripted_rollouts(ScriptedModel(random_script(1, vocab_size=5), vocab_size=5), max_new_tokens=3, seed=3)
    drawn = source.draw((), rollouts=rollouts, step=2)
    for name in ("tokens", "attended", "is_response"):
        assert torch.equal(getattr(drawn, name), getattr(kept, name)), name
    assert drawn.keys == kept.keys
    assert source.told(2, seeds=SEEDS)["age"] == 1.0


def test_two_ranks_hold_one_buffer_and_share_its_rows() -> None:
    """`gather` of two ranks, by hand: the rows of rank 0, then those of rank 1."""
    parts, gathered = (range(0, BATCH, 2), range(1, BATCH, 2)), list[Any]()
    replay = Replay(schedule=Constant(1.0), capacity=6)
    alone = replay.build(ground(9))
    both = [replay.build(ground(9, rank=rank, ranks=2, gather=lambda own: list(gathered))) for rank in (0, 1)]
    for step in (1, 2):
        alone.keep(rows_of(step), step=step, seeds=SEEDS)
        gathered[:] = [row for part in parts for row in alone._of_all_ranks(rows_of(step, rows=part), step=step)]
        for each, part in zip(both, parts, strict=True):
            each.keep(rows_of(step, rows=part), step=step, seeds=SEEDS)
    assert keys(alone) == keys(both[0]) == keys(both[1])
    whole = alone._sampled(list(alone._buffer), step=5, seeds=SEEDS)
    halves = [each._sampled(list(each._buffer), step=5, seeds=SEEDS) for each in both]
    assert whole.keys == tuple(key for pair in zip(*(half.keys for half in halves), strict=True) for key in pair)


@pytest.mark.parametrize("filled", [0, 1, 3])
def test_a_checkpoint_holds_all_that_it_remembers(filled: int, tmp_path: Any) -> None:
    losses = {step: 1.0 + 0.3 * step for step in range(0, 41)}
    component = Replay(schedule=Adaptive(initial=1.0 if filled else 0.0, check_every=1), capacity=9)
    source = component.build(ground())
    source.observe(losses[0])
    before = range(1, filled + 1)
    run(source, before, losses=losses)
    state = {"source": {"first": source.state()}}
    checkpoint.write(tmp_path, step=1, recipe="", weights={}, optimizer={}, state=state)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert len((found.path / "state.json").read_text()) < 1500
    again = component.build(ground())
    again.restore(found.state["source"]["first"])
    after = range(filled + 1, 41)
    assert run(source, after, losses=losses) == run(again, after, losses=losses)
    one, other = source.state(), again.state()
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


def test_a_thousand_long_rows_are_no_huge_json(tmp_path: Any) -> None:
    source = Replay(schedule=Constant(1.0)).build(ground(batch_rows=1000))
    tokens, flags = [[7] * 512] * 1000, [[True] * 512] * 1000
    rows = pack_rows(tokens, flags, origin=["student"] * 1000, keys=[(0, row) for row in range(1000)], pad_id=0)
    source.keep(rows, step=1, seeds=SEEDS)
    path = checkpoint.write(tmp_path, step=1, recipe="", weights={}, optimizer={}, state={"source": source.state()})
    assert (path / "state.json").stat().st_size < 2000
    assert (path / "source.safetensors").stat().st_size < 3_000_000


def test_replay_on_mixed_learns_from_the_buffer_with_the_fresh_rows_in_it() -> None:
    source = Replay(schedule=Constant(1.0), capacity=6, replay_on_mixed=True).build(ground())
    first = rows_of(1)
    learned = source.exchanged(first, step=1, seeds=SEEDS)
    assert learned.keys == first.keys
    assert torch.equal(learned.tokens, first.tokens)
    assert keys(source) == []
    source.keep(first, step=1, seeds=SEEDS)
    candidates = {(1, 2), (1, 3), *((2, row) for row in range(BATCH))}
    learned = source.exchanged(rows_of(2), step=2, seeds=SEEDS)
    assert set(learned.keys) < candidates
    assert len(set(learned.keys)) == BATCH
    assert source.told(2, seeds=SEEDS)["age"] == sum(step == 1 for step, _ in learned.keys) / BATCH
    assert keys(source) == [[1, row] for row in range(BATCH)]
    assert {source.turn(step, seeds=SEEDS) for step in range(1, 200)} == {"fresh"}


def test_without_it_rows_are_not_exchanged() -> None:
    source = Replay(schedule=Constant(1.0), capacity=6).build(ground())
    rows = rows_of(1)
    assert source.exchanged(rows, step=1, seeds=SEEDS) is rows


def test_only_rises_since_the_last_rise_move_the_threshold() -> None:
    source = Replay(schedule=Adaptive(rise=0.1, check_every=1)).build(ground())
    moved = []
    for loss in (2.0, 2.05, 1.5, 2.09, 2.1, 2.15, 2.19, 2.3, float("nan"), 5.0):
        source.observe(loss)
        moved.append(round(source.thresholds(1)[0], 6))
    assert moved == [0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3]


def test_the_threshold_ends_at_one() -> None:
    schedule = Adaptive(initial=0.95, increase=0.1)
    assert schedule.threshold(1, steps=2, rises=3) == 1.0


@pytest.mark.parametrize(("steps", "looks"), [(100, [0, 5, 10]), (10, [0, 1, 2]), (59, [0, 2, 4])])
def test_it_looks_after_every_twentieth_of_the_run(steps: int, looks: list[int]) -> None:
    assert [step for step in range(steps + 1) if Adaptive().observes(step, steps=steps)][:3] == looks


def test_other_schedules_never_look() -> None:
    for schedule in (Constant(), Linear()):
        assert not any(schedule.observes(step, steps=50) for step in range(51))
        assert not schedule.rose(9.0, since=1.0)


@pytest.mark.parametrize(
    "source", [Fixed(), Mixture(), TeacherWritten(), Replay()], ids=lambda source: type(source).__name__
)
def test_only_what_the_student_draws_is_replayed(source: Any) -> None:
    with pytest.raises(ValidationError, match="source"):
        Replay(source=source)


@pytest.mark.parametrize(
    "values",
    [
        {"capacity": 0},
        {"fresh": "sometimes"},
        {"fresh": "constant", "replay_on_mixed": True},
        {"schedule": "adaptive"},
        {"capacitty": 9},
    ],
)
def test_bad_fields_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Replay(source=Student(), **values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Adaptive, {"rise": -0.1}),
        (Adaptive, {"initial": 1.1}),
        (Adaptive, {"increase": 0}),
        (Adaptive, {"check_every": 0}),
        (Constant, {"share": -1}),
        (Linear, {"last": 2}),
    ],
)
def test_bad_fields_of_schedules_are_refused(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**values)


@pytest.mark.parametrize("threshold", [50.0, -0.1, float("nan")])
def test_a_schedule_of_ones_own_gives_a_probability(threshold: float) -> None:
    class Own(Constant):
        def threshold(self, step: int, *, steps: int, rises: int) -> float:
            return threshold

    with pytest.raises(ConfigError, match=f"the schedule Own gave {threshold} at step 1"):
        Replay(schedule=Own()).build(ground()).notes()
