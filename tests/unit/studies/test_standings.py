"""What a quickstart may claim: "beats SFT" only where an interval on a KL excludes 0."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from limbeck.evaluation.results import Results
from limbeck.records import Example, Message
from limbeck.studies.budget import Pace, make_plan
from limbeck.studies.scoring_arms import ScoredArm
from limbeck.studies.standings import Outcome, build_page, standings_table, verdicts
from page_kit import answers_of

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


def test_a_speed_that_is_not_known_is_a_dash() -> None:
    arm = dataclasses.replace(_arm("sft", kl=lambda i: 1.0, rouge=lambda i: 0.2), tokens_per_second=None)
    table = standings_table(_outcome(sft=arm))
    place = [column.title for column in table.columns].index("tokens/s")
    assert table.rows[0].cells[place] is None


ARMS = ("sft", "kd", "gkd", "mgsr", "one more")


def _many(arms: Sequence[str] = ARMS) -> Outcome:
    scored = {name: _arm(name, kl=lambda i, n=n: 1.0 - n / 10, rouge=lambda i: 0.2) for n, name in enumerate(arms)}
    return _outcome(teacher=_arm("teacher", kl=lambda i: 0.0, rouge=lambda i: 0.3, teacher=False), **scored)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_every_arm_but_the_baseline_has_a_verdict_however_many_there_are(count: int) -> None:
    outcome = _many(ARMS[:count])
    assert [line.split(" beats")[0] for line in verdicts(outcome)] == list(ARMS[1:count])
    text = standings_table(outcome).text(width=100)
    assert all(name in text for name in ARMS[:count])


def _written(folder: Path, *, revises: bool) -> Path:
    """The folder of a run that drew one token, and corrected it or not."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text("method: {base: gkd}\nwatch: {repetition: 0.5}\n")
    step: dict[str, Any] = {"kind": "step", "step": 1, "loss": 1.0, "time": {"seconds": 1.0}}
    token: dict[str, Any] = {"token": "a", "teacher": "b", "kl_student_teacher": 1.0, "kl_teacher_student": 1.0}
    row: dict[str, Any] = {"step": 1, "id": "row", "prompt": "Say.", "tokens": [token | {"rank": 1}]}
    if revises:
        step |= {"revision": {"revised_rows": 1.0}}
        row |= {"corrected": [0], "revised": ["b"]}
        held = {"classes": ["b"], "teacher_logp": [-0.1], "student_logp": [-2.0], "gates": [1.0]}
        row["tokens"][0] |= {"kept_mass": 0.9, "distribution": held}
    validation = {"kind": "validation", "step": 1, "cross_entropy": 1.0, "loss": 1.0, "is_best": True}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (step, validation)))
    (folder / "tokens.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_the_page_shows_single_tokens_of_the_arm_that_revises_and_of_no_other(tmp_path: Path) -> None:
    outcome = _many(ARMS[:4])
    runs = {name: _written(tmp_path / name, revises=name == "mgsr") for name in outcome.runs}
    page = build_page(dataclasses.replace(outcome, runs=runs), tmp_path / "page.html", what="rows", command="again")
    html = page.read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", html) == [
        "Scores", "Training", "Revision, clip and spans", "Token by token (mgsr)", "What the clip keeps (mgsr)",
        "Answers side by side", "Row by row", "Repeat it",
    ]  # fmt: skip
    assert "Closest to the teacher on the references: mgsr" in html
    told = answers_of(page)
    assert told["best"].lines[0].startswith("mgsr is nearest to the teacher on the references: 0.700")
    assert "+0.100 [+0.100, +0.100] nats a token less than gkd on the same 40 rows" in told["best"].text
    assert told["sft"].lines[0].startswith("kd beats SFT on")
    assert "the student of step 1 is kept: it is the only one that was validated" in told["checkpoint"].text
    assert "rows.json" in told["rows"].text
    assert "no share is known" in told["drawn"].text
    assert "no failure signature showed in 1 steps" in told["watch"].text
    assert "This call took 1 s" in told["cost"].text
    assert told["repeat"].command == "again"
    assert "Word by word: sft to mgsr" in html


def test_the_page_of_arms_that_revise_nothing_has_no_such_sections(tmp_path: Path) -> None:
    outcome = _many(ARMS[:2])
    runs = {name: _written(tmp_path / name, revises=False) for name in outcome.runs}
    (runs["sft"] / "tokens.jsonl").unlink()
    page = build_page(dataclasses.replace(outcome, runs=runs), tmp_path / "page.html", what="rows", command="again")
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text(encoding="utf-8"))
    assert titles == ["Scores", "Training", "Answers side by side", "Row by row", "Repeat it"]
