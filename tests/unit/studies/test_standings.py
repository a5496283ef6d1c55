"""What a quickstart may claim: "beats SFT" only where an interval on a KL excludes 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.evaluation.results import Results
from limbeck.records import Example, Message
from limbeck.studies.budget import Pace, make_plan
from limbeck.studies.scoring_arms import ScoredArm
from limbeck.studies.standings import Outcome, standings_table, verdicts

IDS = [f"row-{index:02d}" for index in range(40)]


def _arm(name: str, *, kl: Callable[[int], float], rouge: Callable[[int], float], teacher: bool = True) -> ScoredArm:
    rows: list[dict[str, Any]] = []
    for index, id in enumerate(IDS):
        base = {"corpus": "held-out", "seed": 10, "id": id}
        rows.append({**base, "measure": "answers", "text": f"{name} says", "scores": {"rouge_l": rouge(index)}})
        if teacher:
            scores = {"kl_teacher_student": kl(index), "kl_student_teacher": kl(index), "top1_agreement": 0.5}
            rows += [{**base, "measure": measure, "scores": scores} for measure in ("references", "own")]
    return ScoredArm(
        name=name,
        results=Results(rows=rows),
        parameters=1_000_000,
        megabytes=4.0,
        tokens_per_second=100.0,
        training_seconds=None if name == "teacher" else 60.0,
    )


def _outcome(**arms: ScoredArm) -> Outcome:
    examples = tuple(
        Example(id=id, messages=(Message(role="user", content="Say."),), references=("said",)) for id in IDS
    )
    plan = make_plan(minutes=12.0, pace=Pace(learn=4.0, draw=6.0), batch_rows=16, train_rows=256, held_out_rows=40)
    runs = {name: Path(name) for name in arms if name != "teacher"}
    return Outcome(scored=arms, examples=examples, runs=runs, plan=plan, seconds=1.0)


def test_a_gap_on_every_row_is_a_win_and_noise_is_not() -> None:
    outcome = _outcome(
        teacher=_arm("teacher", kl=lambda i: 0.0, rouge=lambda i: 0.3, teacher=False),
        sft=_arm("sft", kl=lambda i: 1.0 + i / 100, rouge=lambda i: 0.2),
        kd=_arm("kd", kl=lambda i: 0.8 + i / 100, rouge=lambda i: 0.2 + (0.1 if i % 2 else -0.1)),
        gkd=_arm("gkd", kl=lambda i: 1.0 + i / 100 + (0.1 if i % 2 else -0.1), rouge=lambda i: 0.3),
    )
    kd, gkd = verdicts(outcome)
    assert kd.startswith("kd beats SFT on KL(t‖s) refs and KL(s‖t) own")
    assert "ROUGE-L is a tie" in kd
    assert gkd.startswith("gkd is not shown to beat SFT on either KL")
    assert "ROUGE-L is higher: +10.0" in gkd


def test_a_method_that_is_worse_is_said_to_be_worse() -> None:
    outcome = _outcome(
        sft=_arm("sft", kl=lambda i: 1.0, rouge=lambda i: 0.2),
        kd=_arm("kd", kl=lambda i: 1.5, rouge=lambda i: 0.1),
    )
    (kd,) = verdicts(outcome)
    assert "not shown to beat SFT" in kd
    assert "but is worse on" in kd
    assert "ROUGE-L is lower" in kd


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_its_width_and_names_every_arm(width: int) -> None:
    outcome = _outcome(
        teacher=_arm("teacher", kl=lambda i: 0.0, rouge=lambda i: 0.3, teacher=False),
        sft=_arm("sft", kl=lambda i: 1.0, rouge=lambda i: 0.2),
    )
    text = standings_table(outcome).text(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "teacher" in text
    assert "sft" in text
