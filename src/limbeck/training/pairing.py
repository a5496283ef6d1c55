"""The models of a run, loaded as its recipe says, with what is printed of them at the start."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from limbeck.config import Recipe
from limbeck.evaluation.identity import weights_fingerprint
from limbeck.models.loading import Attention, LoraSettings
from limbeck.models.offline_teacher import OfflineTeacher
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


def read_only_weights(pair: Pair, offline: OfflineTeacher | None) -> dict[str, str]:
    """A digest of everything that a run reads and that no checkpoint holds: its teacher, or what its offline cache says
    of itself, and the weights that LoRA leaves as they are. "" for what the run does not have."""
    if offline is not None:
        about = offline.shards.manifest.about
        # Not by whom it was named nor in how many files it lies: neither moves a loss.
        read = [about["kind"], about["teacher"]["weights"], about["teacher"]["dtype"], about["top"], about["draws"]]
        told = hashlib.blake2b(json.dumps(read).encode(), digest_size=8).hexdigest()
    else:
        told = "" if pair.teacher is None or pair.teacher_is_base else weights_fingerprint(pair.teacher)
    has_frozen = any(not p.requires_grad for p in pair.student.parameters())
    return {"teacher": told, "base": weights_fingerprint(pair.student, frozen_only=True) if has_frozen else ""}


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
