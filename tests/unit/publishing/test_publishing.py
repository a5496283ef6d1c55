from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import limbeck
from limbeck.cli import main
from limbeck.errors import CheckpointError, ConfigError, ModelError
from limbeck.publishing import conversion_command, export, model_card, push
from limbeck.testing import save_tiny, save_toy


def _weights(run: Path) -> str:
    return str(json.loads((run / "student" / "limbeck.json").read_text())["weights"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with LoRA, two validations, and an evaluation on disk."""
    folder = tmp_path_factory.mktemp("published")
    recipe = {
        "method": {"base": "kd"},
        "models": {
            "teacher": str(save_tiny(folder / "the-teacher", seed=1, layers=3)),
            "student": str(save_tiny(folder / "the-student", seed=2)),
            "device": "cpu",
            "lora": {"rank": 2},
        },
        "data": {"corpus": str(save_toy(folder / "toy.jsonl", 20)), "max_prompt": 48, "max_length": 64},
        "sampling": {"max_new_tokens": 4},
        "train": {"steps": 2, "batch_rows": 4},
        "validate": {"every": 2, "rows": 1},
        "watch": {"teacher_no_better": 1e6},
        "run": str(folder / "secret-folder" / "my-run"),
    }
    directory = limbeck.train(recipe).directory
    answers = directory / "answers" / "plain"
    answers.mkdir(parents=True)
    rows = [
        {"corpus": "dolly", "seed": 10, "id": f"d-{i}", "text": "<b>", "tokens": [], "num_tokens": 2, "stopped": True,
         "references": ["r"], "category": "easy" if i < 3 else "hard", "scores": {"rouge_l": 0.9 if i < 3 else 0.1}}
        for i in range(6)
    ]  # fmt: skip
    header = {"corpus": "dolly", "seed": 10, "examples": 6, "dtype": "float32", "weights": _weights(directory)}
    (answers / "dolly-answers-seed10.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    distances = [
        {"measure": "references", "corpus": "dolly", "seed": 10, "id": row["id"], "num_tokens": 2,
         "scores": {"kl_teacher_student": 2.5 if row["category"] == "hard" else 0.5, "cross_entropy": 1.0}}
        for row in rows
    ]  # fmt: skip
    (answers / "dolly-references.jsonl").write_text("".join(json.dumps(row) + "\n" for row in distances))
    return directory


def test_the_card_is_written_from_the_run(run: Path) -> None:
    card = model_card(run, licence="Apache-2.0")
    _, front, body = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert (values["license"], values["library_name"]) == ("apache-2.0", "transformers")
    assert {"distillation", "kd"} <= set(values["tags"])
    assert "base_model" not in values
    scored = values["model-index"][0]
    assert (scored["name"], scored["results"][0]["dataset"]["name"]) == ("my-run", "dolly")
    assert scored["results"][0]["metrics"] == [{"type": "rouge", "name": "ROUGE-L (plain)", "value": 50.0}]
    for words in ("# my-run", "`the-teacher`", "`toy.jsonl`", "not known to Limbeck", "## Method", "forward-kl",
                  "KL(t‖s)", "50.0 [", "in 2 steps", "2 steps are few", "at most 8 rows were seen",
                  "apply_chat_template", "Made with", "transformers 5", "teacher_no_better",
                  "token ids were never trained", "rank: 2"):  # fmt: skip
        assert words in body, words
    # The folders of this machine are nobody's business.
    assert "secret-folder" not in card
    assert str(run.parent) not in card


def test_who_loses_most_stands_first(run: Path, tmp_path: Path) -> None:
    card = model_card(run)
    assert "KL(teacher‖student) on the references" in card
    assert 0 < card.index("| hard | 3 | 2.500 [") < card.index("| easy | 3 | 0.500 [")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "answers" / "plain" / "dolly-references.jsonl").unlink()
    card = model_card(tmp_path / "run")
    assert "ROUGE-L, %" in card
    assert 0 < card.index("| hard | 3 | 10.0") < card.index("| easy | 3 | 90.0")


def test_a_teacher_that_answered_too_and_line_breaks_of_an_answer_change_nothing(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    answers = tmp_path / "run" / "answers" / "plain" / "dolly-answers-seed10.jsonl"
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    theirs = [{**line, **({"scores": {"rouge_l": 1.0}} if "scores" in line else {})} for line in lines]
    texts = {answers: lines, answers.with_name("dolly-teacher-answers-seed10.jsonl"): theirs}
    for path, rows in texts.items():
        said = [{**row, "text": "a\u2028b\x85c"} for row in rows]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in said))
    assert model_card(tmp_path / "run") == model_card(run)


def test_the_names_of_categories_stay_text(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    answers = tmp_path / "run" / "answers" / "plain" / "dolly-answers-seed10.jsonl"
    hostile = "x|y\n\n# Hostile <img src=http://evil/x.png>"
    answers.write_text(answers.read_text().replace('"hard"', json.dumps(hostile)))
    card = model_card(tmp_path / "run")
    assert r"| x\|y # Hostile \<img src=http://evil/x.png\> | 3 | 2.500 [2.500, 2.500] |" in card
    assert "\n# Hostile" not in card
    assert "<img" not in card.replace(r"\<img", "")


@pytest.mark.parametrize("answered", [0, 4])
def test_an_evaluation_that_was_stopped_is_no_score(run: Path, tmp_path: Path, answered: int) -> None:
    shutil.copytree(run, tmp_path / "run")
    answers = tmp_path / "run" / "answers" / "plain" / "dolly-answers-seed10.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[: 1 + answered]))
    card = model_card(tmp_path / "run")
    assert "was stopped before its end; the same `limbeck evaluate` goes on with it" in card
    assert "model-index" not in card
    assert "| dolly |" not in card


def test_an_evaluation_of_the_student_before_is_no_score(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    plain = tmp_path / "run" / "answers" / "plain"
    text = (plain / "dolly-answers-seed10.jsonl").read_text()
    (plain / "dolly-answers-seed10.jsonl").write_text(text.replace(_weights(run), "0123456789abcdef"))
    card = model_card(tmp_path / "run")
    assert "Answers of an earlier student of this run are left out: evaluate again with another `--out`" in card
    assert "model-index" not in card
    assert "| dolly |" not in card
    # Another corpus in the same folder, answered by the student that there is, stays.
    text = text.replace('"corpus": "dolly"', '"corpus": "vicuna"')
    (plain / "vicuna-answers-seed10.jsonl").write_text(text)
    card = model_card(tmp_path / "run")
    assert "Answers of an earlier student" in card
    assert "| vicuna | 6 | 50.0 [" in card
    assert "| dolly |" not in card
    (found,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert found["dataset"]["name"] == "vicuna"


def test_a_run_that_was_not_evaluated_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "answers")
    card = model_card(tmp_path / "run")
    assert "was not evaluated" in card
    assert "not stated" in card
    assert "license:" not in card
    with pytest.raises(CheckpointError):
        model_card(tmp_path)


def test_known_corpora_have_their_licences(tmp_path: Path) -> None:
    from limbeck.config import Recipe

    corpus = [{"corpus": "dolly", "weight": 3}, {"corpus": "owner/rows", "weight": 1}]
    recipe = {"method": {"base": "sft"}, "models": {"student": "owner/small"}, "data": {"corpus": corpus}, "run": "r"}
    (tmp_path / "recipe.yaml").write_text(Recipe.load(recipe).dump())
    card = model_card(tmp_path)
    assert "| `dolly` | 75% | CC-BY-SA-3.0 |" in card
    values = yaml.safe_load(card.split("---\n")[1])
    assert (values["base_model"], values["base_model_relation"]) == ("owner/small", "finetune")
    assert values["datasets"] == ["owner/rows"]
    assert "`dolly`: share-alike" in card


def test_folders_of_a_run_are_no_hub_ids_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.config import Recipe

    for name in ("models/small", "models/large", "rows/mine"):
        (tmp_path / name).mkdir(parents=True)
    recipe = {
        "method": {"base": "kd"},
        "models": {"teacher": "models/large", "student": "models/small"},
        "data": {"corpus": [{"corpus": "rows/mine"}, {"corpus": "owner/rows"}]},
        "run": "runs/first",
    }
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(Recipe.load(recipe).dump())
    monkeypatch.chdir(tmp_path)
    here = model_card(Path("runs/first"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert model_card(folder) == here
    values = yaml.safe_load(here.split("---\n")[1])
    assert "base_model" not in values
    assert values["datasets"] == ["owner/rows"]
    assert "`small` | not known to Limbeck" in here


def test_students_of_runs_are_named_by_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.config import Recipe

    teacher = {"method": {"base": "sft"}, "models": {"student": "s"}, "data": {"corpus": "starter"}, "run": "runs/big"}
    recipe = {
        **teacher,
        "method": {"base": "kd"},
        "models": {"teacher": "runs/big/student", "student": "models/student"},
    }
    recipe["run"] = "runs/small"
    for each in (teacher, recipe):
        (tmp_path / str(each["run"]) / "student").mkdir(parents=True)
        (tmp_path / str(each["run"]) / "recipe.yaml").write_text(Recipe.load(each).dump())
    (tmp_path / "models" / "student").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = model_card(Path("runs/small"))
    assert "made from `student` by learning from `big`" in card
    assert "| teacher: `big` | not known to Limbeck" in card
    monkeypatch.chdir(tmp_path / "models")
    assert model_card(tmp_path / "runs" / "small") == card


def test_a_card_imports_no_code_that_a_run_names(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Mine:\n    a: float = 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    assert "kind: forward-kl" in recipe.read_text()
    recipe.write_text(recipe.read_text().replace("kind: forward-kl", "kind: theirs:Mine"))
    assert "theirs:Mine" in model_card(tmp_path / "run")
    assert "theirs" not in sys.modules


def test_the_hubs_own_reader_takes_the_metadata(run: Path) -> None:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    written = model_card(run, licence="My own terms", name="my-org/my-student")
    card = ModelCard(written)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    # Of a licence that is none of the hub's, the hub wants to hear the name.
    assert (card.data.license, card.data.license_name) == ("other", "my own terms")
    assert card.text.strip().startswith("# my-student")
    assert 'from_pretrained("my-org/my-student")' in card.text
    (result,) = card.data.eval_results
    assert (result.task_type, result.dataset_name, result.metric_value) == ("text-generation", "dolly", 50.0)
    index = yaml.safe_load(written.split("---\n")[1])["model-index"]
    name, results = model_index_to_eval_results(index)
    assert eval_results_to_model_index(name, results) == index
    # What the hub's own writer makes of it is the same metadata.
    assert yaml.safe_load(str(card).split("---\n")[1]) == yaml.safe_load(written.split("---\n")[1])


def test_an_adapters_card_says_what_it_belongs_on(run: Path) -> None:
    card = model_card(run, is_adapter=True)
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM.from_pretrained" in card
    assert "On top of `the-student`" in card


def test_the_cards_program_runs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _follow_card(export(run, tmp_path / "out", name=str(tmp_path / "out")))
    assert capsys.readouterr().out.endswith("\n")


def _follow_card(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    program = card.split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(program, "card", "exec"), {})


# peft itself asks transformers by a name that transformers is about to drop.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_answers_as_the_merged_student(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    settings = copied / "student" / "generation_config.json"
    allowed = b"abc"
    never = sorted(set(range(264)) - set(allowed))
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "suppress_tokens": never}))
    answers = []
    for merge in (True, False):
        folder = tmp_path / f"out-{merge}"
        _follow_card(export(copied, folder, merge=merge, name=str(folder)))
        answers.append(capsys.readouterr().out.strip().encode())
    assert answers[0] == answers[1]
    assert answers[0].strip(allowed) == b"" != answers[0]


def test_files_that_were_scored_are_named_by_their_last_part(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    answers = tmp_path / "run" / "answers" / "plain"
    rows = [json.loads(line) for line in (answers / "dolly-answers-seed10.jsonl").read_text().splitlines()[1:]]
    shutil.rmtree(answers)
    answers.mkdir()
    for place in ("/secret/one", "/secret/two"):
        lines = [json.dumps({**row, "corpus": f"{place}/rows.jsonl"}) + "\n" for row in rows]
        (answers / f"{place.replace('/', '_')}_rows.jsonl-answers-seed10.jsonl").write_text("".join(lines))
    card = model_card(tmp_path / "run")
    assert "secret" not in card
    assert "| rows.jsonl | 6 |" in card
    assert "| rows.jsonl (2) | 6 |" in card


def test_the_folders_of_a_method_and_of_plain_text_are_nobodys_business(tmp_path: Path) -> None:
    from limbeck.config import Recipe

    method = {"base": "seqkd", "sequences": {"cache": "/home/alice/answers"}, "weights": {"plain_text": 1.0}}
    data = {"corpus": "owner/rows", "plain_text": "/home/alice/books.txt"}
    recipe = {"method": method, "models": {"student": "a/b", "teacher": "c/d"}, "data": data, "run": "r"}
    (tmp_path / "recipe.yaml").write_text(Recipe.load(recipe).dump())
    card = model_card(tmp_path)
    assert "alice" not in card
    assert "plain text from `books.txt`" in card
    assert "answers" in card


def test_an_export_is_plain_and_has_the_merged_weights(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "adapter" not in names
    assert "adapter_config.json" not in names
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert not any("lora" in name for name in model.state_dict())
    expected = AutoModelForCausalLM.from_pretrained(run / "student").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    before = AutoModelForCausalLM.from_pretrained(run.parent.parent / "the-student").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder).chat_template
    with pytest.raises(ConfigError, match="exists already"):
        export(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_adapter_alone(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out", merge=False)
    names = {path.name for path in folder.iterdir()}
    needed = {"adapter_config.json", "adapter_model.safetensors", "generation_config.json", "tokenizer.json"}
    assert needed | {"README.md"} <= names
    assert "model.safetensors" not in names
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "student" / "adapter")
    with pytest.raises(ConfigError, match="has no adapter"):
        export(tmp_path / "run", tmp_path / "other", merge=False)
    assert not (tmp_path / "other").exists()


def test_a_damaged_student_is_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "student" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        export(tmp_path / "run", tmp_path / "out")
    (tmp_path / "run" / "student" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks weights"):
        export(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_dry_run_needs_no_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: pytest.fail("asked the hub"))
    done = push(run, "my-org/my-student", dry_run=True)
    assert done.url == ""
    assert {"README.md", "model.safetensors"} <= {name for name, _ in done.files}
    assert dict(done.files)["README.md"] == len(done.card.encode())
    for wrong in ("student", "a/b/c", "my org/x", "/x"):
        with pytest.raises(ConfigError, match="ORG/NAME"):
            push(run, wrong, dry_run=True)


def test_what_is_uploaded_is_what_the_dry_run_listed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def create_repo(name: str, **settings: Any) -> str:
        seen["repository"] = (name, settings)
        return f"https://huggingface.co/{name}"

    def upload_folder(*, folder_path: str, **settings: Any) -> None:
        seen["files"] = sorted((path.name, path.stat().st_size) for path in Path(folder_path).iterdir())

    monkeypatch.setattr(
        "huggingface_hub.HfApi", lambda: SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)
    )
    done = push(run, "my-org/my-student", private=True)
    assert seen["repository"] == ("my-org/my-student", {"private": True, "exist_ok": True, "repo_type": "model"})
    assert seen["files"] == list(done.files) == list(push(run, "my-org/my-student", dry_run=True).files)
    assert done.url == "https://huggingface.co/my-org/my-student"


def test_what_the_hub_refuses(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **settings: Any) -> str:
        raise OSError("401 Unauthorized\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: SimpleNamespace(create_repo=refuse))
    with pytest.raises(ModelError, match=r"401 Unauthorized\n.*hf auth login"):
        push(run, "my-org/my-student")


def test_the_verbs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["export", str(run), "--merge", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"model: {tmp_path / 'out'}" in said
    assert conversion_command(tmp_path / "out") in said
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 2
    assert main(["export", str(run), "-o", str(tmp_path / "again"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"model: {tmp_path / 'again'}\n"
    assert main(["push", str(run), "--to", "my-org/my-student", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "model.safetensors" in said
    assert "nothing was sent" in said
    assert main(["push", str(run), "--to", "my-org/my-student", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repository"] == "my-org/my-student"
    assert main(["push", str(tmp_path), "--to", "my-org/my-student", "--dry-run"]) == 2
