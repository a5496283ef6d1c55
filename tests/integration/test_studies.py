"""A study of tiny models: killed and resumed, with shared arms, with failing arms, rendered without torch."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.entry import main
from limbeck.errors import Stopped
from limbeck.studies import pool, running, scoring
from limbeck.studies.forecasting import forecast
from limbeck.studies.printing import printed
from limbeck.studies.resolving import planned_runs
from limbeck.studies.running import run_study
from limbeck.training import loop
from page_kit import answers_of
from study_kit import Ground, kept
from training_kit import Killed, kill_before


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground.make(tmp_path_factory.mktemp("studies"))


def quiet(text: str) -> None:
    """Nothing is said."""


@pytest.fixture(scope="module")
def whole(ground: Ground) -> dict[str, Any]:
    """The rows of the study when nothing stops it."""
    places = ground.places("whole")
    outcome = run_study(ground.study(), places, say=quiet, command="limbeck study mine.yaml")
    assert outcome.failures == {}
    assert outcome.page == places.work / "mine.html"
    return kept(places.rows)


def test_every_arm_and_seed_has_its_rows_and_nothing_else_stays(ground: Ground, whole: dict[str, Any]) -> None:
    assert len(whole) == 6
    places = ground.places("whole")
    assert list((places.work / "runs").iterdir()) == []
    assert list((places.work / "answers").iterdir()) == []
    for about, *rows in whole.values():
        assert about["corpora"]["toy"]["rows"] == 5
        answers = [row for row in rows if row["measure"] == "answers"]
        assert {(row["seed"], row["id"]) for row in answers} == {(s, f"toy-{i}") for s in (10, 20) for i in range(5)}
        assert all("text" not in row and "references" not in row for row in rows)
        assert all(0 <= row["scores"]["rouge_l"] <= 1 for row in answers)
    starts = {about["start"] for about, *_ in whole.values()}
    assert len(starts) == 1


def test_a_study_leaves_a_page_that_answers_and_leads_to_every_file_of_rows(
    ground: Ground, whole: dict[str, Any]
) -> None:
    work = ground.places("whole").work
    html = (work / "mine.html").read_text()
    files = set(re.findall(r'href="(rows/[^"]*)"', html))
    assert len(files) == 6
    assert all((work / file).is_file() for file in files)
    (work / "plain.html").write_text(re.sub(r' href="rows/[^"]*"', "", html))
    told = answers_of(work / "plain.html")
    assert "has the highest mean ROUGE-L over toy" in told["best"].text
    assert any(line.startswith("kd − sft: ") for line in told["sft"].lines)
    assert "so that the student of the last step, 2, is kept" in told["checkpoint"].text
    assert "training rows was dropped or cut" in told["rows"].text
    assert "sft, seed 0, sft, seed 1, kd, seed 0, kd, seed 1: 0.0 % of the rows of 2 steps" in told["drawn"].text
    assert "no failure signature showed in 2 steps" in told["watch"].text.casefold()
    assert told["cost"].text.startswith("6 runs: ")
    assert told["repeat"].command == "limbeck study mine.yaml"


def test_a_page_that_cannot_be_made_is_told_of_and_costs_nothing_else(
    ground: Ground, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.studies import study_page

    def broken(*given: Any, **named: Any) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(study_page, "write_study_page", broken)
    said: list[str] = []
    outcome = run_study(ground.study(), ground.places("whole"), say=said.append)
    assert outcome.page is None
    assert said == ["warning: the page of the study was not written: RuntimeError: no ink"]


@pytest.mark.parametrize(("module", "name", "call"), [(loop, "take_step", 6), (scoring, "evaluate_examples", 3)])
def test_a_killed_study_goes_on_and_ends_with_the_same_rows(
    ground: Ground, whole: dict[str, Any], module: Any, name: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ground.places(f"killed-{name}")
    study = ground.study()
    with monkeypatch.context() as patch:
        kill_before(patch, name, call=call, module=module)
        with pytest.raises(Killed):
            run_study(study, places, say=quiet)
    before = set(kept(places.rows))
    assert 0 < len(before) < 6
    said: list[str] = []
    run_study(study, places, say=said.append)
    assert kept(places.rows) == whole
    assert sum("run " in line for line in said) == 6 - len(before)


def test_a_finished_study_trains_nothing_again_even_without_its_models(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    monkeypatch.setattr(running, "train_or_resume", lambda recipe: pytest.fail("trained again"))
    said: list[str] = []
    run_study(ground.study(), ground.places("whole"), say=said.append)
    assert said == []


def test_an_arm_of_two_studies_is_trained_once(
    ground: Ground, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    through = running.train_or_resume
    monkeypatch.setattr(
        running, "train_or_resume", lambda recipe: trained.append(recipe.method["base"]) or through(recipe)
    )
    arms = {"mixed": {"method.base": "gkd"}, "again": {"method": {"base": "gkd"}}, "imitkd": {"method.base": "imitkd"}}
    run_study(ground.study("other", arms=arms, seeds=[0]), ground.places("whole"), say=quiet)
    assert trained == ["imitkd"]
    table = printed(ground.places("whole").rows, "other")
    assert "imitkd" in table
    assert "mixed" in table


def test_a_failed_arm_is_told_of_and_stops_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ground.places("failing")
    through = running.train_or_resume

    def sometimes(recipe: Any) -> Any:
        if recipe.method["base"] == "kd":
            raise RuntimeError("the disk is on fire\nand so on")
        return through(recipe)

    with monkeypatch.context() as patch:
        patch.setattr(running, "train_or_resume", sometimes)
        outcome = run_study(ground.study(seeds=[0]), places, say=quiet)
    assert outcome.failures == {"kd, seed 0": "RuntimeError: the disk is on fire"}
    assert len(kept(places.rows)) == 2
    table = printed(places.rows, "mine")
    assert "Failed: kd; the table is not complete" in table
    assert "the disk is on fire" in table
    again = run_study(ground.study(seeds=[0]), places, say=quiet)
    assert again.failures == {}
    assert "Failed" not in printed(places.rows, "mine")


def test_a_run_whose_process_was_killed_is_told_of(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "run_pool", lambda *args, **kwargs: None)
    outcome = run_study(ground.study(seeds=[0]), ground.places("killed"), jobs=2, say=quiet)
    assert set(outcome.failures) == {"sft, seed 0", "gkd, seed 0", "kd, seed 0"}
    assert "its process ended" in outcome.failures["kd, seed 0"]


def test_stages_are_built_in_a_process_of_their_own_where_runs_are(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: Any, **named: Any) -> None:
        raise AssertionError("this process, which lives as long as the study, trains nothing")

    started: list[str] = []
    monkeypatch.setattr(running, "build_stage", refused)
    monkeypatch.setattr(pool, "run_pool", lambda study, built, places, **named: started.extend(b.arm for b in built))
    recipe = ground.values()["recipe"]
    shared = {key: recipe[key] for key in ("data", "train", "validate")}
    stages = {
        name: {"recipe": {"method": {"base": "sft"}, "models": {"student": str(folder), "device": "cpu"}, **shared}}
        for name, folder in (("start", ground.folder / "student"), ("lost", ground.folder / "nowhere"))
    }
    arms = {"from start": {"models.student": "@start"}, "from nowhere": {"models.student": "@lost"}}
    study = ground.study("staged-apart", arms=arms, stages=stages, seeds=[0])
    said: list[str] = []
    outcome = run_study(study, ground.places("staged-apart"), jobs=2, say=said.append)
    assert started == ["from start"]
    assert "nowhere" in outcome.failures["from nowhere, seed 0"]
    assert "its process ended" in outcome.failures["from start, seed 0"]
    log = ground.places("staged-apart").work / "logs" / "stages.log"
    assert said[0] == f"stages are built; {log} tells how far they are"
    assert "stage start" in log.read_text()


def test_a_stopped_study_is_no_failure(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(recipe: Any) -> Any:
        raise Stopped(
            "stopped after step 1 of 4; everything is saved.\n  go on with: limbeck train one/of/many --resume"
        )

    monkeypatch.setattr(running, "train_or_resume", stop)
    places = ground.places("stopped")
    with pytest.raises(Stopped) as stopped:
        run_study(ground.study(), places, say=quiet)
    assert str(stopped.value) == (
        "stopped after step 1 of 4; everything is saved.\n  Give the same command again to go on"
    ), "the command of the one run would leave the others undone"
    assert not (places.work / "failed").exists()


def test_a_study_that_is_stopped_while_it_scores_says_how_to_go_on(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    places = ground.places("stopped-scoring")
    monkeypatch.setattr("limbeck.studies.scoring.scored_rows", interrupt)
    with pytest.raises(Stopped, match="Give the same command again to go on") as stopped:
        run_study(ground.study(), places, say=quiet)
    assert stopped.value.exit_code == 75
    assert not (places.work / "failed").exists()


def test_seeds_that_are_added_later_stand_beside_the_others(ground: Ground, whole: dict[str, Any]) -> None:
    places = ground.places("later")
    run_study(ground.study(seeds=[1], arms={"sft": {"method.base": "sft"}, "gkd": None}), places, say=quiet)
    run_study(ground.study(seeds=[0], arms={"sft": {"method.base": "sft"}, "gkd": None}), places, say=quiet)
    assert "0, 1" in printed(places.rows, "mine")
    assert all(whole[name] == rows for name, rows in kept(places.rows).items())


def test_a_longer_arm_goes_on_from_a_shorter_one_and_is_what_it_would_have_been(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"train.schedule": "constant"}
    arms = {"half": {**shared, "train.steps": 2}, "all": {**shared, "train.steps": 4}}
    handed = ground.places("handed")
    taken: list[int] = []
    through = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *args, **kwargs: taken.append(1) or through(*args, **kwargs))
    run_study(ground.study("course", arms=arms, seeds=[0]), handed, say=quiet)
    assert len(taken) == 4
    alone = ground.places("alone")
    run_study(ground.study("course", arms=arms, seeds=[0]), alone, only=("all",), say=quiet)
    assert len(taken) == 8
    found = kept(alone.rows)
    assert len(found) == 1
    assert found.items() <= kept(handed.rows).items()


def test_stages_are_built_once_shared_and_built_again_where_they_are_gone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, values = ground.places("staged"), ground.values()
    shared = values["recipe"]
    tuned = {"method": {"base": "sft"}, "data": shared["data"], "train": shared["train"], "validate": {"every": None}}
    stages = {
        "teacher": {"recipe": {**tuned, "models": {"student": shared["models"]["teacher"], "device": "cpu"}}},
        "start": {"shrink": {"model": shared["models"]["teacher"], "layers": [0, 2]},
                  "recipe": {**tuned, "models": {"device": "cpu"}}},
    }  # fmt: skip
    recipe = {**shared, "models": {"teacher": "@teacher", "student": "@start", "device": "cpu"}}
    arms = {"teacher": {"stage": "teacher"}, "gkd": None, "kd": {"method.base": "kd"}}
    study = ground.study("staged", recipe=recipe, stages=stages, arms=arms, seeds=[0], controls=True)
    outcome = run_study(study, places, say=quiet)
    assert outcome.failures == {}
    assert len(list((places.work / "stages").iterdir())) == 3
    rows = kept(places.rows)
    assert len(rows) == 6
    table = printed(places.rows, "staged")
    assert "control: shuffled teacher" in table
    assert "different starts" not in table
    for folder in (places.work / "stages").iterdir():
        shutil.rmtree(folder)
    gone = next(name for name, (about, *_) in rows.items() if about["arm"] == "kd")
    (places.rows / gone).unlink()
    run_study(study, places, say=quiet)
    assert kept(places.rows) == rows


def test_a_table_is_made_of_rows_alone_in_a_moment(ground: Ground, whole: dict[str, Any]) -> None:
    rows = ground.places("whole").rows
    program = (
        "import sys; from limbeck.cli.entry import main; "
        f"code = main(['study', 'mine', '--table', '--rows', {str(rows)!r}, '--format', 'markdown']); "
        "loaded = {'torch', 'transformers', 'datasets', 'nltk'} & set(sys.modules); "
        "sys.exit(f'loaded: {loaded}' if loaded else code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| sft |" in done.stdout
    assert time.monotonic() - started < 20, "two seconds on an idle machine"


@pytest.mark.parametrize("format", ["markdown", "text", "latex", "csv", "html"])
def test_every_format_has_every_arm(ground: Ground, whole: dict[str, Any], format: str) -> None:
    text = printed(ground.places("whole").rows, "mine", format=format)
    assert all(arm in text for arm in ("sft", "gkd", "kd"))


def test_the_command_says_what_it_would_do_and_does_it(
    ground: Ground, capsys: pytest.CaptureFixture[str], whole: dict[str, Any]
) -> None:
    ground.study()
    work = ground.places("whole").work
    command = ["study", str(ground.folder / "mine.yaml"), "--out", str(work)]
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "smallest difference that shows" in told
    assert told.count(": done") == 6
    assert main(command) == 0
    assert "average" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "known"),
    [({"device": "cpu"}, True), ({"device": "cuda", "accelerator": "Fast One"}, False)],
)
def test_times_of_another_device_are_no_estimate(
    tmp_path: Path, ground: Ground, whole: dict[str, Any], device: dict[str, str], known: bool
) -> None:
    study, places = ground.study(), ground.places("whole")
    rows = tmp_path / "rows"
    shutil.copytree(places.rows, rows)
    left_out = next(each for each in planned_runs(study) if each.label == "gkd, seed 1")
    places = replace(places, rows=rows)
    places.kept(study, left_out).unlink()
    for path in rows.glob("*.jsonl.gz"):
        about, *others = gzip.decompress(path.read_bytes()).splitlines()
        changed = json.loads(about)
        changed["environment"] = {
            key: value for key, value in changed["environment"].items() if key not in ("device", "accelerator")
        } | device
        path.write_bytes(gzip.compress(b"\n".join([json.dumps(changed).encode(), *others])))
    (awaited,) = [row for row in forecast(study, places).rows if row.state != "done"]
    assert awaited.label == "gkd, seed 1"
    assert awaited.how.startswith("measured on another seed" if known else "estimated from parameter counts")


def test_an_arm_that_was_never_run_is_estimated_by_how_long_the_others_took(
    tmp_path: Path, ground: Ground, whole: dict[str, Any]
) -> None:
    study, places = ground.study(), ground.places("whole")
    rows = tmp_path / "rows"
    shutil.copytree(places.rows, rows)
    there, gone = replace(places, rows=rows), {each.key for each in planned_runs(study) if each.arm == "gkd"}
    for each in planned_runs(study):
        path = there.kept(study, each)
        about, *others = gzip.decompress(path.read_bytes()).splitlines()
        slow = {**json.loads(about), "seconds": 1e6, "scoring_seconds": 0.0}
        path.write_bytes(gzip.compress(b"\n".join([json.dumps(slow).encode(), *others])))
        if each.key in gone:
            path.unlink()
    awaited = [row for row in forecast(study, there).rows if row.state != "done"]
    assert {row.label for row in awaited} == {"gkd, seed 0", "gkd, seed 1"}
    assert {row.how for row in awaited} == {"estimated from parameter counts and from how long 2 other arms took"}
    # The three arms take about as many operations; the others took a million seconds.
    assert all(2e5 < row.seconds < 5e6 for row in awaited if row.seconds is not None)
    shutil.rmtree(rows)
    assert all(row.seconds is not None and row.seconds < 1e3 for row in forecast(study, there).rows)


def test_an_arm_to_compare_with_that_there_is_not_is_refused_before_anything_runs(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    ground.study("fresh")
    work = ground.folder / "never"
    for name, told in ((str(ground.folder / "fresh.yaml"), "Did you mean 'gkd'"), ("injected-errors", "has no arm")):
        assert main(["study", name, "--out", str(work), "--against", "gdk"]) != 0
        assert told in capsys.readouterr().err
    assert not work.exists()


def test_the_dry_run_of_a_new_study_writes_nothing(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    ground.study("fresh")
    work = ground.folder / "never"
    assert main(["study", str(ground.folder / "fresh.yaml"), "--out", str(work), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "6 rows of fresh: 6 different runs" in told
    assert "estimated from parameter counts" in told
    assert "disk: about" in told
    assert not work.exists()


def test_a_failing_arm_makes_the_command_fail_after_the_table(
    ground: Ground, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def burn(recipe: Any) -> Any:
        raise RuntimeError("on fire")

    monkeypatch.setattr(running, "train_or_resume", burn)
    ground.study("burning")
    work = ground.folder / "burning"
    assert main(["study", str(ground.folder / "burning.yaml"), "--out", str(work), "--seeds", "0"]) == 1
    shown = capsys.readouterr()
    assert "not complete" in shown.out
    assert "3 runs failed" in shown.err
    assert "on fire" in shown.err


@pytest.mark.slow
def test_two_at_a_time_give_the_same_rows(ground: Ground, whole: dict[str, Any]) -> None:
    places = ground.places("pool")
    assert run_study(ground.study(), places, jobs=2, say=quiet).failures == {}
    found = kept(places.rows)
    assert found.keys() == whole.keys()
    for name, (about, *rows) in found.items():
        assert about["steps"] == whole[name][0]["steps"]
        assert rows == whole[name][1:]


def test_an_unknown_study_is_told_of_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "tabel1", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "Did you mean 'table1'?" in told
    assert "injected-errors" in told
