"""Table 1 at the papers' scale: study files that say what the recipes say, and dry runs worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.cli import main
from limbeck.config import Recipe
from limbeck.methods import METHODS
from limbeck.preflight.hardware import Devices, named_gpus
from limbeck.studies.definition import read_study
from limbeck.studies.estimates import Pace, effect_line
from limbeck.studies.forecasting import forecast
from limbeck.studies.places import Places
from limbeck.studies.resolving import arm_recipe, planned_runs, stage_recipe

FOLDER = Path(__file__).parents[3] / "recipes"
FAMILIES = ("gpt2", "opt", "openllama2", "llama2")


def _file(family: str) -> Path:
    return FOLDER / "studies" / f"table1-{family}.yaml"


def _values(recipe: Recipe, family: str) -> dict[str, Any]:
    """A recipe without its folder, models of earlier steps by the names that a study gives them."""
    values = {name: value for name, value in recipe.values().items() if name not in ("run", "watch")}
    named = {f"runs/{family}/{stage}/student": f"@{stage}" for stage in ("teacher", "start")}
    for role in ("teacher", "student"):
        values["models"][role] = named.get(values["models"][role], values["models"][role])
    return values


@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_of_a_study_is_the_recipe_of_its_name(family: str) -> None:
    study = read_study(_file(family))
    assert [arm.name for arm in study.arms if not arm.name.startswith("control")] == ["teacher", *TABLE]
    for name in TABLE:
        ours = _values(arm_recipe(study, study.arm(name), seed=10), family)
        theirs = _values(Recipe.load(FOLDER / family / f"{name}.yaml"), family)
        # Without a draw these are read by validation alone; the file of a method that draws nothing leaves them out.
        for values in (ours, theirs):
            values.pop("sampling")
        assert ours == theirs, name
    for stage in study.stages:
        ours = _values(stage_recipe(study, stage), family)
        assert ours == _values(Recipe.load(FOLDER / family / f"{stage.name}.yaml"), family), stage.name


def test_a_corpus_of_one_prompt_has_no_smallest_effect(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for rows, told in ((1, "not known before the first rows, two or more"), (64, "about 2.5 ROUGE-L over 64 prompts")):
        file.write_text(
            f"recipe: {{method: {{base: sft}}, models: {{student: s}}}}\narms: {{a: {{}}}}\n"
            f"evaluate: {{corpora: [test.jsonl], rows: {rows}}}\n"
        )
        assert told in effect_line(read_study(file), Places(work=tmp_path / "work", rows=tmp_path / "rows"))


TABLE = ("sft", "kd", "seqkd", "imitkd", "gkd", "minillm", "distillm", "mgsr")


def test_the_table_has_every_method() -> None:
    assert set(TABLE) == set(METHODS)


# One operation a second, so that seconds are operations.
SLOW = Devices(kind="cuda", name="SLOW", count=1, memory=60 * 10**9, flops=1.0, bandwidth=1.0, libraries=0)
ROWS, NEW, LONG, FILLED = 11_435, 256, 512, 0.6
STUDENT, TEACHER = 7e9, 13e9
STEPS = 10 * -(-ROWS // 32)
TOKENS = STEPS * 32 * FILLED * LONG
# 500 + 242 + 80 + 1,694 + 10,000 prompts, five answers each; then both models read references and own answers.
PROMPTS = 12_516
SCORED = 5 * PROMPTS * NEW * 6 * STUDENT + 2 * PROMPTS * FILLED * LONG * 2 * (STUDENT + TEACHER)
VALIDATED = 10 * 500 * NEW * 6 * STUDENT


@pytest.mark.parametrize(
    ("arm", "trained"),
    [
        ("sft", 4 * TOKENS * STUDENT),
        ("kd", 4 * TOKENS * STUDENT + 2 * TOKENS * TEACHER),
        ("imitkd", 4 * TOKENS * STUDENT + 2 * TOKENS * TEACHER + STEPS * 32 * NEW * 6 * STUDENT),
    ],
)
def test_the_time_of_an_arm_at_the_papers_scale_can_be_worked_out(arm: str, trained: float, tmp_path: Path) -> None:
    study = read_study(_file("llama2"))
    pace = Pace(study, Places(work=tmp_path, rows=tmp_path, root=Path("hub")), gpu=SLOW)
    (planned,) = planned_runs(study, only=(arm,))
    assert pace.of(planned).seconds == pytest.approx(trained + VALIDATED + SCORED, rel=1e-6)


def test_weights_that_do_not_fit_are_told_of(tmp_path: Path) -> None:
    study, places = read_study(_file("llama2")), Places(work=tmp_path, rows=tmp_path, root=Path("hub"))
    # 7 billion in float32 without moments, as LoRA trains little, and 13 billion in bfloat16.
    assert "at least 54.0 GB" in forecast(study, places, gpu=SLOW).memory
    assert "too little" not in forecast(study, places, gpu=SLOW).memory
    assert "A10-24G has 26 GB: too little" in forecast(study, places, gpu=named_gpus("A10-24G")).memory
    # 124 million with gradients and two moments, and 1.56 billion in bfloat16.
    assert "at least 5.1 GB" in forecast(read_study(_file("gpt2")), places, gpu=SLOW).memory


def test_what_is_kept_of_the_teacher_is_counted(tmp_path: Path) -> None:
    study, places = read_study(_file("llama2")), Places(work=tmp_path, rows=tmp_path, root=Path("hub"))
    # Of each reference 0.6 of 256 tokens, 5,176 numbers of two bytes; 7 billion in float32, with LoRA no checkpoint.
    states = PROMPTS * FILLED * NEW * 5176 * 2 / 1e9
    told = forecast(study, places, gpu=SLOW).disk
    assert f"about {4 * 7 + states:.1f} GB while it runs" in told
    assert f"{states:.1f} GB of the teacher's states at the references" in told


def test_a_dry_run_names_the_files_that_are_not_there(tmp_path: Path) -> None:
    file, work = tmp_path / "mine.yaml", tmp_path / "work"
    there, test, train = (tmp_path / name for name in ("there.jsonl", "test.jsonl", "train.jsonl"))
    there.touch()
    file.write_text(
        f"recipe: {{method: {{base: sft}}, models: {{student: s}}, data: {{corpus: '{there}'}}}}\n"
        f"arms: {{a: {{}}, b: {{data: {{corpus: '{train}'}}}}, c: {{data: {{corpus: starter, valid: auto}}}}}}\n"
        f"evaluate: {{corpora: ['{test}', vicuna]}}\nseeds: [0, 1]\n"
    )
    study = read_study(file)
    found = forecast(study, Places(work=work, rows=work))
    assert list(found.lines())[-3:] == [
        f"not there: {test} (every arm is scored on it)",
        "not there: vicuna, below the folder of the data sets that --root names (every arm is scored on it)",
        f"not there: {train} (b, seed 0 learns from it, and 1 more)",
    ]
    assert found.values()["absent"] == found.absent
    for path in (test, train, tmp_path / "vicuna" / "test.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert forecast(study, Places(work=work, rows=work, root=tmp_path)).absent == ()
    assert forecast(study, Places(work=work, rows=work, root=Path("hub"))).absent == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_at_the_papers_scale_knows_every_time(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(_file(family)), "--root", "hub", "--dry-run", "--gpu", "A100-80G"]) == 0
    told = capsys.readouterr().out
    assert told.count("estimated from parameter counts") == 14
    assert "not known, no parameter count" not in told
    assert "A100-80G has 86 GB" in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--dry-run", "--gpu", "4xA100-80G"], "a run of a study takes one device, not 4; write --gpu A100-80G"),
        (["--dry-run", "--gpu", "A1000"], "A1000"),
        (["--gpu", "A100-80G"], "give --dry-run too"),
    ],
)
def test_a_gpu_that_cannot_be_reckoned_with_is_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(_file("llama2")), "--root", "hub", *given]) == 2
    assert said in capsys.readouterr().err
