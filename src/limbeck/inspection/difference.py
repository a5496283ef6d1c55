"""`limbeck compare`: what two runs did differently, and the first step at which it shows."""

from __future__ import annotations

import filecmp
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.config import Difference, Recipe
from limbeck.config.reading import scalar
from limbeck.errors import CheckpointError, ConfigError
from limbeck.reporting.layout import broken_at_spaces
from limbeck.reporting.tables import Cell, Column, Row, Table
from limbeck.training.rundir import METRICS, RunDirectory

_TIME = "time"
_MOST_FIELDS = 40


@dataclass(frozen=True, kw_only=True)
class FirstDifference:
    """The first step whose metrics differ: its rows' kind, and each field that does, dotted, in both runs.

    A field that a run does not have is None there; `kind` and `step` name the row.
    """

    step: int
    kind: str
    fields: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class RunDifference:
    """What two runs have not in common. `old` is the first run's value, `new` the second's.

    `steps`: how far each went. `same_steps`: steps whose metrics are all equal, up to the first that differs. `first`:
    None where metrics are the same as far as both went. `same_student`: whether the students' weight files are equal
    byte for byte; None where a run has none yet.
    """

    names: tuple[str, str]
    recipe: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    steps: tuple[int, int]
    same_steps: int
    first: FirstDifference | None
    same_student: bool | None

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def text(self, width: int = 80) -> str:
        """Tables for a terminal, and what they come to."""
        parts = [
            _table("recipe", self.recipe, self.names).text(width=width) if self.recipe else "recipe: no difference\n",
            _table("environment", self.environment, self.names).text(width=width)
            if self.environment
            else "environment: no difference\n",
        ]
        if self.first is not None:
            shown = self.first.fields[:_MOST_FIELDS]
            parts.append(_table(f"{self.first.kind} {self.first.step}", shown, self.names).text(width=width))
        parts.append(broken_at_spaces(self._summary(), width=width))
        return "\n".join(parts)

    def _summary(self) -> str:
        students = {None: "no two students to compare", True: "the same weights", False: "other weights"}
        lines = [f"steps: {self.steps[0]:,} and {self.steps[1]:,}"]
        if self.first is None:
            lines.append(f"metrics: the same in all {self.same_steps:,} steps that both took, times aside")
        else:
            found = self.first
            lines.append(f"metrics: the same in {self.same_steps:,} steps, times aside;")
            lines.append(f"the {found.kind} of step {found.step} differs in {len(found.fields)} fields")
        return "\n".join([*lines, f"student: {students[self.same_student]}"]) + "\n"


def compare(one: Path | str, other: Path | str) -> RunDifference:
    """What two run directories have not in common: recipe, environment, and the first step whose metrics differ.

    Metrics are compared exactly, NaN being equal to itself, and times are left out. Reads recipe.yaml,
    environment.json and metrics.jsonl alone; nothing is loaded and nothing is written. Raises `CheckpointError` for a
    folder that is no run.
    """
    left, right = (RunDirectory.existing(Path(each)) for each in (one, other))
    metrics = [_by_step(each) for each in (left, right)]
    ends = [max(rows, default=0) for rows in metrics]
    together = min(ends)
    first, same = None, 0
    for step in sorted({step for rows in metrics for step in rows if step <= together}):
        first = _first_of(step, *(rows.get(step, {}) for rows in metrics))
        if first is not None:
            break
        same += 1
    return RunDifference(
        names=(str(one), str(other)),
        recipe=tuple(each for each in _recipe(left).difference(_recipe(right)) if each.key != "run"),
        environment=_differing(left.environment(), right.environment()),
        steps=(ends[0], ends[1]),
        same_steps=same,
        first=first,
        same_student=_same_student(left.student, right.student),
    )


def _recipe(run: RunDirectory) -> Recipe:
    try:
        return Recipe.recorded(run.path)
    except ConfigError as error:
        raise CheckpointError(f"the recipe of {run.path} cannot be compared: {error}") from error


def _by_step(run: RunDirectory) -> dict[int, dict[str, dict[str, Any]]]:
    """Step → kind of row → its fields; several warnings of a step are numbered."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    try:
        for row in run.rows(METRICS):
            rows = found.setdefault(int(row["step"]), {})
            name = str(row["kind"])
            rows[name if name not in rows else f"{name} {row.get('name', len(rows))}"] = row
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run.path / METRICS} cannot be read: {error}; the run directory is damaged") from error
    return found


def _first_of(
    step: int, left: Mapping[str, dict[str, Any]], right: Mapping[str, dict[str, Any]]
) -> FirstDifference | None:
    for kind in dict.fromkeys([*left, *right]):
        fields = _differing(left.get(kind, {}), right.get(kind, {}))
        if fields:
            return FirstDifference(step=step, kind=kind, fields=fields)
    return None


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    old, new = dict(_flat(left)), dict(_flat(right))
    return tuple(
        Difference(key, old.get(key), new.get(key))
        for key in dict.fromkeys([*old, *new])
        if not _equal(old.get(key), new.get(key)) or (key in old) != (key in new)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not prefix and key == _TIME:
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _equal(one: Any, other: Any) -> bool:
    both = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both or (one == other and type(one) is type(other))


def _same_student(one: Path, other: Path) -> bool | None:
    weights = [sorted(folder.glob("*.safetensors")) for folder in (one, other)]
    if not all(weights):
        return None
    names = [[path.name for path in each] for each in weights]
    return names[0] == names[1] and all(
        filecmp.cmp(left, right, shallow=False) for left, right in zip(*weights, strict=True)
    )


def _table(title: str, differences: tuple[Difference, ...], names: tuple[str, str]) -> Table:
    short = [Path(name).name or name for name in names]
    columns = (title, *(short if short[0] != short[1] else names))
    rows = [Row(cells=(each.key, _shown(each.old), _shown(each.new))) for each in differences]
    return Table(columns=tuple(Column(title=name) for name in columns), rows=tuple(rows))


def _shown(value: Any) -> Cell:
    return None if value is None else scalar(value)
