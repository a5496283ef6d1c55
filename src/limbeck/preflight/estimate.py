"""`limbeck plan`: what a run will take of memory, disk and time, from its recipe and the models' configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.config.reading import scalar
from limbeck.data.assembling import TrainingData
from limbeck.errors import ConfigError
from limbeck.losses.heads import auto_chunk
from limbeck.preflight.costs import Part, Situation, disk_parts, memory_parts, seconds_by_work
from limbeck.preflight.hardware import GIB, Devices, named_gpus, this_machine
from limbeck.preflight.outlines import Outline
from limbeck.preflight.workload import Workload
from limbeck.reporting.durations import duration
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.training.resolving import fitting_rows

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will take. Memory is of the fullest device, in bytes; `seconds` is right within a factor of two,
    but for small models, which take longer.

    `peak` is what is always there with the larger of the phases. `resolved` is what `auto` becomes.
    """

    devices: Devices
    models: tuple[tuple[str, str, int, int], ...]
    parts: tuple[Part, ...]
    disk: tuple[tuple[str, int], ...]
    workload: Workload
    resolved: Mapping[str, Any]
    seconds: Mapping[str, float]

    @property
    def always(self) -> int:
        """Bytes that are there in every phase."""
        return sum(part.bytes for part in self.parts if part.during == "always")

    @property
    def phases(self) -> dict[str, int]:
        """The peak of each phase."""
        names = dict.fromkeys(part.during for part in self.parts if part.during != "always")
        return {name: self.always + sum(part.bytes for part in self.parts if part.during == name) for name in names}

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment."""
        return max(self.phases.values(), default=self.always)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the device's memory."""
        return self.peak <= self.devices.memory

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run will hold on disk."""
        return sum(size for _, size in self.disk)

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON; sizes in bytes."""
        return {
            "devices": asdict(self.devices),
            "models": [
                {"role": role, "name": name, "parameters": all_, "trained": trained}
                for role, name, all_, trained in self.models
            ],
            "memory": {
                "parts": [asdict(part) for part in self.parts],
                "phases": self.phases,
                "peak": self.peak,
                "available": self.devices.memory,
                "fits": self.fits,
            },
            "disk": {"parts": dict(self.disk), "total": self.disk_bytes},
            "workload": asdict(self.workload),
            "resolved": dict(self.resolved),
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
        }

    def text(self, width: int = 80) -> str:
        """Tables for a terminal."""
        peaks = ", ".join(f"{name} {_size(size)}" for name, size in self.phases.items())
        verdict = "it fits" if self.fits else f"it does NOT fit: {' '.join(self.advice())}"
        devices = f"{self.devices.count} x {self.devices.name}" if self.devices.count > 1 else self.devices.name
        memory = (
            f"peak {_size(self.peak)} of {_size(self.devices.memory)} on {devices}: {verdict}",
            f"phases: {peaks}",
        )
        models = [
            Row(cells=(role, name, _millions(all_), _millions(trained))) for role, name, all_, trained in self.models
        ]
        load, seconds = self.workload, sum(self.seconds.values())
        data = "lengths from the data" if load.is_measured else "rows of full length: the data was not read"
        notes = (
            f"{load.rows:,} rows, {load.steps:,} steps, "
            f"{load.prompt_tokens:.0f} + {load.response_tokens:.0f} tokens a row ({data})",
            f"time: about {duration(seconds)} (within a factor of two; small models take longer): "
            + ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items() if value),
            ", ".join(f"{key} {scalar(value)}" for key, value in self.resolved.items()),
        )
        tables = (
            _table(("model", "name", "parameters", "trained"), models, ()),
            _table(
                ("memory of a device", "when", "size"),
                [Row(cells=(part.name, part.during, _size(part.bytes))) for part in self.parts if part.bytes],
                memory,
            ),
            _table(("on disk", "size"), [Row(cells=(name, _size(size))) for name, size in self.disk if size], notes),
        )
        return "\n".join(table.text(width=width) for table in tables)

    @property
    def _may_offload(self) -> bool:
        holds = any(part.name == "teacher's weights" and part.bytes for part in self.parts)
        return holds and self.devices.kind != "cpu" and not self.resolved["teacher_offload"]

    def advice(self) -> list[str]:
        """What would make it smaller, by what is largest."""
        found = []
        if int(self.resolved["micro_rows"]) > 1:
            found.append("lower train.micro_rows;")
        if not self.resolved["gradient_checkpointing"]:
            found.append("set models.gradient_checkpointing=true;")
        if self._may_offload:
            found.append("set models.teacher_offload=true;")
        if self.resolved["lora"] is None:
            found.append("train with models.lora;")
        if self.devices.count > 1 and self.resolved["strategy"] != "fsdp":
            found.append("set train.strategy=fsdp;")
        return [*found, "take a smaller model or a larger machine."]


def plan(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *overrides: str,
    gpus: str | None = None,
    data: TrainingData | None = None,
) -> Plan:
    """What a run of the recipe will take, on this machine or on `gpus` ("4xA100-80G"), without reading a weight.

    Memory is a sum of parts, each computed: weights, gradients and AdamW's moments from the number of parameters;
    activations by walking through the model on tensors without contents; blocks of the vocabulary from the chunk; the
    key/value cache from the longest row. Raises `ModelError` where a configuration cannot be had, `ConfigError` for
    GPUs that are not known, or on which a run of this recipe would not start.
    """
    recipe = Recipe.load(recipe, list(overrides))
    devices = this_machine(recipe.models.device) if gpus is None else named_gpus(gpus)
    if gpus is not None:
        _check_ranks(recipe, ranks=devices.count)
    load = Workload.of(recipe, data=data)
    student = Outline.of(recipe.models.student)
    teacher = Outline.of(recipe.models.teacher) if recipe.models.teacher else None
    resolved = _resolved(recipe, devices, student=student, teacher=teacher)
    devices = devices.computing_in(resolved["precision"])
    situation = Situation(
        recipe=recipe, devices=devices, load=load, student=student, teacher=teacher, resolved=resolved
    )
    models = [("student", student.name, student.parameters, situation.trained)]
    models += [("teacher", teacher.name, teacher.parameters, 0)] if teacher is not None else []
    return Plan(
        devices=devices,
        models=tuple(models),
        parts=tuple(memory_parts(situation)),
        disk=tuple(disk_parts(situation)),
        workload=load,
        resolved=resolved,
        seconds=seconds_by_work(situation),
    )


def _check_ranks(recipe: Recipe, *, ranks: int) -> None:
    """What a run on that many processes would be refused for."""
    train = recipe.train
    if train.strategy == "fsdp" and ranks == 1:
        raise ConfigError("train.strategy is 'fsdp', which needs several processes; name several, as in --gpus 4xNAME")
    if train.batch_rows % ranks:
        raise ConfigError(f"train.batch_rows is {train.batch_rows}, which {ranks} processes cannot share evenly")


def _resolved(recipe: Recipe, devices: Devices, *, student: Outline, teacher: Outline | None) -> dict[str, Any]:
    train = recipe.train
    precision = train.precision
    if precision == "auto":
        precision = "bf16-mixed" if devices.kind == "cuda" else "fp32"
    own_rows = max(1, train.batch_rows // devices.count)
    fitting = fitting_rows(recipe.data.max_length, devices.kind)
    # As a run counts them at its start: both models are there, gradients and two moments are to come.
    numbers = student.parameters + 3 * student.trained(recipe.models.lora)
    numbers += 0 if teacher is None else teacher.parameters
    room = max(0, devices.memory - devices.libraries - 4 * numbers)
    return {
        "precision": precision,
        "own_rows": own_rows,
        "micro_rows": min(own_rows, fitting if train.micro_rows == "auto" else int(train.micro_rows)),
        "chunk": auto_chunk(student.width, devices.kind, room=room) if train.chunk == "auto" else int(train.chunk),
        "strategy": "none" if devices.count == 1 else "fsdp" if train.strategy == "fsdp" else "ddp",
        "teacher_offload": recipe.models.teacher_offload,
        "lora": None if recipe.models.lora is None else recipe.models.lora.rank,
        "gradient_checkpointing": recipe.models.gradient_checkpointing,
    }


def _size(size: int) -> str:
    """A size for people.

    >>> _size(3 * 2**30), _size(5 * 2**20)
    ('3.0 GiB', '5 MiB')
    """
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / _MIB:,.0f} MiB"


def _millions(count: int) -> Cell:
    return Number(value=count / 1e6, digits=1)


def _table(titles: Sequence[str], rows: Sequence[Row], notes: Sequence[str]) -> Table:
    heads = tuple(
        Column(title=title + (", millions" if title in ("parameters", "trained") else "")) for title in titles
    )
    return Table(columns=heads, rows=tuple(rows), notes=tuple(notes))
