"""How a fixed number of minutes is divided: by choosing numbers of steps, never by leaving a stage out."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError

# Parts of the whole, by stage. What a stage saves goes to nobody: the sum is a promise, not a quota.
_WARM_SHARE, _ARMS_SHARE, _SCORE_SHARE = 0.12, 0.50, 0.27
# Steps are planned as if they cost this much of the one that was measured, which was the first.
_CAUTION = 1.0
_MOST_EPOCHS = 4
# What the arms' steps cost together, in steps of learning from a teacher and in draws of a whole batch. sft costs half
# of one, kd one. gkd draws every other step. mgsr learns from references beside, reads what was drawn with both models
# on every other step and draws half of it again; and its terms' gradients are taken apart at nearly every early step.
_SFT_LEARN = 0.5
_ARMS_LEARN, _ARMS_DRAW = _SFT_LEARN + 1 + 1 + 2.2, 0.5 + 0.75
_ARMS, _SCORED = 4, 7
# Answers are drawn so many at a time: a few rows more cost as much as a batch.
_ANSWER_ROWS = 16
# Answering: six students, and the teacher at twice their depth. Comparing: seven models on two texts, both bodies and
# heads forward only.
_ANSWERING_DRAWS, _COMPARING_LEARNS = 6 + 2, 6 * 2 * 0.5

# Six students of 0.33 GB; two checkpoints of 1 GB, and the one being written.
_NEEDED_GB = 5.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds that one step of `batch_rows` rows took: to learn from the teacher, and to draw from the student.

    `fixed`: what a run takes beside its steps: loading, validating, saving.
    """

    learn: float
    draw: float
    fixed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of steps and rows, and the seconds that each stage may take."""

    warm_steps: int
    arm_steps: int
    scored_rows: int
    prepare_seconds: float
    warm_seconds: float
    arms_seconds: float
    score_seconds: float

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `Plan(**...)` takes."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """The plan for people."""
        return (
            f"  prepare      {self.prepare_seconds:5.0f} s   get the teacher, shrink it, measure this machine",
            f"  warm start   {self.warm_seconds:5.0f} s   {self.warm_steps} steps of fine-tuning of the shrunk student",
            f"  four arms    {self.arms_seconds:5.0f} s   sft, kd, gkd, mgsr: {self.arm_steps} steps each from there",
            f"  score        {self.score_seconds:5.0f} s   seven models on {self.scored_rows} held-out rows",
        )


def make_plan(*, minutes: float, pace: Pace, batch_rows: int, train_rows: int, held_out_rows: int) -> Plan:
    """Numbers of steps that fit.

        warm start:  steps = (share · T − fixed) / (0.5 · learn)
        arms:        steps = (share · T − 4 · fixed) / (4.7 · learn + 1.25 · draw)
        scoring:     rows  = all held-out rows, fewer only where they would not fit their share, then whole batches

    At least 2 steps each, at most four epochs of rows.

    >>> plan = make_plan(minutes=12.0, pace=Pace(learn=4.0, draw=6.0), batch_rows=16, train_rows=256, held_out_rows=64)
    >>> plan.warm_steps, plan.arm_steps, plan.scored_rows
    (43, 13, 32)
    """
    seconds = 60.0 * minutes
    most = max(2, _MOST_EPOCHS * train_rows // batch_rows)
    warm, arms, score = (share * seconds for share in (_WARM_SHARE, _ARMS_SHARE, _SCORE_SHARE))
    warm_steps = int((warm - pace.fixed) / (_CAUTION * _SFT_LEARN * pace.learn))
    arm_steps = int((arms - _ARMS * pace.fixed) / (_CAUTION * (_ARMS_LEARN * pace.learn + _ARMS_DRAW * pace.draw)))
    row_seconds = (_ANSWERING_DRAWS * pace.draw + _COMPARING_LEARNS * pace.learn) / batch_rows
    # A run's fixed part loads the models twice as often and saves beside.
    fitting = int((score - _SCORED * pace.fixed / 2) / row_seconds)
    fitting -= fitting % _ANSWER_ROWS if fitting > _ANSWER_ROWS else 0
    return Plan(
        warm_steps=min(most, max(2, warm_steps)),
        arm_steps=min(most, max(2, arm_steps)),
        scored_rows=min(held_out_rows, max(8, fitting)),
        prepare_seconds=seconds - warm - arms - score,
        warm_seconds=warm,
        arms_seconds=arms,
        score_seconds=score,
    )


def check_room(out: Path) -> None:
    """Raise `ConfigError` if the disk cannot hold what is left of a quickstart."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    held = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e9
    if free + held < _NEEDED_GB:
        raise ConfigError(
            f"the disk of {place} has {free:.1f} GB free; the quickstart needs {_NEEDED_GB:.0f} GB for its "
            "students and one run's checkpoints.\n"
            "  Make room, or name a folder on another disk: limbeck quickstart --out DIR"
        )
