"""What the programs here say about the machine, and how they read the memory of their own process. No benchmark."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe() -> str:
    """One line: cores, threads, versions, and whether the allocator has been told to keep big blocks."""
    allocator = os.environ.get("GLIBC_TUNABLES") or "default"
    return (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}, allocator {allocator}"
    )


def resident_bytes() -> int:
    """The memory that this process holds now."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that this process held. Not `ru_maxrss`, which begins with that of the parent process."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status does not name {key}; memory is measured on Linux only")


if __name__ == "__main__":
    print(describe())
