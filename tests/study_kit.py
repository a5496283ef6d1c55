"""Studies of tiny models: a YAML file, its folders, and an injected kill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.studies.builtin import find_study
from limbeck.studies.definition import Study
from limbeck.studies.places import Places
from limbeck.testing import save_tiny, save_toy


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Models and rows for studies in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Ground:
        save_tiny(folder / "teacher", seed=1, layers=3)
        save_tiny(folder / "student", seed=2)
        save_toy(folder / "train.jsonl", 24)
        save_toy(folder / "test.jsonl", 5, seed=7)
        return cls(folder=folder)

    def values(self, **changes: Any) -> dict[str, Any]:
        """Three arms, two seeds, two steps."""
        models = {name: str(self.folder / name) for name in ("teacher", "student")}
        return {
            "recipe": {
                "method": {"base": "gkd"},
                "models": {**models, "device": "cpu"},
                "data": {"corpus": str(self.folder / "train.jsonl"), "max_prompt": 48, "max_length": 64},
                "sampling": {"max_new_tokens": 6},
                "train": {"steps": 2, "batch_rows": 4, "learning_rate": 1e-3},
                "validate": {"every": None},
                "watch": {"rows": 0},
            },
            "arms": {"sft": {"method.base": "sft"}, "gkd": None, "kd": {"method.base": "kd"}},
            "seeds": [0, 1],
            "evaluate": {
                "corpora": {"toy": str(self.folder / "test.jsonl")},
                "seeds": [10, 20],
                "max_new_tokens": 6,
                "max_prompt": 48,
            },
            "controls": False,
            **changes,
        }

    def study(self, name: str = "mine", **changes: Any) -> Study:
        """The study of a YAML file with these values."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.values(**changes), sort_keys=False))
        return find_study(str(path))

    def places(self, name: str = "work") -> Places:
        """Folders of their own."""
        return Places(work=self.folder / name, rows=self.folder / name / "rows")


def kept(rows: Path) -> dict[str, list[dict[str, Any]]]:
    """Every file of rows without what took time: equal for equal runs."""
    from limbeck.studies.rows import RunRows

    found = {}
    for path in sorted(rows.glob("*.jsonl.gz")):
        run = RunRows(path)
        about = {key: value for key, value in run.about.items() if not key.endswith("seconds")}
        found[path.name] = [json.loads(json.dumps(about)), *run.rows]
    return found
