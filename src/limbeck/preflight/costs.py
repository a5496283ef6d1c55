"""The parts of a run's memory and disk, and where its time goes; each computed from sizes that configurations state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from limbeck.config import Recipe
from limbeck.models.prefixes import MOST_BYTES
from limbeck.models.quantizing import BYTES_A_WEIGHT
from limbeck.preflight.hardware import Devices
from limbeck.preflight.outlines import Outline
from limbeck.preflight.workload import Workload

_TILE_NUMBERS = 2**20
# Blocks of [tile, V] that the terms hold at once: both log-probabilities, their exponentials and the gradient.
_TILE_BLOCKS = 6
# Blocks of [rows, V] of one drawn token: logits, log-probabilities, probabilities, and float64 sums in two.
_DRAW_BLOCKS = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the memory of one device. `during`: "always", or the phase that it is there in."""

    name: str
    bytes: int
    during: str


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A recipe on devices, with the outlines of its models and what `auto` becomes."""

    recipe: Recipe
    devices: Devices
    load: Workload
    student: Outline
    teacher: Outline | None
    resolved: Mapping[str, Any]

    @cached_property
    def trained(self) -> int:
        """Numbers that are trained."""
        return self.student.trained(self.recipe.models.lora)

    @property
    def own(self) -> int:
        """Bytes of one of the student's numbers; of its gradient and moments too."""
        return 2 if self.resolved["precision"] == "bf16" else 4

    @property
    def computed(self) -> int:
        """Bytes of a number that the student computes with."""
        return 4 if self.resolved["precision"] == "fp32" else 2

    @property
    def taught(self) -> int:
        """Bytes of one of the teacher's numbers."""
        name, on_gpu = self.recipe.models.teacher_dtype, self.devices.kind == "cuda"
        if name == "auto":
            return 2 if on_gpu else 4
        return {"bf16": 2, "bfloat16": 2, "float64": 8}.get(name, 4)

    @property
    def teacher_bytes(self) -> int:
        """Bytes of the teacher's weights: none of its own where it is the student's base."""
        models, teacher = self.recipe.models, self.teacher
        if teacher is None or models.teacher_is_base:
            return 0
        few = 0 if models.teacher_bits is None else teacher.linear_parameters
        small = 0.0 if models.teacher_bits is None else few * BYTES_A_WEIGHT[models.teacher_bits]
        return (teacher.parameters - few) * self.taught + round(small)

    @property
    def teacher_leaves(self) -> bool:
        """Whether the teacher is on the device only while it reads."""
        return self.recipe.models.teacher_offload and self.devices.kind != "cpu"

    @property
    def shards(self) -> int:
        """Devices that the student's weights are divided over."""
        return self.devices.count if self.resolved["strategy"] == "fsdp" else 1

    @property
    def length(self) -> int:
        """The longest row that is learned from."""
        data, load = self.recipe.data, self.load
        longest = min(load.longest, data.max_length)
        if load.drawn or load.written:
            longest = max(longest, round(load.prompt_tokens) + self.recipe.sampling.max_new_tokens)
        return min(data.max_length, longest)


def memory_parts(of: Situation) -> list[Part]:
    """The memory of one device: what is always there, then the phases of learning and of drawing."""
    student, teacher, recipe = of.student, of.teacher, of.recipe
    lora = 0 if recipe.models.lora is None else of.trained * of.own
    parts = [
        Part(name="Python and libraries", bytes=of.devices.libraries, during="always"),
        Part(name="student's weights", bytes=(student.parameters * of.own + lora) // of.shards, during="always"),
        Part(name="AdamW's moments", bytes=2 * of.trained * of.own // of.shards, during="always"),
    ]
    is_here = of.devices.kind == "cpu" or recipe.models.teacher_device in ("auto", recipe.models.device)
    if teacher is not None and is_here and (of.load.reads_teacher or of.load.written):
        if of.teacher_leaves:
            return [*parts, *_reading(of, teacher), *_learning(of), *_drawing(of)]
        parts.append(Part(name="teacher's weights", bytes=of.teacher_bytes, during="always"))
    return [*parts, *_learning(of), *_drawing(of)]


def _reading(of: Situation, teacher: Outline) -> list[Part]:
    """An offloaded teacher on the device: it reads all rows of the step, and leaves its head and hidden states."""
    rows, length = int(of.resolved["micro_rows"]), of.length
    dtype = {2: torch.bfloat16, 8: torch.float64}.get(of.taught, torch.float32)
    body = teacher.memory(rows=rows, length=length, dtype=dtype, attention=of.recipe.models.attention, trains=False)
    states = int(of.resolved["own_rows"]) * length * teacher.hidden * of.taught
    head = teacher.head_parameters * of.taught
    parts = [
        Part(name="teacher's weights", bytes=of.teacher_bytes, during="reading"),
        Part(name=f"teacher's forward of {rows} x {length} tokens", bytes=body.forward, during="reading"),
        Part(name="teacher's hidden states of a step", bytes=states, during="reading"),
        Part(name="teacher's head and hidden states", bytes=head + states, during="learning"),
    ]
    method = of.recipe.built_method()
    if of.load.drawn_together or method.revision is not None:
        parts.append(Part(name="teacher's weights while drawing", bytes=of.teacher_bytes, during="drawing"))
    return parts


def _learning(of: Situation) -> list[Part]:
    """Gradients, activations, and the larger of two moments: the walk over the vocabulary, or the body's backward."""
    student, teacher, recipe = of.student, of.teacher, of.recipe
    rows, length = int(of.resolved["micro_rows"]), of.length
    body = student.memory(
        rows=rows,
        length=length,
        dtype=torch.bfloat16 if of.own == 2 else torch.float32,
        attention=recipe.models.attention,
        autocast=torch.bfloat16 if of.resolved["precision"] == "bf16-mixed" else None,
        checkpointing=recipe.models.gradient_checkpointing,
        lora=recipe.models.lora,
    )
    scored = rows * length
    # Accumulated in float32, for the head alone; LoRA leaves the head frozen.
    head = 0 if recipe.models.lora is not None else student.head_parameters * 4
    chunk = min(int(of.resolved["chunk"]), scored)
    block = chunk * student.width
    tile = min(block, _TILE_NUMBERS) if of.devices.kind == "cpu" else block
    read = teacher is not None and of.load.reads_teacher
    blocks = block * (of.computed + (4 if read else 0)) + _TILE_BLOCKS * tile * 4
    states = scored * student.hidden * (of.computed + 4)
    states += scored * teacher.hidden * of.taught if teacher is not None and read else 0
    whole = of.trained * of.own
    parts = [
        Part(name="gradients", bytes=whole // of.shards, during="learning"),
        Part(name=f"activations of {rows} x {length} tokens", bytes=body.kept, during="learning"),
    ]
    if teacher is not None and read and recipe.built_method().revision is not None:
        drawn = int(of.resolved["own_rows"]) * length * teacher.cache_numbers * of.taught
        parts.append(Part(name="teacher's keys and values", bytes=min(MOST_BYTES, drawn), during="learning"))
    if body.kept + whole + head + blocks + states >= body.backward:
        parts.append(Part(name="the head's gradient", bytes=head, during="learning"))
        parts.append(Part(name=f"vocabulary, chunk of {chunk} tokens", bytes=blocks + states, during="learning"))
    else:
        rest = body.backward - body.kept - whole
        parts.append(Part(name="backward beside them", bytes=max(0, rest), during="learning"))
    return parts


def _drawing(of: Situation) -> list[Part]:
    """What is there while rows are drawn, in training or validation; the last step's gradients are too."""
    recipe, load, student, teacher = of.recipe, of.load, of.student, of.teacher
    rows = min(int(of.resolved["own_rows"]), 4 * int(of.resolved["micro_rows"])) if load.drawn or load.written else 0
    if load.valid_rows and recipe.validate.metric == "rouge-l":
        rows = max(rows, min(16, load.valid_rows))
    if not rows:
        return []
    length = min(recipe.data.max_length, recipe.data.max_prompt + recipe.sampling.max_new_tokens)
    token = student.cache_numbers * of.computed
    if teacher is not None and (load.drawn_together or load.written):
        token += teacher.cache_numbers * of.taught
    # Each new token joins the old ones in a new tensor, layer by layer.
    cache = token * rows * length * (student.layers + 1) // student.layers
    parts = [
        Part(name="gradients of the step before", bytes=of.trained * of.own // of.shards, during="drawing"),
        Part(name=f"key/value cache of {rows} x {length} tokens", bytes=cache, during="drawing"),
        Part(name="distributions of one token", bytes=_DRAW_BLOCKS * rows * student.width * 4, during="drawing"),
    ]
    if of.resolved["precision"] == "bf16-mixed":
        parts.append(Part(name="weights cast for drawing", bytes=student.parameters * 2, during="drawing"))
    return parts


def disk_parts(of: Situation) -> list[tuple[str, int]]:
    """What the run will hold on disk at its fullest, by name, in bytes."""
    load, tokens = of.load, of.recipe.sampling.max_new_tokens
    answers = load.validations * (load.valid_rows * (600 + 10 * tokens) + 8 * tokens * 400)
    return [
        ("checkpoints: the last two, and the one being written", 3 * 3 * of.trained * of.own),
        ("the student, and the one that it replaces", 2 * of.student.parameters * of.own),
        ("logs and validation answers", load.steps * 1_200 + answers),
        ("the teacher's answers, kept for other runs", load.written * (200 + 12 * tokens)),
    ]


def seconds_by_work(of: Situation) -> dict[str, float]:
    """Seconds of learning, drawing and validating: right within a factor of two, where this work takes the time.

    Calls are not counted: of small models, and of single tokens on a GPU, they take more than the work in them.

    learning    (6 · student + 2 · teacher) operations a token, 8 in place of 6 under gradient checkpointing
    drawing     a token reads all weights once for the rows that are drawn together, beside its 2 operations a weight
    """
    recipe, load, devices = of.recipe, of.load, of.devices
    read = load.prompt_tokens + load.response_tokens
    rows = load.steps * recipe.train.batch_rows
    tokens = rows * read * (1 + (load.drawn if load.supervised_apart else 0))
    operations = tokens * (8 if recipe.models.gradient_checkpointing else 6) * of.student.multiplied
    if of.teacher is not None and load.reads_teacher:
        operations += tokens * 2 * of.teacher.multiplied
    drawn_tokens = min(recipe.sampling.max_new_tokens, max(load.response_tokens, 1.0))
    group = max(1, min(int(of.resolved["own_rows"]), 4 * int(of.resolved["micro_rows"])))

    def drawing(count: int | float, model: Outline) -> float:
        reading = count / group * drawn_tokens * model.multiplied * of.computed / devices.bandwidth
        computing = count * (drawn_tokens + load.prompt_tokens) * 2 * model.multiplied / devices.flops
        return (reading + computing) / devices.count

    draw = drawing(rows * load.drawn, of.student)
    if of.teacher is not None:
        draw += drawing(rows * load.drawn if load.drawn_together else load.written, of.teacher)
    checked = load.validations * load.valid_rows
    validate = drawing(checked if recipe.validate.metric == "rouge-l" else 0, of.student)
    validate += checked * read * 2 * of.student.multiplied / devices.flops / devices.count
    return {"learning": operations / devices.flops / devices.count, "drawing": draw, "validating": validate}
