"""A study before it runs: what is done, what waits, and what that will take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from limbeck.config import Recipe
from limbeck.data.corpora import HUB, is_path
from limbeck.data.named import CORPORA, local_file
from limbeck.errors import ConfigError
from limbeck.preflight.hardware import Devices
from limbeck.studies.definition import Study
from limbeck.studies.estimates import Estimate, Pace
from limbeck.studies.places import Places
from limbeck.studies.resolving import DATA, Planned, planned_runs


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """One row of a study. `state`: "done", "waits", "goes on", or "same" as the row `same_as`; `seconds` of what is
    not done, None where nobody knows, and `how` they are known."""

    key: str
    label: str
    state: Literal["done", "waits", "goes on", "same"]
    same_as: str = ""
    seconds: float | None = None
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Rows, stages that have to be built, time, memory and disk of a study. `absent`: files that runs would miss."""

    study: str
    rows: tuple[Awaited, ...]
    stages: tuple[tuple[str, Estimate], ...]
    absent: tuple[str, ...]
    memory: str
    disk: str
    jobs: int

    @property
    def hours(self) -> float:
        """Of everything that is known, divided among the jobs."""
        waiting = [each.seconds for each in self.rows] + [estimate.seconds for _, estimate in self.stages]
        return sum(seconds or 0.0 for seconds in waiting) / 3600 / self.jobs

    def lines(self) -> Iterator[str]:
        """For printing."""
        runs = {each.key for each in self.rows}
        yield f"{len(self.rows)} rows of {self.study}: {len(runs)} different runs"
        for each in self.rows:
            yield f"  {each.key}  {each.label}: {_told(each)}"
        for name, estimate in self.stages:
            yield f"  stage {name}: {_minutes(estimate.seconds)}, {estimate.how}"
        waiting = [each for each in self.rows if each.state in ("waits", "goes on")]
        unknown = sum(each.seconds is None for each in waiting)
        counted = f" and {unknown} runs of unknown length" if unknown else ""
        yield f"time: about {self.hours:,.1f} h for {len(waiting)} runs, {self.jobs} at a time{counted}" + (
            "; several at a time divide the same cores, so that this is the best case" if self.jobs > 1 else ""
        )
        yield self.memory
        yield self.disk
        yield from self.absent

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        stages = [{"name": name, **asdict(estimate)} for name, estimate in self.stages]
        rows = [asdict(each) for each in self.rows]
        told = {"jobs": self.jobs, "hours": self.hours, "memory": self.memory, "disk": self.disk, "absent": self.absent}
        return {"study": self.study, "rows": rows, "stages": stages, **told}


def forecast(
    study: Study, places: Places, *, only: tuple[str, ...] = (), jobs: int = 1, gpu: Devices | None = None
) -> Forecast:
    """Arms with hash and state, time by arm and in all, memory, disk. Nothing is trained, fetched or written.

    With `gpu` the runs are taken to go there, and not to this machine. Raises `ConfigError` for several GPUs: a run of
    a study takes one.
    """
    if gpu is not None and gpu.count > 1:
        raise ConfigError(f"a run of a study takes one device, not {gpu.count}; write --gpu {gpu.name}")
    planned = planned_runs(study, only=only)
    pace = Pace(study, places, gpu=gpu)
    seen: dict[str, str] = {}
    rows: list[Awaited] = []
    for each in planned:
        if each.key in seen:
            rows.append(Awaited(key=each.key, label=each.label, state="same", same_as=seen[each.key]))
            continue
        seen[each.key] = each.label
        if places.kept(study, each).is_file():
            rows.append(Awaited(key=each.key, label=each.label, state="done"))
            continue
        has_begun = (places.run(each.key) / "recipe.yaml").is_file()
        state: Literal["waits", "goes on"] = "goes on" if has_begun else "waits"
        rows.append(Awaited(key=each.key, label=each.label, state=state, **asdict(pace.of(each))))
    return Forecast(
        study=study.name,
        rows=tuple(rows),
        stages=tuple((name, estimate) for name, is_built, estimate in pace.stages(planned) if not is_built),
        absent=tuple(_absent(study, places, planned)),
        memory=pace.memory(planned),
        disk=pace.disk(planned, jobs=jobs),
        jobs=jobs,
    )


def _absent(study: Study, places: Places, planned: Iterable[Planned]) -> Iterator[str]:
    """A line for each file that is not there, with who asks for it."""
    asking: dict[str, list[str]] = {}
    for corpus in study.scoring.corpora:
        if (place := _missing(corpus.corpus, split=corpus.split, root=places.root)) is not None:
            asking.setdefault(place, []).append("every arm is scored on it")
    for each in planned:
        if each.recipe is None:
            continue
        root = places.root or (Path(each.recipe.data.root) if each.recipe.data.root else None)
        for name in _read_by(each.recipe):
            if (place := _missing(name, split="train", root=root)) is not None:
                asking.setdefault(place, []).append(f"{each.label} learns from it")
    for place, why in asking.items():
        others = f", and {len(why) - 1} more" if len(why) > 1 else ""
        yield f"not there: {place} ({why[0]}{others})"


def _read_by(recipe: Recipe) -> list[str]:
    corpus, valid = recipe.data.corpus, recipe.data.valid
    shares = [corpus] if isinstance(corpus, str) else [share.corpus for share in corpus or ()]
    held_out = [valid] if isinstance(valid, str) and is_path(valid) else []
    plain = [recipe.data.plain_text] if recipe.data.plain_text is not None else []
    return [*shares, *held_out, *plain]


def _missing(name: str, *, split: str, root: Path | None) -> str | None:
    """What a corpus's file is called, if it has to be on this machine and is not."""
    entry = CORPORA.get(name)
    is_below = name.startswith(DATA) or (entry is not None and not entry.packaged)
    if is_below and root is None:
        return f"{name.removeprefix(DATA)}, below the folder of the data sets that --root names"
    path = Path(name) if entry is None and is_path(name) else None
    if root is not None and name.startswith(DATA):
        path = root / name.removeprefix(DATA)
    elif entry is not None and root != HUB and split in entry.files:
        path = local_file(entry, split, root=root)
    return None if path is None or path.expanduser().exists() else str(path)


def _told(row: Awaited) -> str:
    if row.state == "same":
        return f"the same run as {row.same_as}"
    if row.state == "done":
        return "done"
    return f"{_minutes(row.seconds)}, {row.how}" + (", goes on" if row.state == "goes on" else "")


def _minutes(seconds: float | None) -> str:
    """Minutes, from ten hours on hours, from ten days on days."""
    if seconds is None:
        return "time not known"
    if seconds < 36_000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 864_000 else f"{seconds / 86_400:,.0f} days"
