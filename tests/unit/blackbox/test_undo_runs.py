"""Whole runs of the loop with a rule as teacher: what is on disk, what a kill costs, what a replay gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import limbeck.blackbox.artefacts as artefacts
from limbeck.blackbox.artefacts import read_json, read_rows
from limbeck.blackbox.exporting import export
from limbeck.blackbox.loop import UndoRun, run_undo
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.replaying import _compare, replay
from limbeck.blackbox.splits import text_of
from limbeck.blackbox.standing import standing
from limbeck.blackbox.students import row_tokens
from limbeck.blackbox.transferring import transfer
from limbeck.blackbox.workshop import read_splits
from limbeck.cli import main
from limbeck.errors import CheckpointError, ConfigError, NothingToLearn, Stopped
from limbeck.files import alone_in
from page_kit import answers_of
from undo_kit import undo_values

CONTROLS = ["one-shot", "blind", "shuffled"]


class Killed(BaseException):
    """What a test raises in the place of SIGKILL: nothing in the library catches it."""


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undo")


@pytest.fixture(scope="module")
def finished(folder: Path) -> UndoRun:
    """An uninterrupted run with the controls, and everything that its teacher was asked."""
    values = undo_values(folder, teacher={"seen": str(folder / "seen.jsonl")}, controls=CONTROLS)
    return run_undo(values, say=quiet)


def asked(folder: Path) -> list[dict[str, Any]]:
    return read_rows(folder / "seen.jsonl")


def test_a_run_leaves_rows_numbers_students_and_a_report(finished: UndoRun) -> None:
    run = finished.directory
    start, later = run / "iter_00", run / "arms" / "undo-v1" / "iter_01"
    for place in (start, later):
        train = read_rows(place / "train.jsonl")
        assert len(train) == 22
        assert all(row["completion"].endswith(row["completion"].split("#### ")[1]) for row in train)
        assert (place / "training" / "student" / "config.json").is_file()
        metrics = read_json(place / "metrics.json")
        assert metrics["accuracy"]["test"]["questions"] == 8
        assert metrics["refined"] == metrics["accepted"] == metrics["rows"] == 22
    assert list(finished.arms) == ["undo-v1", "blind", "one-shot", "shuffled"]
    report = read_json(run / "report.json")
    assert report["summary"][0] == "The teacher was a rule that adds, which is no evidence about language models."
    assert set(report["method_minus_control"]["test"]) == set(CONTROLS)
    page = (run / "report.html").read_text()
    assert "rule that adds" in page
    assert "Questions followed through the rounds" in page
    told = answers_of(run / "report.html")
    assert "on the same 8 questions (95 % paired" in told["best"].text or "level with" in told["best"].text
    assert "undo-v1 − one-shot, which is SFT on the first rationales: " in told["sft"].text
    assert "the student of round" in told["checkpoint"].text
    assert "it ended because: all 1 rounds are done" in told["checkpoint"].text
    assert "of 44 rationales that were wanted 44 were accepted (52 were asked for, with" in told["rows"].text
    assert "0.0 % of 22 rows are the student's own answers" in told["drawn"].text
    assert "100.0 % rewritten by the teacher in this round" in told["drawn"].text
    assert "No failure signature showed in 4 trainings of students" in told["watch"].text
    assert "No call was entered, so that no money was spent" in told["cost"].text
    assert "its stages took" in told["cost"].text
    assert "undo_kit:SumsWriter, is your own" in told["repeat"].text
    # Rounds differ by half a step at most.
    aim = sum(map(row_tokens, read_rows(start / "train.jsonl")))
    for found in report["arms"].values():
        for each in found["rounds"]:
            a_step = each["train"]["tokens"] / each["train"]["steps"]
            assert abs(each["train"]["tokens"] - aim) <= 0.5 * a_step + 1


def test_probe_stop_and_test_are_never_learned_from_and_stop_and_test_never_shown(
    finished: UndoRun, folder: Path
) -> None:
    splits = read_splits(finished.directory / "items.jsonl")
    held = {text_of(item) for item in (*splits.probe, *splits.stop, *splits.test)}
    for path in finished.directory.rglob("train.jsonl"):
        assert held.isdisjoint(row["prompt"].casefold() for row in read_rows(path))
    hidden = {item.question for item in (*splits.stop, *splits.test)}
    sent = (folder / "seen.jsonl").read_text()
    assert not [question for question in hidden if f'"{question}"' in sent]


def test_texts_of_teacher_and_student_cannot_break_the_page(finished: UndoRun, tmp_path: Path) -> None:
    from limbeck.blackbox.page import write_report

    hostile = '</td></script><script>alert("x")</script><img src=x onerror=alert(1)>'
    run = tmp_path / "hostile"
    shutil.copytree(finished.directory, run)
    for name in ("rationales", "train_attempts", "test_attempts", "stop_attempts", "probe_attempts"):
        for path in run.rglob(f"{name}.jsonl"):
            artefacts.write_rows(path, [{**row, "text": f"{hostile} {row['text']}"} for row in read_rows(path)])
    page = write_report(run).read_text()
    assert "onerror=alert(1)" in page
    assert hostile not in page
    assert "<img src=x" not in page
    assert '<script>alert("x")' not in page


def test_blind_sees_nothing_and_shuffled_nothing_of_its_own(finished: UndoRun, folder: Path) -> None:
    later = [each for each in asked(folder) if each["round"] == 1]
    per_arm = len(later) // 3
    main_arm, blind, mixed = later[:per_arm], later[per_arm : 2 * per_arm], later[2 * per_arm :]
    assert len(main_arm) == len(blind) == len(mixed) == 22 + 4
    assert [each["item"]["id"] for each in main_arm] == [each["item"]["id"] for each in blind]
    said = {row["item_id"]: row["text"] for row in read_rows(finished.directory / "iter_00" / "train_attempts.jsonl")}
    shown = {row["item_id"]: row["text"] for row in read_rows(finished.directory / "iter_00" / "probe_attempts.jsonl")}
    for each in main_arm:
        if each["item"]["id"] in said:
            assert each["attempts"][0]["text"] == said[each["item"]["id"]]
        assert {one["item"]["id"]: one["attempts"][0]["text"] for one in each["probe"]} == shown
    assert all(not each["attempts"] and not each["probe"] and not each["summary"] for each in blind)
    assert all(each["previous"] for each in blind)
    for each in mixed:
        own = said.get(each["item"]["id"])
        others = Counter(text for id, text in said.items() if id != each["item"]["id"])
        if own is not None:
            assert others[each["attempts"][0]["text"]]
            assert each["attempts"][0]["item_id"] == each["item"]["id"]


def test_a_kill_between_any_two_writes_changes_nothing(
    finished: UndoRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its n-th write at the n-th start, again and again, until it comes through."""
    values = {**undo_values(folder, teacher={"seen": str(folder / "seen.jsonl")}, controls=CONTROLS)}
    values["run"] = str(folder / "killed")
    real = os.replace
    kills = 0
    for start in range(1, 60):
        left = start

        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if str(folder / "killed") in str(target) and ".draft" in str(source):
                left -= 1
                if left < 0:
                    raise Killed
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        is_there = (folder / "killed" / "recipe.yaml").is_file()
        if not is_there:
            shutil.rmtree(folder / "killed", ignore_errors=True)
        try:
            run_undo(values, resume=is_there, say=quiet)
            break
        except Killed:
            kills += 1
    monkeypatch.setattr(os, "replace", real)
    assert kills > 5
    assert len(_compare(finished.directory, folder / "killed")) > 60


@pytest.mark.parametrize("place", ["train", "answers"])
def test_a_kill_inside_a_training_and_between_answers(
    place: str, finished: UndoRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.evaluation.answers import AnswerFile
    from limbeck.training import loop

    values = {**undo_values(folder), "run": str(folder / f"in-{place}")}
    owner, name, after = (loop, "take_step", 2) if place == "train" else (AnswerFile, "append", 1)
    real, calls = getattr(owner, name), 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, counted)
        with pytest.raises(Killed):
            run_undo(values, say=quiet)
    run_undo(values, resume=True, say=quiet)
    for name in ("iter_00", "arms/undo-v1/iter_01"):
        for file in ("train.jsonl", "stop_attempts.jsonl", "student.json", "metrics.json"):
            assert (folder / f"in-{place}" / name / file).read_bytes() == (
                finished.directory / name / file
            ).read_bytes()


def test_control_c_is_75_and_resumable(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import limbeck.blackbox.rewriting as rewriting

    recipe = folder / "interrupted.yaml"
    recipe.write_text(json.dumps({**undo_values(folder), "run": str(folder / "interrupted")}))

    def interrupted(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    # A job in the background of a shell inherits an ignored Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(rewriting, "acquire", interrupted)
            assert main(["undo", "run", str(recipe)]) == 75
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert f"limbeck undo resume {folder / 'interrupted'}" in capsys.readouterr().err
    assert main(["undo", "run", str(recipe)]) == 2
    assert main(["undo", "resume", str(recipe)]) == 0
    assert "page: " in capsys.readouterr().out
    assert main(["undo", "status", str(folder / "interrupted")]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_finished_run_is_resumed_for_nothing_and_extended_by_rounds_and_controls(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**undo_values(folder, teacher={"seen": str(folder / "further.jsonl")}), "run": str(folder / "further")}
    run_undo(values, say=quiet)
    count = len(read_rows(folder / "further.jsonl"))
    run_undo(values, resume=True, say=quiet)
    assert len(read_rows(folder / "further.jsonl")) == count
    run = run_undo(values, "method.rounds=2", "controls=[format-only]", resume=True, say=quiet)
    assert run.arms["undo-v1"]["rounds"][-1].endswith("iter_02")
    terse = read_rows(run.directory / "arms" / "format-only" / "iter_00" / "train.jsonl")
    assert all(row["completion"].startswith("#### ") for row in terse)
    with pytest.raises(CheckpointError, match=r"train.batch_rows: 8 -> 4"):
        run_undo(values, "train.batch_rows=4", resume=True, say=quiet)
    (run.directory / "iter_00" / "train.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match=r"train.jsonl is not what the stage 'assemble' wrote"):
        run_undo(values, resume=True, say=quiet)


def test_a_folder_that_is_taken_and_one_that_is_no_run(finished: UndoRun, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists and is not empty"):
        run_undo(undo_values(folder), say=quiet)
    with pytest.raises(CheckpointError, match="not the folder of an UNDO run"):
        run_undo({**undo_values(folder), "run": str(tmp_path)}, resume=True, say=quiet)
    with pytest.raises(ConfigError, match="hand-written recipes only"):
        run_undo(finished.directory, resume=True, say=quiet)


def test_a_run_that_another_process_works_on_is_left_to_it(folder: Path) -> None:
    values, refused = {**undo_values(folder), "run": str(folder / "shared")}, []

    def meanwhile(line: str) -> None:
        with pytest.raises(CheckpointError, match="another process is writing into") as found:
            run_undo(values, resume=True, say=quiet)
        refused.append(found.value.exit_code)

    run = run_undo(values, say=meanwhile)
    assert set(refused) == {2}
    with alone_in(run.directory):
        recipe = UndoRecipe.load(undo_values(folder))
        assert replay(run.directory, out=folder / "shared-again", recipe=recipe, say=quiet)[1]


def test_a_folder_that_is_taken_while_the_questions_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import limbeck.blackbox.workshop as workshop

    values, read = {**undo_values(folder), "run": str(folder / "overtaken")}, workshop.make_splits

    def slowly(*given: Any) -> Any:
        (folder / "overtaken").mkdir()
        (folder / "overtaken" / "recipe.yaml").write_text("another's")
        return read(*given)

    monkeypatch.setattr(workshop, "make_splits", slowly)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        run_undo(values, say=quiet)
    assert (folder / "overtaken" / "recipe.yaml").read_text() == "another's"


def test_a_replay_is_byte_identical(finished: UndoRun, folder: Path) -> None:
    done, compared = replay(
        finished.directory, out=folder / "again", recipe=UndoRecipe.load(_recipe(folder)), say=quiet
    )
    assert "report.json" in compared
    assert "arms/undo-v1/iter_01/rationales.jsonl" in compared
    assert any(name.endswith("model.safetensors") for name in compared)
    assert done.arms == finished.arms
    (folder / "again" / "cost.csv").write_text("")
    with pytest.raises(CheckpointError, match=r"the replay's cost.csv differs"):
        _compare(finished.directory, folder / "again")


def test_a_replay_that_is_stopped_says_that_it_begins_anew(
    finished: UndoRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import limbeck.blackbox.loop as loop

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    recipe = UndoRecipe.load(_recipe(folder))
    with monkeypatch.context() as patched:
        patched.setattr(loop, "first_round", interrupted)
        with pytest.raises(Stopped, match=r"begins anew: remove .*stopped-again, then give the same command again"):
            replay(finished.directory, out=folder / "stopped-again", recipe=recipe, say=quiet)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        replay(finished.directory, out=folder / "stopped-again", recipe=recipe, say=quiet)


def _recipe(folder: Path) -> dict[str, Any]:
    return undo_values(folder, teacher={"seen": str(folder / "seen.jsonl")}, controls=CONTROLS)


def test_rows_are_exported_and_read_back(finished: UndoRun, tmp_path: Path) -> None:
    from limbeck.data.corpora import load_corpus

    for path in export(finished.directory, round=1, out=tmp_path):
        examples = load_corpus(str(path), split="train").examples
        assert len(examples) == 22
        assert "#### " in examples[0].references[0]
    with pytest.raises(ConfigError, match="has no round 7; it has 0, 1"):
        export(finished.directory, round=7, out=tmp_path)
    with pytest.raises(CheckpointError, match="no outcome of an arm 'star'"):
        export(finished.directory, arm="star", out=tmp_path)


def test_another_student_learns_from_the_data(finished: UndoRun, folder: Path) -> None:
    from limbeck.testing import save_tiny

    other = save_tiny(folder / "other", seed=3)
    numbers = transfer(finished.directory, str(other), max_new_tokens=120, say=quiet)
    assert numbers["left_out"] == {"first": 0, "final": 0, "stop": 0, "test": 0}
    assert set(numbers["final_minus_first"]) == {"stop", "test"}
    learned: list[str] = []

    def trainings(line: str) -> None:
        learned.extend([line] if line.startswith("transfer to") else [])

    again = transfer(finished.directory, str(other), max_new_tokens=120, say=trainings)
    assert again == numbers
    assert learned == []
    # Another arm or round shares what the first rationales make of this student; another length shares nothing.
    blind = transfer(finished.directory, str(other), arm="blind", round=1, max_new_tokens=120, say=trainings)
    assert (blind["arm"], blind["round"], blind["first"]) == ("blind", 1, numbers["first"])
    assert len(learned) == 1
    transfer(finished.directory, str(other), round=0, max_new_tokens=120, say=quiet)
    transfer(finished.directory, str(other), max_new_tokens=110, say=trainings)
    assert len(learned) == 3
    places = {str(path.parent.relative_to(finished.directory / "transfer")) for path in _transferred(finished)}
    name, best = str(other).strip("/").replace("/", "-"), finished.arms["undo-v1"]["best"]
    assert places == {
        f"{name}/120-tokens/undo-v1-round-{best}",
        f"{name}/120-tokens/undo-v1-round-0",
        f"{name}/120-tokens/blind-round-1",
        f"{name}/110-tokens/undo-v1-round-{best}",
    }
    with pytest.raises(ConfigError, match="undo-v1 has no round 7; it has 0, 1"):
        transfer(finished.directory, str(other), round=7, say=quiet)


def test_another_student_is_told_by_its_weights(finished: UndoRun, folder: Path) -> None:
    from limbeck.testing import save_tiny

    other = save_tiny(folder / "changing", seed=3)
    transfer(finished.directory, str(other), round=1, max_new_tokens=60, say=quiet)
    learned: list[str] = []
    spelled = f"{folder}/./changing/"
    place = finished.directory / "transfer"
    (place / spelled.strip("/.~").replace("/", "-")).symlink_to(place / str(other).strip("/").replace("/", "-"))
    transfer(finished.directory, spelled, round=1, max_new_tokens=60, say=learned.append)
    assert learned == []
    save_tiny(other, seed=4)
    with pytest.raises(CheckpointError, match=r"other inputs[\s\S]*\n  remove .*first to do it again"):
        transfer(finished.directory, str(other), round=0, max_new_tokens=60, say=quiet)


def test_what_another_student_cannot_read_whole_is_left_out_and_told(finished: UndoRun, folder: Path) -> None:
    from limbeck.testing import byte_tokenizer, save_tiny

    other = save_tiny(folder / "counting-more", seed=3)
    tokenizer = byte_tokenizer()
    # A prompt of the shorter sums takes just what the recipe has for one, that of the longer ones more.
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '.' * 19 if message['role'] == 'user' }}{{ message['content'] }}<end>"
        "{% endfor %}"
    )
    tokenizer.save_pretrained(other)
    said: list[str] = []
    numbers = transfer(finished.directory, str(other), round=1, max_new_tokens=100, say=said.append)
    held = read_splits(finished.directory / "items.jsonl").parts()
    whole = {part: [item for item in held[part] if len(item.question) == 4] for part in ("stop", "test")}
    assert 0 < len(whole["test"]) < len(held["test"])
    for part, items in whole.items():
        assert numbers["first"][part]["questions"] == numbers["final"][part]["questions"] == len(items)
        assert numbers["left_out"][part] == len(held[part]) - len(items)
    assert f"{numbers['left_out']['test']} of test" in said[0]
    for told, length in (("no row of", 5), ("are 424 tokens, but .* reads at most 256", 400)):
        with pytest.raises((NothingToLearn, ConfigError), match=f"{told}[\\s\\S]*--max-new-tokens"):
            transfer(finished.directory, str(other), round=1, max_new_tokens=length, say=quiet)


def test_a_transfer_that_is_stopped_goes_on_by_the_same_command(
    finished: UndoRun, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import limbeck.blackbox.transferring as transferring
    from limbeck.testing import save_tiny

    other = str(save_tiny(folder / "stopped", seed=3))
    command = ["undo", "transfer", str(finished.directory), "--student", other, "--round", "1"]

    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(transferring, "attempt", interrupted)
        assert main(command) == 75
    assert "the same command goes on" in capsys.readouterr().err
    name = other.strip("/").replace("/", "-")
    with alone_in(finished.directory / "transfer" / name / "40-tokens" / "first"):
        assert main(command) == 2
    assert "another process" in capsys.readouterr().err
    assert main(command) == 0
    assert "final − first" in capsys.readouterr().out
    assert main([*command[:-1], "0"]) == 0
    assert "round 0 is the start of 'undo-v1'" in capsys.readouterr().err


def _transferred(run: UndoRun) -> list[Path]:
    return [path for path in (run.directory / "transfer").rglob("metrics.json") if "training" not in path.parts]


def test_what_stands_of_a_run(finished: UndoRun, tmp_path: Path) -> None:
    lines = standing(finished.directory)
    assert lines[-1] == "finished"
    assert any(line.startswith("undo-v1 round 1: stop ") for line in lines)
    with pytest.raises(CheckpointError, match="not the folder of an UNDO run"):
        standing(tmp_path)


def test_where_every_answer_is_right_nothing_is_rewritten_blindly_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import limbeck.blackbox.students as students
    from limbeck.blackbox.checkers import Verdict

    right = Verdict(extracted="", mode="marker", correct=True)
    monkeypatch.setattr(students, "judged", lambda item, text, *, finish: (right, ""))
    values = undo_values(folder, name="right", method={"base": "adaptdistill"}, controls=["blind", "shuffled"])
    run = run_undo(values, say=quiet)
    assert {each["reason"] for each in run.arms.values()} == {"nothing is left to rewrite or to learn from"}
    assert {tuple(each["rounds"]) for each in run.arms.values()} == {("iter_00",)}


def test_a_teacher_that_is_mostly_wrong_ends_the_loop(folder: Path) -> None:
    values = undo_values(folder, name="wrong", teacher={"wrong": "0"}, method={"rounds": 3})
    run = run_undo(values, "stop.min_accepted=0.95", say=quiet)
    outcome = run.arms["undo-v1"]
    assert "of the rationales were accepted, less than 95%" in outcome["reason"]
    rejected = read_rows(run.directory / "iter_00" / "rejected.jsonl")
    assert {row["reason"] for row in rejected} == {"wrong"}
    assert max(row["sample"] for row in rejected) == 2
    trained = {row["item_id"] for row in read_rows(run.directory / "iter_00" / "train.jsonl")}
    assert trained.isdisjoint(row["item_id"] for row in rejected)


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_training(finished: UndoRun, folder: Path) -> None:
    recipe = folder / "sigkill.yaml"
    recipe.write_text(json.dumps({**_recipe(folder), "controls": [], "run": str(folder / "sigkill")}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    process = subprocess.Popen([sys.executable, "-m", "limbeck", "undo", "run", str(recipe)], env=environment)
    watched = folder / "sigkill" / "iter_00" / "training" / "metrics.jsonl"
    while process.poll() is None and not (watched.is_file() and watched.read_text().count("\n")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    run_undo(json.loads(recipe.read_text()), resume=True, say=quiet)
    for file in ("iter_00/student.json", "arms/undo-v1/iter_01/student.json"):
        assert (folder / "sigkill" / file).read_bytes() == (finished.directory / file).read_bytes()


def test_stopped_is_told_with_the_way_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import limbeck.blackbox.rewriting as rewriting

    def away(*given: Any, **named: Any) -> None:
        raise Stopped("the teacher stays away")

    monkeypatch.setattr(rewriting, "acquire", away)
    with pytest.raises(Stopped, match=r"stays away[\s\S]*limbeck undo resume"):
        run_undo(undo_values(folder, name="away"), say=quiet)
