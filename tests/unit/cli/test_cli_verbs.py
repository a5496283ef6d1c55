from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import limbeck.models
from limbeck.cli import main
from limbeck.config import Recipe
from limbeck.testing import save_tiny


def test_init_writes_a_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text('{"instruction": "Say hello", "output": "Hello"}\n')
    assert main(["init", "--data", "mine.jsonl"]) == 0
    assert "next: read it, then: limbeck train recipe.yaml" in capsys.readouterr().out
    assert Recipe.load("recipe.yaml").data.corpus == "mine.jsonl"
    assert main(["init", "--data", "mine.jsonl"]) == 2
    assert main(["init", "--data", "nothing.jsonl", "--force"]) == 2
    assert main(["init", "--data", "mine.jsonl", "--force"]) == 0


def test_quickstart_passes_its_arguments_on(tmp_path, capsys, monkeypatch):
    seen: list[Any] = []

    def quickstart(*, data: object, minutes: object, out: Path, fast: bool, tune_teacher: bool, say: object) -> Path:
        seen.append((data, minutes, out, fast, tune_teacher))
        return out / "page.html"

    module = ModuleType("limbeck.studies.first_run")
    module.quickstart = quickstart  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "limbeck.studies", ModuleType("limbeck.studies"))
    monkeypatch.setitem(sys.modules, "limbeck.studies.first_run", module)
    assert main(["quickstart"]) == 0
    assert main(["quickstart", "--data", "a.jsonl", "--minutes", "5", "--out", "o", "--fast", "--tune-teacher"]) == 0
    assert seen == [(None, None, Path("quickstart"), False, False), (Path("a.jsonl"), 5.0, Path("o"), True, True)]
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {Path('o') / 'page.html'}"
    assert main(["quickstart", "--minutes", "0"]) == 2


def test_fetch_names_the_folder(capsys, monkeypatch):
    monkeypatch.setitem(vars(limbeck.models), "fetch", lambda name: Path("cache") / name)
    assert main(["fetch", "smollm2-135m-instruct"]) == 0
    assert capsys.readouterr().out == f"model: {Path('cache') / 'smollm2-135m-instruct'}\n"
    monkeypatch.undo()
    assert main(["fetch", "smolm2-135m-instruct"]) == 2
    assert "Did you mean 'smollm2-135m-instruct'?" in capsys.readouterr().err


def test_shrink_writes_a_smaller_model(tmp_path, capsys):
    model, out = tmp_path / "model", tmp_path / "small"
    save_tiny(model, layers=3)
    for wrong in ("0,", "0,9", "2"):
        assert main(["shrink", str(model), "--layers", wrong, "--out", str(out)]) == 2
    assert not out.exists()
    assert main(["shrink", str(model), "--layers", "0,2", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 2
    assert main(["shrink", str(model), "--layers", "0,1", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it."""

    def make(name: str, *, rouge: float) -> Path:
        folder = tmp_path / name
        (folder / "validation").mkdir(parents=True)
        (folder / "answers" / "plain").mkdir(parents=True)
        (folder / "recipe.yaml").write_text("method:\n  base: gkd\n")
        step = {"kind": "step", "loss": 1.0, "terms": {"token": 0.5}, "tokens": {"token": 8}, "gradient_norm": 1.0,
                "origin": {"student": 1.0}, "time": {"seconds": 2.0}}  # fmt: skip
        valid = {"kind": "validation", "step": 2, "loss": 0.4, "cross_entropy": 1.5, "rouge_l": rouge, "is_best": True}
        rows = [{**step, "step": 1}, {**step, "step": 2}, valid]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "st')
        sample = {"step": 1, "origin": "student", "key": [0, 1], "prompt": "Ask <b>", "response": "Say"}
        (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
        answer = {"corpus": "valid", "seed": 10, "id": "v-1", "text": f"<script>{name}", "references": ["right"],
                  "category": "", "scores": {"rouge_l": rouge}}  # fmt: skip
        (folder / "validation" / "step-000002.jsonl").write_text(json.dumps(answer) + "\n")
        header = {"model": "m", "corpus": "dolly"}
        lines = [header, {**answer, "corpus": "dolly"}, {**answer, "corpus": "dolly", "id": "v-2"}]
        (folder / "answers" / "plain" / "dolly-answers-seed10.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
        return folder

    return make


def test_report_compares_runs(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    first, second = run("first", rouge=0.25), run("second", rouge=0.5)
    assert main(["report", str(first), str(second), "-o", str(page)]) == 0
    assert capsys.readouterr().out == f"page: {page}\n"
    html = page.read_text()
    for expected in ("first", "second", "Evaluation: plain", "dolly", "50.0", "Validation: ROUGE-L", "base: gkd"):
        assert expected in html
    assert "<script>first" not in html
    assert "&lt;script&gt;first" in html


@pytest.mark.parametrize("asked", [["--table"], ["--dry-run"], []])
def test_a_study_file_with_a_built_in_name_is_refused_before_anything_is_done(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "injected-errors.yaml").write_text("recipe: {}\n")
    assert main(["study", "injected-errors.yaml", *asked]) == 2
    assert "a built-in study is called 'injected-errors'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["injected-errors.yaml"]


def test_report_refuses_what_is_no_run(run, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    broken = run("broken", rouge=0.1)
    (broken / "metrics.jsonl").write_text("{\n")
    assert main(["report", str(broken), "-o", str(tmp_path / "page.html")]) == 2
    assert "metrics.jsonl line 1" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_report_into_a_folder_is_refused_and_leaves_nothing(run, tmp_path, capsys):
    (tmp_path / "pages").mkdir()
    assert main(["report", str(run("one", rouge=0.1)), "-o", str(tmp_path / "pages")]) == 2
    assert f"{tmp_path / 'pages'} cannot be used: Is a directory" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*.draft"))


def test_a_report_replaces_a_page_and_nothing_else(run, tmp_path, capsys):
    made, page = run("one", rouge=0.1), tmp_path / "page.html"
    assert [main(["report", str(made), "-o", str(page)]) for _ in range(2)] == [0, 0]
    recipe = (made / "recipe.yaml").read_text()
    assert main(["report", str(made), "-o", str(made / "recipe.yaml")]) == 2
    assert "exists and is no page; name another file" in capsys.readouterr().err
    assert (made / "recipe.yaml").read_text() == recipe


@pytest.mark.parametrize(
    ("name", "message"), [("rows.jsonl", "is no table of the format csv by its name (.csv)"), (".", "is a folder")]
)
def test_a_table_is_saved_over_a_table_alone_and_said_before_the_study_runs(name, message, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert main(["study", "table1", "--format", "csv", "--save", str(tmp_path / name)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "rows.jsonl").read_text() == "{}\n"


def test_arms_of_an_empty_variable_are_not_all_arms(tmp_path, capsys):
    assert main(["study", "table1", "--dry-run", "--arms", "", "--out", str(tmp_path)]) == 2
    assert "arm" in capsys.readouterr().err


def test_a_place_in_a_study_is_named_once(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("recipe: {}\narmz: {}\n")
    assert main(["study", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "set at armz" in said
    assert "set at set at" not in said


def test_a_teachers_score_without_a_teacher_is_refused_before_anything_is_drawn(run, tmp_path, capsys):
    wanted = ["--scores", "kl_teacher_student", "--corpora", "rows.jsonl", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(run("one", rouge=0.1)), *wanted]) == 2
    assert "compares with a teacher, and none is named; give --teacher MODEL" in capsys.readouterr().err


def test_scores_that_an_evaluation_would_not_take_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["evaluate", "student", "--corpora", "rows.jsonl", "--seeds", "10", "--out", str(out), "--scores"]
    assert main([*asked, "rouge_l,self_bleu"]) == 2
    assert "compares the answers of several seeds; give --seeds two or more" in capsys.readouterr().err
    assert not out.exists()
    # What an earlier evaluation into the same folder kept is no column of this one.
    out.mkdir()
    assert main([*asked, "rouge_l,kl_teacher_student"]) == 2
    assert "give --teacher MODEL" in capsys.readouterr().err


def test_undo_status_knows_a_run_of_train(run, capsys):
    made = run("one", rouge=0.1)
    assert main(["undo", "status", str(made)]) == 2
    assert f"'{made}' is a run of limbeck train" in capsys.readouterr().err


def test_endless_minutes_are_refused(tmp_path, capsys):
    assert main(["quickstart", "--minutes", "inf", "--out", str(tmp_path / "first")]) == 2
    assert "--minutes is inf" in capsys.readouterr().err


def test_a_closed_standard_input_is_told(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", "somewhere"]) == 2
    assert "standard input, which is closed" in capsys.readouterr().err


def test_report_of_a_run_that_just_began(run, tmp_path):
    young = run("young", rouge=0.1)
    (young / "metrics.jsonl").write_text("")
    (young / "samples.jsonl").unlink()
    assert main(["report", str(young), "-o", str(tmp_path / "page.html")]) == 0
    assert "not validated yet" in (tmp_path / "page.html").read_text()
