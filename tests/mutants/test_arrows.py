"""Row 10: two objects that own each other. Arrows point one way, and the contracts notice one that is turned around."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# An importing module, what it must not know, and why somebody would write it.
TURNED_AROUND = (
    ("limbeck.sequences.replay", "limbeck.training.loop", "a buffer that asks the loop for its step"),
    ("limbeck.revision.correcting", "limbeck.training.session", "a reviser that reads the run's settings"),
    ("limbeck.losses.objective", "limbeck.models.scoring", "a loss that scores for itself"),
    ("limbeck.models.pair", "limbeck.methods", "a pair that asks which method runs"),
    ("limbeck.training.loop", "limbeck.studies.running", "a loop that calls the study that called it"),
    ("limbeck.blackbox.loop", "limbeck.inspection.talk", "one road that leans on its neighbour"),
    ("limbeck.reporting.tables", "torch", "a table that loads a tensor library"),
    ("limbeck.spans.extractors", "transformers", "a span that asks a tokenizer"),
)


@pytest.mark.parametrize("what", [f"{module} -> {known}" for module, known, _ in TURNED_AROUND])
def test_an_arrow_that_is_turned_around_is_noticed(what: str, broken: str) -> None:
    assert what in broken


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy of the package in which all of them stand."""
    copied = tmp_path_factory.mktemp("arrows")
    shutil.copytree(ROOT / "src", copied / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copied)
    for module, known, _ in TURNED_AROUND:
        path = copied / "src" / Path(*module.split(".")).with_suffix(".py")
        path.write_text(f"{path.read_text(encoding='utf-8')}\n\ndef _turned_around():\n    import {known}\n")
    program = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [program, "--no-cache"], cwd=copied, env={"PYTHONPATH": str(copied / "src")}, capture_output=True, text=True
    )
    assert found.returncode == 1, found.stderr or found.stdout
    return found.stdout
