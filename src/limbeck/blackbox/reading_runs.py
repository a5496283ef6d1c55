"""What a run of UNDO has on disk, read for a report: finished or not, without a model and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from limbeck.blackbox.artefacts import read_json, read_rows
from limbeck.blackbox.ledger import LEDGER, Ledger
from limbeck.errors import CheckpointError


def stage_of(arm: str, number: int) -> str:
    """The name under which the calls of an arm's round stand in the ledger.

    >>> stage_of("start", 0), stage_of("undo-v1", 1)
    ('start', 'undo-v1/1')
    """
    return "start" if arm == "start" else f"{arm}/{number}"


@dataclass(frozen=True, kw_only=True)
class RoundRows:
    """A round that was measured: its folder, its numbers, and its rows by name."""

    folder: Path
    metrics: Mapping[str, Any]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of `<name>.jsonl`; empty where the round has none."""
        path = self.folder / f"{name}.jsonl"
        return read_rows(path) if path.is_file() else []

    def right(self, part: str) -> dict[str, float]:
        """1 or 0 for each question of a part."""
        return {row["item_id"]: float(row["correct"]) for row in self.rows(f"{part}_attempts")}


@dataclass(frozen=True, kw_only=True)
class ArmRows:
    """An arm: its measured rounds, the first of which may be the common start, and its outcome, once it has one."""

    name: str
    rounds: tuple[RoundRows, ...]
    outcome: Mapping[str, Any] | None

    @property
    def best(self) -> RoundRows:
        """The round that the arm gives back; of an arm that still runs, the best on stop so far."""
        if self.outcome is not None:
            return next(each for each in self.rounds if each.metrics["round"] == self.outcome["best"])
        return max(self.rounds, key=lambda each: each.metrics["accuracy"]["stop"]["mean"])


@dataclass(frozen=True, kw_only=True)
class RunRows:
    """A whole run: recipe, manifest, arms with the method first, and the untouched student's accuracy."""

    folder: Path
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    arms: tuple[ArmRows, ...]
    untouched: Mapping[str, Any] | None
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the calls of each stage have come to, as the ledger has it."""

    def cost(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the calls of a measured round have come to."""
        none = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "money": 0.0}
        return self.costs.get(stage_of(metrics["arm"], metrics["round"]), none)

    @property
    def main(self) -> ArmRows:
        """The method's arm."""
        return self.arms[0]


def read_run(folder: Path) -> RunRows:
    """Read a run. Raises `CheckpointError` where the folder is none, or where no round is finished yet."""
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"'{folder}' is not the folder of an UNDO run: it has no recipe.yaml")
    start = _round(folder / "iter_00")
    if start is None or not (folder / "manifest.json").is_file():
        raise CheckpointError(f"the run {folder} has no finished round yet; see: limbeck undo status {folder}")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    names = [recipe["method"]["base"], *recipe["controls"]]
    arms = tuple(arm for name in names if (arm := _arm(folder, name, start)) is not None)
    untouched = folder / "arms" / "untouched" / "accuracy.json"
    return RunRows(
        folder=folder,
        recipe=recipe,
        manifest=read_json(folder / "manifest.json"),
        arms=arms,
        untouched=read_json(untouched) if untouched.is_file() else None,
        costs=_costs(folder / LEDGER),
    )


def _costs(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    with Ledger.open(path) as ledger:
        return ledger.by_stage()


def _arm(folder: Path, name: str, start: RoundRows) -> ArmRows | None:
    place = folder / "arms" / name
    own = [found for each in sorted(place.glob("iter_*")) if (found := _round(each)) is not None]
    # Controls of one training have a round 0 of their own in the place of the common one.
    rounds = own if own and own[0].metrics["round"] == 0 else [start, *own]
    outcome = read_json(place / "outcome.json") if (place / "outcome.json").is_file() else None
    if outcome is None and not own and name != "one-shot" and place.exists():
        return None
    return ArmRows(name=name, rounds=tuple(rounds), outcome=outcome) if place.exists() or own else None


def _round(folder: Path) -> RoundRows | None:
    path = folder / "metrics.json"
    return RoundRows(folder=folder, metrics=read_json(path)) if path.is_file() else None
