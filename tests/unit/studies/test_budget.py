"""A number of minutes becomes numbers of steps."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from limbeck.errors import ConfigError
from limbeck.studies.budget import Pace, Plan, check_room, make_plan


def _plan(minutes: float = 12.0, learn: float = 4.0, draw: float = 6.0, rows: int = 256, held_out: int = 64) -> Plan:
    return make_plan(
        minutes=minutes, pace=Pace(learn=learn, draw=draw), batch_rows=16, train_rows=rows, held_out_rows=held_out
    )


@pytest.mark.parametrize("minutes", [5.0, 12.0, 60.0])
@pytest.mark.parametrize(("learn", "draw"), [(2.0, 2.0), (4.0, 6.0), (9.0, 20.0)])
def test_the_planned_steps_fit_their_stage(minutes: float, learn: float, draw: float) -> None:
    plan = _plan(minutes, learn, draw, rows=100_000)
    assert plan.warm_steps == 2 or plan.warm_steps * 0.5 * learn <= plan.warm_seconds
    assert plan.arm_steps == 2 or plan.arm_steps * (4.7 * learn + 1.25 * draw) <= plan.arms_seconds
    stages = plan.prepare_seconds + plan.warm_seconds + plan.arms_seconds + plan.score_seconds
    assert stages == pytest.approx(60 * minutes)


def test_a_slow_machine_takes_fewer_steps_and_leaves_no_stage_out() -> None:
    slow = _plan(learn=200.0, draw=400.0)
    assert (slow.warm_steps, slow.arm_steps, slow.scored_rows) == (2, 2, 8)


def test_few_rows_are_not_passed_more_than_four_times() -> None:
    plan = _plan(minutes=600.0, rows=40)
    assert plan.warm_steps == plan.arm_steps == 10


def test_a_plan_survives_json() -> None:
    plan = _plan()
    assert Plan(**plan.to_json()) == plan
    assert len(plan.lines()) == 4


def test_what_runs_take_beside_their_steps_is_taken_from_the_steps() -> None:
    free, laden = (
        make_plan(
            minutes=12.0,
            pace=Pace(learn=4.0, draw=6.0, fixed=fixed),
            batch_rows=16,
            train_rows=10_000,
            held_out_rows=200,
        )
        for fixed in (0.0, 25.0)
    )
    assert laden.warm_steps * 0.5 * 4.0 + 25.0 <= laden.warm_seconds
    assert laden.arm_steps * (4.7 * 4.0 + 1.25 * 6.0) + 4 * 25.0 <= laden.arms_seconds
    assert laden.scored_rows < free.scored_rows
    assert laden.scored_rows % 16 == 0


def test_a_full_disk_is_told_of_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(free=4.5e9))
    with pytest.raises(ConfigError, match=r"has 4\.5 GB free; the quickstart needs 5 GB"):
        check_room(tmp_path / "not" / "yet" / "there")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(free=5.5e9))
    check_room(tmp_path / "not" / "yet" / "there")
