"""How much memory is free: on this machine, or on one of its devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_NO_MEMORY = ("not enough memory", "can't allocate", "out of memory", "_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in the CPU's allocator.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    False
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def free_bytes(device: torch.device) -> int:
    """Bytes that may still be taken on a device; of the machine's memory where the device shares it."""
    import torch

    if device.type != "cuda":
        return free_memory()
    # What torch has reserved and does not use is free for this process.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def free_memory() -> int:
    """Bytes that processes may still take on this machine, inside its control group where there is one."""
    left = [_meminfo("MemAvailable")]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        left.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(left))


def resident_bytes() -> int:
    """The memory that this process holds."""
    return _kilobytes(Path("/proc/self/status"), "VmRSS")


def _meminfo(key: str) -> int:
    if Path("/proc/meminfo").is_file():
        return _kilobytes(Path("/proc/meminfo"), key)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _kilobytes(path: Path, key: str) -> int:
    """The line `key` of a file of /proc, in bytes; 0 where the system has no such file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
