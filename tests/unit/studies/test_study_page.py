"""The page of a study from rows that were made by hand: eight answers, and numbers that lead to their rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from limbeck.reporting.page import write_page
from limbeck.studies.rows import Ledger, LedgerArm, write_rows
from limbeck.studies.study_page import study_page, write_study_page
from page_kit import answers_of

IDS = [f"e{i}" for i in range(24)]
ABOUT: dict[str, Any] = {
    "seconds": 60.0,
    "scoring_seconds": 30.0,
    "tokens": 500,
    "steps": [{"step": 1, "origin": {"student": 0.5, "reference": 0.5}}],
    "validations": [
        {"step": 1, "metric": "loss", "loss": 2.0, "is_best": True},
        {"step": 2, "metric": "loss", "loss": 3.0, "is_best": False},
    ],
    "signatures": [],
    "thresholds": {"repetition": 0.5},
    "counted": {
        "max_prompt": 64,
        "max_length": 96,
        "train": {"read": 10, "kept": 10, "dropped_prompts": 0, "cut_prompts": 0, "cut_responses": 0, "cut_rows": 0},
    },
    "environment": {"device": "cpu", "threads": 1},
}
SIGN = {"step": 1, "name": "span-dominates", "message": "the span term dominates", "advice": "Lower it."}


def _save(rows: Path, stem: str, level: float, **about: Any) -> None:
    lines = [
        {"measure": "answers", "corpus": "toy", "seed": 10, "id": id, "tokens": 5,
         "scores": {"rouge_l": 0.2 + n / 100 + level + (0.001 if n % 2 else 0.0) * bool(level)}}
        for n, id in enumerate(IDS)
    ]  # fmt: skip
    corpora = {"toy": {"rows": len(IDS), "content": "c"}}
    write_rows(rows / f"{stem}.jsonl.gz", about={"start": "s", "corpora": corpora, **ABOUT, **about}, rows=lines)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    levels = {"sft": 0.0, "kd": 0.1, "gkd": 0.05, "control": 0.0}
    for name, level in levels.items():
        _save(folder, f"{name}0", level, **({"signatures": [SIGN]} if name == "kd" else {}))
    arms = tuple(LedgerArm(name=name, runs={"0": f"{name}0"}) for name in levels)
    Ledger(study="mine", title="Mine", baseline="sft", arms=arms, controls=("control",)).write(folder)
    return folder


def test_the_page_of_a_study_answers_and_leads_to_files_beside_it(rows: Path) -> None:
    page = write_study_page(rows, "mine", rows.parent / "mine.html", command="limbeck study mine.yaml --seeds 0")
    html = page.read_text()
    files = set(re.findall(r'href="(rows/[^"]*)"', html))
    assert files == {f"rows/{name}0.jsonl.gz" for name in ("sft", "kd", "gkd", "control")}
    assert all((page.parent / file).is_file() for file in files)
    (page.parent / "plain.html").write_text(re.sub(r' href="rows/[^"]*"', "", html))
    told = answers_of(page.parent / "plain.html")
    assert told["best"].text.startswith("kd has the highest mean ROUGE-L over toy, 41.5 %")
    assert "It leads gkd by +5.0 [+5.0, +5.0] points on the same 24 examples" in told["best"].text
    assert "the first of 3 is picked after looking" in told["best"].text
    better, _, controls = told["sft"].lines
    assert better.startswith("kd − sft: +10.")
    assert "Holm over 3 comparisons); yes, it is better" in better
    assert controls == "Against the 1 null controls, beat all of them: kd, gkd; are not shown to: sft."
    assert (
        "the student of step 1 is kept: of 2 validations it has the lowest validation loss" in told["checkpoint"].text
    )
    assert "none of 10 training rows was dropped or cut." in told["rows"].text
    assert "50.0 % of the rows of 1 step were drawn by the student" in told["drawn"].text
    assert told["watch"].lines == [
        "Yes, after step 1: span-dominates. The span term dominates. Lower it.",
        "The other 3 runs showed none.",
    ]
    assert told["cost"].text.startswith("4 runs: 4 min 0 s of training steps and 2 min 0 s of scoring on cpu with 1")
    assert "2,000 response tokens" in told["cost"].text
    assert told["repeat"].command == "limbeck study mine.yaml --seeds 0"
    assert told["best"].links == ["#scores", "#rows-0"]


def _told_of_best(folder: Path, levels: dict[str, dict[str, float]], *, start: str = "s") -> str:
    """What the page says is best, of arms whose runs have these levels by training seed."""
    for name, runs in levels.items():
        for seed, level in runs.items():
            _save(folder, f"{name}{seed}", level, start=start.format(name=name))
    arms = tuple(LedgerArm(name=name, runs={seed: f"{name}{seed}" for seed in runs}) for name, runs in levels.items())
    Ledger(study="mine", title="Mine", baseline=arms[0].name, arms=arms).write(folder)
    page = study_page(folder, "mine")
    return " ".join(next(answer.says for answer in page.answers if answer.about == "best"))


def test_arms_are_ranked_by_the_runs_that_all_of_them_have(tmp_path: Path) -> None:
    # Over all of its runs b is behind a: its second seed went badly, and a was not trained with it.
    told = _told_of_best(tmp_path, {"c": {"0": 0.0}, "a": {"0": 0.1}, "b": {"0": 0.15, "1": -0.2}})
    assert told.startswith(
        "b has the highest mean ROUGE-L over toy, 46.6 %, in the runs that all 3 arms have (seed 0). "
        "It leads a by +5.0 [+5.0, +5.0] points"
    )


def test_nobody_is_best_where_the_runs_of_two_arms_say_otherwise(tmp_path: Path) -> None:
    levels = {"c": {"0": 0.05}, "a": {"0": 0.12, "1": 0.1}, "b": {"0": 0.1, "1": 0.3}}
    told = _told_of_best(tmp_path, levels)
    assert told.startswith("a has the highest mean ROUGE-L over toy, 43.5 %, in the runs that all 3 arms have (seed 0)")
    assert "but it does not lead b in the runs that the two have in common: -9.0 [-9.0, -9.0] points on the" in told
    assert "None can be called the best." in told
    assert "It leads" not in told


def test_nobody_is_best_where_arms_have_no_run_in_common(tmp_path: Path) -> None:
    told = _told_of_best(tmp_path, {"a": {"0": 0.1}, "b": {"1": 0.05}})
    assert "the 2 arms have no training seed and start in common" in told
    assert "none can be called the best; train all of them with the same --seeds." in told
    other = _told_of_best(tmp_path / "starts", {"a": {"0": 0.1}, "b": {"0": 0.05}}, start="start of {name}")
    assert "the 2 arms have no training seed and start in common" in other


def test_rows_of_an_older_version_say_what_they_do_not_hold(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    for name in ("a", "b"):
        _save(folder, name, 0.0)
        lines = [
            {"measure": "answers", "corpus": "toy", "seed": 10, "id": id, "scores": {"rouge_l": 0.5}} for id in IDS
        ]
        write_rows(folder / f"{name}.jsonl.gz", about={"start": "s", "corpora": {"toy": {"content": "c"}}}, rows=lines)
    arms = tuple(LedgerArm(name=name, runs={"0": name}) for name in ("a", "b"))
    Ledger(study="mine", title="Mine", baseline="a", arms=arms).write(folder)
    page = study_page(folder, "mine")
    told = {answer.about: " ".join(answer.says) for answer in page.answers}
    assert "it does not lead b in the runs that the two have in common: 0.0 [0.0, 0.0] points" in told["best"]
    assert "None can be called the best." in told["best"]
    assert "There is no SFT arm here" in told["sft"]
    assert "not recorded" in told["checkpoint"]
    assert "not recorded" in told["rows"]
    assert "nothing here says whether a rule was on" in told["watch"]
    assert "no share is known" in told["drawn"]
    assert "response tokens" not in told["cost"]
    assert '<a href="rows' not in write_page(page, tmp_path / "page.html").read_text()


def test_a_hostile_name_of_an_arm_stays_text(tmp_path: Path) -> None:
    folder, name = tmp_path / "rows", "</script><img src=x onerror=alert(1)>"
    _save(folder, "x", 0.0)
    arm = LedgerArm(name="x", title=name, runs={"0": "x"}, failures={"1": name})
    Ledger(study="mine", title=name, baseline="x", arms=(arm,)).write(folder)
    html = write_study_page(folder, "mine", tmp_path / "mine.html").read_text()
    assert "<img" not in html
    assert name not in html
    assert "&lt;/script&gt;&lt;img" in html
