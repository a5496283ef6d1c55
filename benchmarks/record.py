"""What a program here found, kept as JSON beside the table that it prints; `speed.py` reads the files. No benchmark."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results" / "speed"
PACKAGES = ("limbeck", "torch", "transformers", "trl", "peft", "numpy")


def parser(doc: str | None, *, quick: str = "small sizes, random models") -> argparse.ArgumentParser:
    """The options that every program has."""
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    found.add_argument("--quick", action="store_true", help=f"{quick}; its ratios mean nothing")
    found.add_argument("--out", type=Path, help="where the JSON goes; without it, of a full run, docs/results/speed/")
    found.add_argument("--child", help=argparse.SUPPRESS)
    return found


def publish(
    program: str,
    given: argparse.Namespace,
    *,
    sizes: Mapping[str, Any],
    findings: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]] = (),
    variant: str = "",
) -> None:
    """Write what was found: `findings` are what targets speak of, `rows` what they were made of. A variant of a
    program's measurement has a file of its own."""
    name = f"{program}_{variant}" if variant else program
    path = given.out or (None if given.quick else FOLDER / f"{name}.json")
    if path is None:
        return
    body = {
        "program": name,
        "command": command(program),
        "quick": given.quick,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "sizes": dict(sizes),
        "findings": dict(findings),
        "rows": [dict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def command(program: str) -> str:
    """How the program was called, without folders of this machine."""
    words = ["/".join(Path(word).parts[-2:]) if "/" in word else word for word in sys.argv[1:]]
    setting = "ALLOCATOR " if os.environ.get("GLIBC_TUNABLES") else ""
    return " ".join([f"{setting}python benchmarks/{program}.py", *words])


def machine() -> dict[str, Any]:
    """What the numbers belong to; `load` is how many processes wanted a core in the last minute."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "allocator": "big blocks kept" if os.environ.get("GLIBC_TUNABLES") else "default",
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that a comparison may use."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
