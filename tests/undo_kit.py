"""What the tests of UNDO share: a teacher that is a rule, a few sums as questions, a recipe that runs in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings

from limbeck.blackbox.asking import Answer, Completion
from limbeck.blackbox.writers import Desk
from limbeck.blackbox.writing import Assignment, RationaleTeacher


class Sums:
    """Writes out a sum; in a later round with another word, so that every rewriting is another text. Wrong for sums
    that end in the digits of `wrong`."""

    def __init__(self, seen: Path | None, wrong: str = "") -> None:
        self._seen, self._wrong = seen, wrong

    @property
    def name(self) -> str:
        return "sums"

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        if self._seen is not None:
            with self._seen.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(each)) + "\n" for each in assignments)
        return [self._one(each) for each in assignments]

    def _one(self, asked: Assignment) -> Completion:
        left, right = asked.item.question.rstrip("?").split("+")
        total = int(left) + int(right)
        if self._wrong and str(total).endswith(self._wrong):
            total += 1
        word = ["so", "thus", "hence", "then"][asked.round % 4]
        slips = sum(not attempt.is_right for attempt in asked.attempts)
        text = f"{left} + {right} = {total}, {word} it is " + ", ".join([str(total)] * (1 + slips % 2))
        return Completion(text=f"{text}\n#### {total}", finish="stop")


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class SumsWriter:
    seen: str | None = None
    wrong: str = ""

    what: ClassVar[str] = "a rule that adds, which is no evidence about language models"
    calls_cost: ClassVar[bool] = False

    def build(self, desk: Desk) -> RationaleTeacher:
        return Sums(None if self.seen is None else Path(self.seen), self.wrong)


def write_sums(path: Path, count: int = 40) -> Path:
    pairs = [(left, right) for left in range(2, 12) for right in range(2, 12)]
    lines = [json.dumps({"id": f"{a}-{b}", "question": f"{a}+{b}?", "answer": a + b}) for a, b in pairs[:count]]
    path.write_text("\n".join(lines) + "\n")
    return path


def undo_values(folder: Path, *, name: str = "run", **changes: Any) -> dict[str, Any]:
    """A recipe of three small splits and a student of a few thousand weights; `changes` by section."""
    values: dict[str, dict[str, Any]] = {
        "teacher": {"kind": "undo_kit:SumsWriter"},
        "task": {"file": str(write_sums(folder / "sums.jsonl")), "probe": 4, "stop": 6, "test": 8},
        "student": {
            "scratch": {"width": 16, "layers": 1, "heads": 2, "positions": 96, "vocabulary": 300},
            "max_prompt": 24,
            "max_new_tokens": 40,
        },
        "method": {"base": "undo-v1", "rounds": 1},
        "train": {"epochs": 1, "batch_rows": 8, "learning_rate": 1e-3},
        "stop": {"patience": 9},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
    return {**values, "run": str(folder / name)}
