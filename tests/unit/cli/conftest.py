"""One of each thing that verbs read: a run, an evaluation, a cache, a study and an UNDO run, all of tiny models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import limbeck
from limbeck.blackbox.loop import run_undo
from limbeck.cli import main
from limbeck.testing import save_tiny, save_toy
from study_kit import Ground
from undo_kit import undo_values


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Folders and files by what they are."""

    recipe: Path
    run: Path
    corpus: Path
    cache: Path
    study: Path
    studies: Path
    undo_recipe: Path
    undo_run: Path

    def commands(self) -> dict[str, list[str]]:
        """A command for every verb that prints a table and is done in a moment."""
        return {
            "explain": ["explain", "mgsr"],
            "doctor": ["doctor", str(self.recipe), "--no-weights"],
            "plan": ["plan", str(self.recipe)],
            "evaluate": [
                "evaluate", str(self.run), "--corpora", str(self.corpus), "--seeds", "10", "--max-prompt", "48",
                "--max-new-tokens", "6", "--max-rows", "3", "--categories",
            ],
            "compare": ["compare", str(self.run), str(self.run)],
            "push": ["push", str(self.run), "--to", "my-org/my-student", "--dry-run"],
            "study --table": ["study", str(self.study), "--out", str(self.studies), "--table"],
            "study --dry-run": ["study", str(self.study), "--out", str(self.studies), "--dry-run"],
            "cache info": ["cache", "info", str(self.cache)],
            "undo plan": ["undo", "plan", str(self.undo_recipe)],
            "undo status": ["undo", "status", str(self.undo_run)],
            "undo report": ["undo", "report", str(self.undo_run)],
        }  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    corpus = save_toy(folder / "toy.jsonl", 20)
    settings = {
        "method": {"base": "kd"},
        "models": {
            "teacher": str(save_tiny(folder / "teacher", seed=1, layers=3)),
            "student": str(save_tiny(folder / "student", seed=2)),
            "device": "cpu",
        },
        "data": {"corpus": str(corpus), "max_prompt": 48, "max_length": 64},
        "sampling": {"max_new_tokens": 4},
        "train": {"steps": 2, "batch_rows": 4},
        "validate": {"every": 2, "rows": 1},
        "run": str(folder / "runs" / "first"),
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    run = limbeck.train(recipe).directory
    cache = folder / "cache"
    assert main(["cache", "build", str(recipe), "--out", str(cache), "--quiet"]) == 0
    (folder / "study").mkdir()
    ground = Ground.make(folder / "study")
    study = folder / "study" / "mine.yaml"
    arms = {"sft": {"method.base": "sft"}}
    study.write_text(yaml.safe_dump(ground.values(arms=arms, seeds=[0]), sort_keys=False))
    assert main(["study", str(study), "--out", str(folder / "studies"), "--quiet"]) == 0
    undo = folder / "undo.yaml"
    values = undo_values(folder, name="undo", method={"rounds": 0})
    undo.write_text(yaml.safe_dump(values))
    done = run_undo(undo, say=lambda line: None)
    return Finished(
        recipe=recipe,
        run=run,
        corpus=corpus,
        cache=cache,
        study=study,
        studies=folder / "studies",
        undo_recipe=undo,
        undo_run=done.directory,
    )
