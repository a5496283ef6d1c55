"""Sick runs are told of, a healthy one is not; once, also after a resume; and --strict stops them, saved."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import limbeck
from limbeck.cli import main
from limbeck.errors import FailureSignature
from limbeck.training import Run
from page_kit import answers_of
from training_kit import ROWS, Models, assert_same_run, metrics, recipe, start, start_and_kill, state


@pytest.fixture(scope="module")
def taught(models: Models, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher that knows the rows."""
    settings = recipe(models, "sft", models={"student": models.teacher}, validate={"every": None})
    run = start(settings, tmp_path_factory.mktemp("taught") / "run", "train.steps=60", "train.learning_rate=5e-3")
    return str(run.directory / "student")


def _signs(run: Path) -> list[dict[str, Any]]:
    return [row for row in metrics(run) if row["kind"] == "watch"]


def _names(run: Path) -> list[tuple[str, int]]:
    return [(row["name"], row["step"]) for row in _signs(run)]


def _mgsr(models: Models, teacher: str, steps: int, **method: Any) -> dict[str, Any]:
    return recipe(
        models,
        "mgsr",
        method=method,
        models={"teacher": teacher},
        train={"steps": steps},
        sampling={"max_new_tokens": 16},
        validate={"every": 9, "metric": "loss"},
        watch={"rows": 0},
    )


def _span(models: Models, steps: int = 6, **watch: Any) -> dict[str, Any]:
    """A span term that is most of the gradient; a checkpoint at every second step."""
    return recipe(
        models,
        "mgsr",
        method={"sequences": {"kind": "fixed"}, "revision": None, "weights": {"span": 1e6}},
        train={"steps": steps},
        validate={"every": 2, "metric": "loss"},
        watch={"rows": 0, "teacher_no_better": None, **watch},
    )


@pytest.fixture(scope="module")
def whole(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The span-heavy run, never stopped."""
    return start(_span(models), tmp_path_factory.mktemp("whole") / "run").directory


def test_a_healthy_run_shows_no_signature(
    models: Models, taught: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(_mgsr(models, taught, 18, sequences={"share": 0.75}), tmp_path / "run")
    rows = metrics(run.directory)
    steps = [row for row in rows if row["kind"] == "step"]
    assert _signs(run.directory) == []
    assert "warning" not in capsys.readouterr().err
    assert sum("teacher_logp_after" in row.get("revision", {}) for row in steps) >= 8, "it was judged"
    validations = [row for row in rows if row["kind"] == "validation"]
    assert all(row["teacher_cross_entropy"] < row["cross_entropy"] for row in validations)
    assert validations[0]["teacher_cross_entropy"] == validations[1]["teacher_cross_entropy"], "a teacher stays"
    assert "run: no failure signature showed in 18 steps." in (run.directory / "page.html").read_text()
    told = answers_of(run.directory / "page.html")
    assert told["best"].text.startswith("This page holds one run, run (mgsr), so that no arm can be called the best.")
    assert "There is no SFT run here to hold it against" in told["sft"].text
    best, other = sorted(validations, key=lambda row: row["loss"])
    assert told["checkpoint"].text == (
        f"The student of step {best['step']} is kept: of 2 validations it has the lowest validation loss, "
        f"{best['loss']:.4f} nats; the runner-up is step {other['step']} with {other['loss']:.4f} nats, no interval is "
        "known, since a loss is one number over all rows."
    )
    assert told["rows"].text == (
        "None of 20 training rows was dropped or cut; none of 4 validation rows was dropped or cut."
    )
    drawn = sum(row["origin"].get(who, 0.0) for row in steps for who in ("student", "revised")) / 18
    revised = sum(row["origin"].get("revised", 0.0) for row in steps) / 18
    assert told["drawn"].text.startswith(f"{100 * drawn:.1f} % of the rows of 18 steps were drawn by the student")
    assert f"Revised were {100 * revised:.1f} % of all rows" in told["drawn"].text
    assert told["watch"].text == "No failure signature showed in 18 steps."
    tokens = sum(max(row["tokens"].values()) for row in steps)
    assert f"{tokens:,} response tokens were learned from" in told["cost"].text
    assert "No command repeats it: its rows were handed over in Python" in told["repeat"].text


def test_a_clip_that_keeps_one_class_is_told_of(
    models: Models, taught: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = {"clip": {"kind": "fixed", "lower": 0.9, "upper": 0.95}}
    run = start(_mgsr(models, taught, 12, token=token), tmp_path / "run")
    assert _names(run.directory) == [("clip-collapsed", 8)]
    said = capsys.readouterr().err
    assert said.count("warning: clip-collapsed at step 8: the clip has collapsed: at 100.0% of the tokens only") == 1
    assert "watch.clip_collapsed is 0.9\n  Lower method.token.clip.learning_rate" in said
    page = (run.directory / "page.html").read_text()
    assert page.index(">Failure signatures</h2>") < page.index(">Results</h2>")
    assert "run, after step 8: clip-collapsed. The clip has collapsed" in page
    told = answers_of(run.directory / "page.html")
    assert told["watch"].text.startswith("Yes, after step 8: clip-collapsed. The clip has collapsed: at 100.0% of the")
    assert "Lower method.token.clip.learning_rate" in told["watch"].text
    assert told["watch"].links == ["#signatures", "#training"]
    assert "The student of step 12 is kept: of 2 validations" in told["checkpoint"].text


def test_a_revision_that_makes_responses_worse_is_told_of(models: Models, taught: str, tmp_path: Path) -> None:
    """Greedy responses of a student that is its own teacher: every token that the teacher draws is a step back."""
    settings = recipe(
        models,
        "mgsr",
        method={"sequences": {"kind": "student"}},
        models={"teacher": taught, "student": taught},
        sampling={"max_new_tokens": 16, "temperature": 0},
        train={"steps": 9, "learning_rate": 1e-6},
        validate={"every": None},
    )
    run = start(settings, tmp_path / "run")
    ((name, step),) = _names(run.directory)
    assert (name, step) == ("revision-harm", 8)
    told = answers_of(run.directory / "page.html")
    assert told["watch"].text.startswith("Yes, after step 8: revision-harm. Revision makes responses worse")
    assert "Set method.revision.greedy=true" in told["watch"].text
    assert "100.0 % of the rows of 9 steps were drawn by the student. Revised were" in told["drawn"].text
    assert "so that the student of the last step, 9, is kept" in told["checkpoint"].text
    # What the advice says helps: the teacher's likeliest token is the one that stands there.
    settings["method"] = {"base": "mgsr", "sequences": {"kind": "student"}, "revision": {"greedy": True}}
    assert _names(start(settings, tmp_path / "greedy").directory) == []


def test_a_teacher_that_does_not_know_the_data_is_told_of(models: Models, tmp_path: Path) -> None:
    settings = recipe(models, "kd", method={"weights": {"supervised": 1}}, validate={"every": 10, "metric": "loss"})
    run = start(settings, tmp_path / "run", "train.steps=20", "train.learning_rate=5e-3")
    (sign,) = _signs(run.directory)
    validations = [row for row in metrics(run.directory) if row["kind"] == "validation"]
    first = next(row for row in validations if row["teacher_cross_entropy"] >= row["cross_entropy"])
    assert (sign["name"], sign["step"]) == ("teacher-no-better", first["step"])
    assert sign["value"] == pytest.approx(first["cross_entropy"] - first["teacher_cross_entropy"])


def test_a_span_term_that_dominates_is_told_of_once_also_by_a_run_that_is_resumed(
    models: Models, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _names(whole) == [("span-dominates", 4)]
    told = answers_of(whole / "page.html")
    assert told["watch"].text.startswith("Yes, after step 4: span-dominates. The span term dominates")
    assert "Lower method.weights.span" in told["watch"].text
    assert "0.0 % of the rows of 6 steps were drawn by the student" in told["drawn"].text
    run = tmp_path / "run"
    start_and_kill(_span(models), run, call=6)
    assert capsys.readouterr().err.count("warning: ") == 1
    start(_span(models), run, resume=True)
    assert "warning: " not in capsys.readouterr().err
    assert_same_run(whole, run)


def test_a_step_that_is_taken_again_shows_its_signature_again(models: Models, whole: Path, tmp_path: Path) -> None:
    """Killed between the signature and the next checkpoint: its line is cut back with its step, and comes again."""
    run = tmp_path / "run"
    start_and_kill(_span(models), run, before="save_checkpoint", call=2)
    assert _names(run) == [("span-dominates", 4)]
    start(_span(models), run, resume=True)
    assert_same_run(whole, run)


def test_strict_stops_at_the_first_signature_and_the_run_goes_on(models: Models, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(FailureSignature, match="stopped by --strict after step 4 of 6: span-dominates;") as stopped:
        _strict(_span(models), run)
    assert stopped.value.exit_code == 1
    again = f"limbeck train {shlex.quote(str(run))} --resume"
    assert f"go on all the same with: {again}" in str(stopped.value)
    assert f"(now 0.8; null = never): {again} --strict watch.span_dominates=NUMBER" in str(stopped.value)
    assert state(run)["position"]["step"] == 4
    assert "Yes, after step 4: span-dominates" in answers_of(run / "page.html")["watch"].text
    assert [row["kind"] for row in metrics(run)][-3:] == ["step", "watch", "validation"]
    done = _strict(_span(models), run, resume=True)
    assert done.directory == run, "it was told of this signature"
    assert_same_run(whole, run)


def test_strict_goes_on_under_another_threshold_and_stops_at_that(models: Models, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(FailureSignature):
        _strict(_span(models, 4, every=1, span_dominates=0.5), run)
    with pytest.raises(FailureSignature, match=r"watch\.span_dominates is 0\.6"):
        _strict(_span(models, 4, every=1, span_dominates=0.6), run, resume=True)
    _strict(_span(models, 4, every=1, span_dominates=None), run, resume=True)
    assert [row["threshold"] for row in _signs(run)] == [0.5, 0.6]
    assert Run(run).metrics()[-1]["step"] == 4


def _strict(settings: dict[str, Any], run: Path, *, resume: bool = False) -> Run:
    return limbeck.train({**settings, "run": str(run)}, rows=ROWS, resume=resume, strict=True)


def test_the_command_says_it_with_exit_code_1(
    models: Models, tmp_path: Path, toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _span(models, steps=5)
    settings["data"] = {**settings["data"], "corpus": str(toy_file)}
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(settings))
    assert main(["train", str(path), "--run", str(run), "--strict"]) == 1
    said = capsys.readouterr().err
    assert "error: stopped by --strict after step 4 of 5: span-dominates; everything is saved." in said
    assert main(["train", str(run), "--resume"]) == 0
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
