"""`limbeck report` on folders written by hand: the sections a run gets from the files that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.reporting.curves import own_charts, revision_charts, time_charts, training_charts, validation_charts
from limbeck.reporting.plots import chart_html
from limbeck.reporting.runs import report

_MEASURES = {"lower": 0.1, "upper": 0.9, "kept_mass": 0.99, "kept_classes": 240.0, "only_target": 0.25}


def _step(step: int, *, revises: bool = True, drawn: bool = True) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": "step",
        "step": step,
        "loss": 1.0,
        "terms": {"token": 1.0},
        "tokens": {"token": 10},
        "gradient_norm": 1.0,
        "origin": {"revised": 0.75, "student": 0.25} if drawn else {"reference": 1.0},
        "time": {"seconds": 1.0, "draw": 0.25, "revise": 0.125, "learn": 0.625},
    }
    if revises:
        row |= {"spans": 30 + step, "terms_gradient_norm": 0.5 * step}
        row["measures"] = {f"token/{name}": value * step for name, value in _MEASURES.items()}
    if revises and drawn:
        shares = {"revised_rows": 0.75, "mismatches": 0.5, "place": 0.25, "kl": 1.5, "kl_corrected": 3.0}
        row["revision"] = shares
    return row


def _run(folder: Path, *, metrics: Sequence[Mapping[str, Any]], tokens: Sequence[Mapping[str, Any]] = ()) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text("method:\n  base: mgsr\n")
    sample = {
        "step": 1,
        "origin": "revised",
        "key": [0, 0],
        "prompt": "Say.",
        "response": "Said.",
        "corrections": [{"place": 3, "drawn": " is", "teacher": " has", "kl": 2.375, "round": 1}],
    }
    files = {"metrics": metrics, "samples": [sample], "tokens": tokens}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _titles(page: Path) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text(encoding="utf-8"))


def test_a_run_that_revises_and_clips_shows_it_token_by_token(
    tmp_path: Path, revised_rows: list[dict[str, Any]]
) -> None:
    run = _run(tmp_path / "mine", metrics=[_step(1), _step(2)], tokens=revised_rows)
    page = report([run], tmp_path / "report.html")
    assert _titles(page) == [
        "Results", "Training", "Revision, clip and spans", "Time", "Token by token", "What the clip keeps",
        "What was learned from", "How to repeat",
    ]  # fmt: skip
    html = page.read_text(encoding="utf-8")
    assert "corrected at 4" in html
    assert "␣is → ␣has, KL 2.38" in html


def test_a_run_without_tokens_has_no_such_section_and_several_runs_are_named(
    tmp_path: Path, plain_rows: list[dict[str, Any]]
) -> None:
    old = _run(tmp_path / "old", metrics=[_step(1, revises=False)])
    (old / "tokens.jsonl").unlink()
    assert "Token by token" not in _titles(report([old], tmp_path / "one.html"))
    assert "Revision, clip and spans" not in _titles(tmp_path / "one.html")
    new = _run(tmp_path / "new", metrics=[_step(1, revises=False)], tokens=plain_rows)
    titles = _titles(report([old, new], tmp_path / "two.html"))
    assert [title for title in titles if "oken" in title or "clip" in title] == ["Token by token (new)"]


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path, revised_rows: list[dict[str, Any]]) -> None:
    run = _run(tmp_path / "mine", metrics=[_step(1)], tokens=revised_rows[:1])
    with (run / "tokens.jsonl").open("a") as file:
        file.write('{"step": 6, "id": "sec')
    assert "fieldset" not in report([run], tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_measure_has_its_curve_and_a_run_without_any_keeps_its_colour() -> None:
    metrics = {"plain": [_step(1, revises=False)], "mine": [_step(1), _step(2, drawn=False), _step(3)]}
    charts = {chart.title: chart for chart in revision_charts(metrics)}
    assert len(charts) == 5 + 5 + 1 + 1
    assert [one.name for one in charts["Clip: lower bound l"].series] == ["plain", "mine"]
    plain, mine = charts["Clip: lower bound l"].series
    assert plain.points == ()
    assert mine.points == ((1.0, 0.1), (2.0, 2 * 0.1), (3.0, 3 * 0.1))
    assert charts["Revision: rows corrected"].series[1].points == ((1.0, 0.75), (3.0, 0.75))
    assert charts["Clip network: gradient norm"].series[1].points[1] == (2.0, 1.0)
    assert charts["Spans"].series[1].points[0] == (1.0, 31.0)
    (revising,) = [chart for chart in time_charts(metrics) if chart.title == "Time: revising"]
    assert revising.series[1].points[0] == (1.0, 0.125)


def test_time_that_nothing_took_has_no_curve_and_throughput_has_one() -> None:
    time = {"seconds": 1.0, "draw": 0.0, "revise": 0.0, "learn": 1.0, "tokens_per_second": 40.0}
    rows = [_step(step, revises=False) | {"time": time} for step in (1, 2)]
    assert [chart.title for chart in time_charts({"mine": rows})] == ["Throughput", "Time: learning"]


def test_the_students_own_responses_are_drawn_beside_the_references() -> None:
    own = {"tokens": 9.0, "at_limit": 0.5, "distinct_2": 0.25, "reference_tokens": 6.0, "reference_distinct_2": 0.75}
    charts = {chart.title: chart for chart in own_charts({"mine": [_step(1) | {"own": own}, _step(2)]})}
    assert [one.series[0].points for one in charts.values()] == [((1.0, value),) for value in
                                                                 (9.0, 6.0, 0.5, 0.25, 0.75)]  # fmt: skip
    assert own_charts({"mine": [_step(1)]}) == ()


def test_terms_shares_of_the_gradient_and_replayed_rows_are_drawn() -> None:
    row = _step(1) | {"gradient_shares": {"token": 0.25, "span": 0.75}, "origin": {"replayed": 0.5, "student": 0.5}}
    charts = {chart.title: chart for chart in training_charts({"mine": [row]})}
    assert charts["Share of the gradient: span term"].series[0].points == ((1.0, 0.75),)
    assert charts["Replayed: off-policy responses of the student"].series[0].points == ((1.0, 0.5),)
    assert charts["Drawn from the student"].series[0].points == ((1.0, 0.5),)


def test_the_kept_student_has_a_ring_in_every_curve_of_validations() -> None:
    rows = [
        {"kind": "validation", "step": step, "loss": loss, "cross_entropy": loss, "is_best": is_best}
        for step, loss, is_best in ((2, 3.0, True), (4, 1.0, True), (6, 2.0, False))
    ]
    charts = validation_charts({"mine": rows, "young": []})
    assert [(one.kept, other.kept) for chart in charts for one, other in [chart.series]] == [(1, None)] * 2
    html = chart_html(charts[0], ident="c")
    assert html.count("<circle") == 1
    assert "kept: step 4" in html


def test_measures_of_other_names_are_drawn_too() -> None:
    rows = [_step(1, revises=False) | {"measures": {"other/lower": 0.5, "token/heat": 2.0}}]
    assert [chart.title for chart in revision_charts({"mine": rows})] == ["Clip: lower bound l (other)", "Measure heat"]


def test_without_revision_and_clip_there_are_no_such_curves() -> None:
    assert revision_charts({"plain": [_step(1, revises=False), {"kind": "validation", "step": 1}]}) == ()


def test_corrected_rows_are_drawn_ones_and_a_step_without_any_counts_as_none() -> None:
    metrics = {"mine": [_step(1), _step(2, drawn=False)], "fixed": [_step(1, drawn=False)]}
    (drawn,) = [chart for chart in training_charts(metrics) if chart.title == "Drawn from the student"]
    assert [one.points for one in drawn.series] == [((1.0, 1.0), (2.0, 0.0)), ()]


def _sign(step: int) -> dict[str, Any]:
    return {"kind": "watch", "step": step, "name": "repetition", "value": 0.2, "threshold": 0.5,
            "message": "the student <repeats> itself", "advice": "Warm it up first."}  # fmt: skip


def test_signatures_stand_at_the_top_and_a_run_without_any_says_so(tmp_path: Path) -> None:
    sick = _run(tmp_path / "sick", metrics=[_step(1), _sign(1), _step(2)])
    well = _run(tmp_path / "well", metrics=[_step(1), _step(2)])
    (well / "recipe.yaml").write_text("method:\n  base: mgsr\nwatch: {every: 50, rows: 8, repetition: 0.5}\n")
    page = report([sick, well], tmp_path / "report.html")
    assert _titles(page)[:2] == ["Failure signatures", "Results"]
    html = page.read_text(encoding="utf-8")
    assert "sick, after step 1: repetition. The student &lt;repeats&gt; itself. Warm it up first." in html
    assert "well: no failure signature showed in 2 steps." in html
    # Nothing is claimed of a run that looked for none.
    (well / "recipe.yaml").write_text("method:\n  base: mgsr\nwatch: {every: 50, rows: 8, repetition: null}\n")
    assert "Failure signatures" not in _titles(report([well], tmp_path / "report.html"))
