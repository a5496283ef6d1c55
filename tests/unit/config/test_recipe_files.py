"""The recipes that the repository carries load, and say what their names say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from limbeck.config import Recipe
from limbeck.methods import METHODS, PRESETS

FOLDER = Path(__file__).parents[3] / "recipes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if not {"undo", "studies"} & set(path.parts))
FAMILIES = ("gpt2", "opt", "openllama2", "llama2")


def test_each_family_has_its_two_first_steps_and_every_method() -> None:
    for family in FAMILIES:
        assert {path.stem for path in (FOLDER / family).glob("*.yaml")} == {"teacher", "start", *METHODS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_its_first_lines_say_how_it_is_run(path: Path) -> None:
    recipe = Recipe.load(path)
    command = f"#   limbeck train {path.relative_to(FOLDER.parent)}"
    assert any(line.startswith(command) for line in path.read_text().splitlines())
    if path.parent.name in FAMILIES:
        base = {"teacher": "sft", "start": "sft"}.get(path.stem, path.stem)
        expected = PRESETS[str(recipe.method["base"])]()
        assert type(expected.sequences) is type(METHODS[base]().sequences)
        assert recipe.run == f"runs/{path.parent.name}/{path.stem}"
        is_constant = path.stem == "minillm" and path.parent.name in ("gpt2", "opt")
        assert recipe.train.final_learning_rate == (0.0 if is_constant else 1e-7)
        assert recipe.train.schedule == ("constant" if is_constant else "cosine")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_step_reads_is_what_an_earlier_step_writes(family: str) -> None:
    written = {f"runs/{family}/{stem}/student" for stem in ("teacher", "start")}
    for path in (FOLDER / family).glob("*.yaml"):
        models = Recipe.load(path).models
        named = [models.teacher, models.student]
        assert all(name is None or not name.startswith("runs/") or name in written for name in named)
        assert (models.teacher is None) == (path.stem in ("teacher", "start", "sft"))
        assert dataclasses.asdict(models)["lora"] is None or family != "gpt2"
