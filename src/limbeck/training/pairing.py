"""The models of a run, loaded as its recipe says, with what is printed of them at the start."""

from __future__ import annotations

import dataclasses

from limbeck.config import Recipe
from limbeck.models.loading import Attention, LoraSettings
from limbeck.models.pair import Pair
from limbeck.training.world import World


def load_pair(
    recipe: Recipe, world: World, *, precision: str, attention: Attention, is_matched: bool
) -> tuple[Pair, list[str]]:
    """The models; a teacher that only writes text is not among them, so that its vocabulary is its own business."""
    models = recipe.models
    lora = None if models.lora is None else LoraSettings(**dataclasses.asdict(models.lora))
    pair = Pair.load(
        teacher=models.teacher if is_matched else None,
        student=models.student,
        student_dtype="bfloat16" if precision == "bf16" else "float32",
        teacher_dtype=models.teacher_dtype,
        device=str(world.device),
        teacher_device=str(world.device) if models.teacher_device == "auto" else models.teacher_device,
        teacher_bits=models.teacher_bits,
        teacher_offload=models.teacher_offload,
        teacher_is_base=models.teacher_is_base and is_matched,
        lora=lora,
        dropout=models.dropout,
        attention=attention,
        allow_bin=models.allow_bin,
        chat_template_kwargs=dict(models.chat_template_kwargs),
        seed=recipe.train.seed,
    )
    trained = sum(p.numel() for p in pair.student.parameters() if p.requires_grad)
    total = sum(p.numel() for p in pair.student.parameters())
    note = f"student: {total:,} parameters, {trained:,} trained, {precision} on {world.device}"
    return pair, [note + _about_teacher(pair), *_about_offload(recipe, pair)]


def _about_teacher(pair: Pair) -> str:
    if pair.teacher is None:
        return ""
    if pair.teacher_is_base:
        return "; teacher: the same weights with LoRA off"
    count = sum(p.numel() for p in pair.teacher.parameters())
    where = str(pair.teacher.device)
    if pair.teacher_home is not None:
        where = f"{pair.teacher_home}, in main memory between uses"
    return f"; teacher: {count:,} parameters, {pair.teacher.dtype} on {where}"


def _about_offload(recipe: Recipe, pair: Pair) -> list[str]:
    if not recipe.models.teacher_offload or pair.teacher is None or pair.teacher_home is not None:
        return []
    return ["models.teacher_offload changes nothing: the teacher computes in main memory already"]
