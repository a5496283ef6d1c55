"""Every recipe of the repository takes two steps on a small random model of its family."""

from __future__ import annotations

from pathlib import Path

import pytest

import limbeck
from limbeck.config import Recipe
from limbeck.sequences import CollectedRollouts
from limbeck.testing import save_tiny, save_toy

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if not {"undo", "studies"} & set(path.parts))
ARCHITECTURES = {"gpt2": "gpt2", "opt": "opt", "openllama2": "llama", "llama2": "llama"}
PAIRS = {"qwen3-8b-to-0.6b": "qwen3", "qwen2.5-7b-to-0.5b": "qwen2", "gemma-2-9b-to-2b": "gemma2"}
# One a family in `make test`; the rest is in `make test-all`.
QUICK = ("mgsr", "qwen3-8b-to-0.6b")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.slow) for path in FILES],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_a_recipe_takes_two_steps(path: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(path)
    architecture = ARCHITECTURES.get(path.parent.name) or PAIRS.get(path.stem, "llama")
    student = save_tiny(tmp_path / "student", architecture=architecture)
    changes = [
        f"models.student={student}",
        f"data.corpus={save_toy(tmp_path / 'toy.jsonl', 24)}",
        "data.root=null",
        # The papers' layout alone is longer than a tiny model's context.
        "data.template=auto",
        "data.max_prompt=48",
        "data.max_length=64",
        "train.epochs=1",
        "train.steps=2",
        "train.batch_rows=4",
        "validate.every=2",
        "validate.rows=2",
        f"run={tmp_path / 'run'}",
    ]
    if recipe.models.teacher is not None:
        teacher = save_tiny(tmp_path / "teacher", architecture=architecture, seed=1, layers=3)
        changes += [f"models.teacher={teacher}", "sampling.max_new_tokens=6"]
    if recipe.models.teacher is None or path.stem == "kd":
        changes = [change for change in changes if not change.startswith("sampling.")]
    if isinstance(recipe.built_method().sequences, CollectedRollouts):
        changes += ["method.sequences.rows=4"]
    run = limbeck.train(path, *changes)
    assert [row["step"] for row in run.metrics() if row["kind"] == "step"] == [1, 2]
    assert run.is_finished
