"""A run's metrics for TensorBoard, Weights & Biases or trackio, through accelerate's trackers.

Off by default: a run explains itself by its own files, and nothing leaves the machine unasked.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from limbeck.config import Recipe
from limbeck.config.sections import TrackSection
from limbeck.errors import ConfigError
from limbeck.training.rundir import TRACKING, RunDirectory

_PROJECT = "limbeck"
_FOLDER = "tracking"
# Metrics and the recipe were asked for; a patch of the working tree, the program and what it prints were not.
_WANDB = {"disable_git": True, "disable_code": True, "console": "off"}
# The kinds of rows that have curves, and what their names begin with.
_CURVES = {"step": "train", "validation": "validation"}


def check_tracker(track: TrackSection) -> None:
    """Raise `ConfigError` if the package of the tracker is not installed; before anything else of a run."""
    if track.kind == "none" or importlib.util.find_spec(track.kind) is not None:
        return
    raise ConfigError(
        f"track.kind is '{track.kind}', but the package {track.kind} is not installed.\n"
        f"  Install it with: pip install limbeck[track], or set track.kind=none"
    )


class Tracker:
    """Sends rows of metrics.jsonl on, each once.

    Whatever was sent is remembered in tracking.json before it is sent, so that a resumed run, which takes some steps
    again with the same numbers, sends none of them twice. A context: the tracker begins with it and is finished at its
    end, however that comes about.
    """

    def __init__(self, recipe: Recipe, directory: RunDirectory, *, is_main: bool) -> None:
        self._recipe = recipe
        self._directory = directory
        self._is_on = is_main and recipe.track.kind != "none"
        self._tracker: Any = None
        self._id = ""
        self._sent: dict[str, int] = {}

    def __enter__(self) -> Tracker:
        if self._is_on:
            check_tracker(self._recipe.track)
            self._recall()
            self._tracker = _started(self._recipe, self._directory, id=self._id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Send a row of a step or a validation, unless it was sent before."""
        kind = str(row["kind"])
        if self._tracker is None or kind not in _CURVES or row["step"] <= self._sent.get(kind, 0):
            return
        step = self._sent[kind] = int(row["step"])
        self._remember()
        self._tracker.log(dict(_numbers(row, prefix=_CURVES[kind])), step=step)

    def _recall(self) -> None:
        """The name that this run has there, and the last step of each kind of row that was sent; new for another
        tracker, since a folder's name may be that of other runs there."""
        path = self._directory.path / TRACKING
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError:
            found = {}
        is_same = found.get("kind") == self._recipe.track.kind
        self._sent = dict(found["sent"]) if is_same else {}
        self._id = found["id"] if is_same else f"{self._directory.path.resolve().name}-{secrets.token_hex(4)}"
        self._remember()

    def _remember(self) -> None:
        state = {"kind": self._recipe.track.kind, "id": self._id, "sent": self._sent}
        self._directory.write_text(TRACKING, json.dumps(state) + "\n")


def _started(recipe: Recipe, directory: RunDirectory, *, id: str) -> Any:
    from accelerate import PartialState, tracking

    # accelerate's trackers speak through its logger, which wants to know the ranks; on several they are known already.
    PartialState()
    track, project = recipe.track, recipe.track.project or _PROJECT
    if track.kind == "tensorboard":
        made = tracking.TensorBoardTracker("tensorboard", logging_dir=directory.path / _FOLDER)
    elif track.kind == "wandb":
        (directory.path / _FOLDER).mkdir(exist_ok=True)
        # One run there for one run here, also when it goes on.
        made = tracking.WandBTracker(
            project, name=id, id=id, resume="allow", dir=str(directory.path / _FOLDER), settings=dict(_WANDB)
        )
    else:
        made = tracking.TrackioTracker(project, name=id, resume="allow")
    made.start()
    if track.kind != "tensorboard":
        made.store_init_configuration(recipe.values())
    return made


def _numbers(row: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a row by name, groups joined by a slash: train/terms/token.

    >>> dict(_numbers({"kind": "step", "step": 3, "loss": 0.5, "terms": {"token": 0.25}}, prefix="train"))
    {'train/loss': 0.5, 'train/terms/token': 0.25}
    """
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, prefix=f"{prefix}/{key}")
        elif key != "step" and isinstance(value, int | float):
            yield f"{prefix}/{key}", float(value)
