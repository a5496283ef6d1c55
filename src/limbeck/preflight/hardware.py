"""The machine that a run is to go on: this one, or GPUs that are named."""

from __future__ import annotations

import functools
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.errors import ConfigError, UnknownName
from limbeck.models.room import free_memory, resident_bytes
from limbeck.registry import Registry

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Memory in bytes, dense bf16 operations a second, and bytes a second from memory, as its maker states them."""

    memory: int
    flops: float
    bandwidth: float


def _gpu(gigabytes: int, teraflops: int | float, terabytes: int | float) -> Accelerator:
    return Accelerator(memory=gigabytes * GIB, flops=teraflops * 1e12, bandwidth=terabytes * 1e12)


# Makers' data sheets: dense bf16 tensor operations (not the doubled number for sparse ones), SXM where there is one.
GPUS: Registry[Accelerator] = Registry(
    "GPU",
    {
        "A10-24G": _gpu(24, 125, 0.6),
        "A100-40G": _gpu(40, 312, 1.555),
        "A100-80G": _gpu(80, 312, 2.039),
        "A6000-48G": _gpu(48, 155, 0.768),
        "B200-180G": _gpu(180, 2250, 8.0),
        "H100-80G": _gpu(80, 989, 3.35),
        "H200-141G": _gpu(141, 989, 4.8),
        "L4-24G": _gpu(24, 121, 0.3),
        "L40S-48G": _gpu(48, 362, 0.864),
        "RTX4090-24G": _gpu(24, 165, 1.008),
    },
)


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a run is to go: `count` alike devices of a kind ("cpu" or "cuda").

    `memory` is what each may use in bytes, `flops` and `bandwidth` what it is likely to reach (not its peak).
    `libraries` is what a process holds there before it holds a model.
    """

    kind: str
    name: str
    count: int
    memory: int
    flops: float
    bandwidth: float
    libraries: int

    def computing_in(self, precision: str) -> Devices:
        """The same for a run of this precision ("fp32", "bf16-mixed", "bf16"); a GPU's speed is that of bf16."""
        if self.kind != "cpu":
            return self
        return replace(self, flops=self.flops * _step_gain(precision))


# What dense layers of usual sizes reach of the peak in training, and decoding of the memory's bandwidth.
_REACHED_FLOPS, _REACHED_BANDWIDTH = 0.35, 0.6
# A CUDA context with cuBLAS and NCCL.
_CONTEXT = GIB
_PRODUCTS = 50


def named_gpus(text: str) -> Devices:
    """The GPUs of a text: "A100-80G", "4xA100-80G"; the size may be left out where there is one. Raises `ConfigError`.

    >>> gpus = named_gpus("4xa100-80g")
    >>> gpus.count, gpus.name, gpus.memory // 2**30
    (4, 'A100-80G', 80)
    """
    found = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?([A-Za-z][\w-]*)\s*", text)
    if found is None or found.group(1) == "0":
        raise ConfigError(f"--gpus is '{text}'; write NUMBERxGPU, e.g. 4xA100-80G\n  known: {', '.join(GPUS)}")
    wanted = found.group(2).upper().removesuffix("B")
    names = [name for name in GPUS if wanted in (name, name.partition("-")[0])]
    if not names:
        raise UnknownName.among("GPU", found.group(2), GPUS, where="--gpus")
    if len(names) > 1:
        raise ConfigError(f"--gpus is '{text}', of which there are several: {', '.join(names)}; name one of them")
    gpu = GPUS[names[0]]
    return Devices(
        kind="cuda",
        name=names[0],
        count=int(found.group(1) or 1),
        memory=gpu.memory,
        flops=gpu.flops * _REACHED_FLOPS,
        bandwidth=gpu.bandwidth * _REACHED_BANDWIDTH,
        libraries=_CONTEXT,
    )


def this_machine(device: str) -> Devices:
    """One device of this machine, as `models.device` names it; a CPU's speed is measured for a fraction of a second."""
    import torch

    from limbeck.models.loading import resolve_device

    own = resolve_device(device)
    if own.type == "cuda":
        facts = torch.cuda.get_device_properties(own)
        gpu = _like(str(facts.name))
        return Devices(
            kind="cuda",
            name=str(facts.name),
            count=1,
            memory=int(facts.total_memory),
            flops=gpu.flops * _REACHED_FLOPS,
            bandwidth=gpu.bandwidth * _REACHED_BANDWIDTH,
            libraries=_CONTEXT,
        )
    return Devices(
        kind=own.type,
        name=f"{own.type}, {torch.get_num_threads()} threads",
        count=1,
        memory=free_memory() + resident_bytes(),
        flops=_cpu_flops(),
        bandwidth=_cpu_bandwidth(),
        libraries=library_bytes(),
    )


def reachable_flops(device: str, precision: str = "auto") -> tuple[str, float]:
    """A GPU's name, or "cpu", and the operations a second that a run of this precision may reach there."""
    import torch

    from limbeck.models.loading import resolve_device

    own = resolve_device(device)
    if own.type != "cuda":
        return own.type, _cpu_flops() * _step_gain(precision)
    name = str(torch.cuda.get_device_properties(own).name)
    return name, _like(name).flops * _REACHED_FLOPS


def _like(name: str) -> Accelerator:
    """The GPU that a driver calls by this name: of those whose names are in it, the longest (A100 and no A10)."""
    spelled = name.replace(" ", "").upper()
    near = [each for each in GPUS if each.partition("-")[0] in spelled]
    return GPUS[max(near, key=lambda each: len(each.partition("-")[0]))] if near else _gpu(0, 100, 0.5)


def library_bytes() -> int:
    """What a training process holds before it loads a model: Python with every library that training imports."""
    import limbeck.evaluation
    import limbeck.training.loop  # noqa: F401

    return resident_bytes() or 600 * 2**20


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_disk(folder: Path) -> int:
    """Free bytes where a folder is, or will be."""
    place = folder.expanduser().absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _cpu_flops() -> float:
    """Half of what all threads of this CPU do in the best product of matrices."""
    import torch

    return 0.5 * torch.get_num_threads() * _product_speed("float32")


def _cpu_bandwidth() -> float:
    """Bytes a second, read and written, in the better of two copies."""
    import torch

    block = torch.ones(2**23)
    return 2 * 4 * len(block) / min([_timed(lambda: block.clone()) for _ in range(3)][1:])


@functools.cache
def bf16_gain() -> float:
    """How many times as fast as float32 this CPU multiplies matrices of bfloat16."""
    return _product_speed("bfloat16") / _product_speed("float32")


def _step_gain(precision: str) -> float:
    """The same of a whole step, of which products are taken to be a half; "auto" is fp32 on a CPU."""
    return 2 / (1 + 1 / bf16_gain()) if precision in ("bf16", "bf16-mixed") else 1.0


@functools.cache
def _product_speed(dtype: str) -> float:
    """Operations a second of one thread, in the best of many products.

    Where other programs run, threads that wait for each other take twenty times as long; one thread sooner or later has
    its core for the moment that a product takes.
    """
    import torch

    threads, side = torch.get_num_threads(), 384
    left = torch.ones(side, side, dtype=getattr(torch, dtype))
    torch.set_num_threads(1)
    try:
        return 2 * side**3 / min(_timed(lambda: left @ left) for _ in range(_PRODUCTS))
    finally:
        torch.set_num_threads(threads)


def _timed(action: object) -> float:
    assert callable(action)
    started = time.perf_counter()
    action()
    return max(1e-9, time.perf_counter() - started)
