"""What can be said of the machine: room on disk and in memory, threads, the allocator, and what the device can do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from limbeck.config import Recipe
from limbeck.data.assembling import TrainingData
from limbeck.errors import LimbeckError
from limbeck.models.loading import resolve_device
from limbeck.models.quantizing import why_no_bits
from limbeck.preflight.estimate import Plan, plan
from limbeck.preflight.findings import Finding, failed, ok
from limbeck.preflight.hardware import GIB, bf16_gain, free_disk, usable_cores

_TUNED = "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184"
# Below this margin, a need counts as nearly all there is.
_MARGIN = 1.15
# Products are part of a step: below this gain of theirs bf16 is not worth its digits.
_WORTH = 2.0


def machine_findings(recipe: Recipe) -> list[Finding]:
    """The device, threads and the allocator, and whether the teacher can be held there as asked."""
    try:
        device = resolve_device(recipe.models.device)
    except LimbeckError as error:
        return [failed("device", error)]
    found = [ok("device", f"{device.type}")]
    if device.type == "cpu":
        found += [*_precision(recipe), _threads(), _allocator()]
    elif device.type == "cuda" and recipe.train.precision == "bf16-mixed" and not torch.cuda.is_bf16_supported():
        message = "this GPU computes bf16 by emulation, slower than fp32"
        found.append(Finding(check="device", severity="warning", message=message, advice="set train.precision=fp32"))
    return [*found, *_teacher(recipe, device)]


def _teacher(recipe: Recipe, device: torch.device) -> list[Finding]:
    """What `models.teacher_*` asks of the device that the teacher computes on."""
    models = recipe.models
    if models.teacher is None:
        return []
    try:
        home = device if models.teacher_device == "auto" else resolve_device(models.teacher_device)
    except LimbeckError as error:
        return [failed("teacher's device", error)]
    if models.teacher_bits is not None:
        reason = why_no_bits(models.teacher_bits, home)
        if reason is None:
            return [ok("teacher's bits", f"{models.teacher_bits} a weight, on {home}")]
        message, _, advice = reason.partition("\n  ")
        return [Finding(check="teacher's bits", severity="error", message=message, advice=advice)]
    if models.teacher_offload and home.type == "cpu":
        message = "models.teacher_offload changes nothing: the teacher computes in main memory already"
        return [Finding(check="teacher's place", severity="note", message=message)]
    return []


def _precision(recipe: Recipe) -> list[Finding]:
    """Whether this CPU is faster in bfloat16, as those with instructions for it are, or several times slower."""
    gain, asked = bf16_gain(), recipe.train.precision
    message = f"this CPU multiplies matrices of bf16 {gain:.1f} times as fast as of fp32"
    if asked in ("bf16", "bf16-mixed") and gain < 1:
        advice = "set train.precision=fp32"
        return [Finding(check="precision", severity="warning", message=message, advice=advice)]
    if asked in ("auto", "fp32") and gain > _WORTH:
        advice = "for a faster run with fewer digits set train.precision=bf16-mixed models.teacher_dtype=bf16"
        return [Finding(check="precision", severity="note", message=message, advice=advice)]
    return [ok("precision", message)]


def _threads() -> Finding:
    threads, cores = torch.get_num_threads(), usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > cores:
        message = f"torch takes {threads} threads on {cores} cores: they wait for each other"
        advice = f"set OMP_NUM_THREADS={cores}"
        return Finding(check="threads", severity="warning", message=message, advice=advice)
    if load > cores:
        message = f"{load:.1f} processes already wait for the {cores} cores"
        advice = "wait for them, or give both fewer threads (OMP_NUM_THREADS)"
        return Finding(check="threads", severity="warning", message=message, advice=advice)
    if threads < cores:
        message = f"torch takes {threads} of {cores} cores"
        advice = f"set OMP_NUM_THREADS={cores}, if nothing else needs them"
        return Finding(check="threads", severity="note", message=message, advice=advice)
    return ok("threads", f"{threads} on {cores} cores")


def _allocator() -> Finding:
    if not sys.platform.startswith("linux"):
        return ok("allocator", "nothing to set on this system")
    if "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "") or os.environ.get("LD_PRELOAD"):
        return ok("allocator", "big blocks are kept, or another allocator is loaded")
    message = "glibc gives big blocks back to the kernel at every free, and taking them again costs page faults"
    return Finding(
        check="allocator",
        severity="note",
        message=message,
        advice=f"about a third faster on a CPU, for more memory: put {_TUNED} in front of the command",
    )


def plan_findings(recipe: Recipe, data: TrainingData | None) -> list[Finding]:
    """Memory and disk, by what `limbeck plan` says; nothing where it can say nothing."""
    try:
        needs = plan(recipe, data=data)
    except LimbeckError:
        # A model that is not there is a finding of its own.
        return []
    return [_memory(needs), _disk(needs, Path(recipe.run))]


def _memory(needs: Plan) -> Finding:
    message = f"a peak of {needs.peak / GIB:.1f} GiB is expected, and {needs.devices.memory / GIB:.1f} GiB are free"
    if not needs.fits:
        return Finding(check="memory", severity="error", message=message, advice=" ".join(needs.advice()))
    if needs.peak * _MARGIN > needs.devices.memory:
        return Finding(check="memory", severity="warning", message=message, advice=" ".join(needs.advice()))
    return ok("memory", message)


def _disk(needs: Plan, run: Path) -> Finding:
    free = free_disk(run)
    message = f"the run takes up to {needs.disk_bytes / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at {run.parent}"
    advice = "choose another disk (run=DIR), train with models.lora, or make room"
    if needs.disk_bytes > free:
        return Finding(check="disk", severity="error", message=message, advice=advice)
    if needs.disk_bytes * _MARGIN > free:
        return Finding(check="disk", severity="warning", message=message, advice=advice)
    return ok("disk", message)
