"""What a step costs as it grows: seconds against tokens, batch, vocabulary and layers, with fitted exponents.

    python benchmarks/scaling.py            # random models of width 256
    python benchmarks/scaling.py --quick    # small sizes; its exponents mean nothing

The step is the off-policy one: the teacher's forward, the student's forward, JSD over the vocabulary in chunks,
backward, AdamW (stepping.py). One size is doubled at a time, the others stay; seconds are the best of some steps. The
exponent is the slope of log seconds over log size: 1 is proportional, 0 costs nothing more. Attention makes the length
of rows grow faster than 1 in the end; what a step does once (weights of the optimizer, reading the head) makes small
sizes grow slower.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from machine import describe
from record import parser, publish
from stepping import Size, step_of

AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "tokens of a row": ("length", (128, 256, 512, 1024)),
    "rows of a batch": ("rows", (4, 8, 16, 32)),
    "vocabulary": ("vocabulary", (16_384, 32_768, 65_536, 131_072)),
    "layers": ("layers", (2, 4, 8, 16)),
}


def main() -> None:
    options = parser(__doc__, quick="small sizes")
    options.add_argument("--repeats", type=int, default=3)
    given: argparse.Namespace = options.parse_args()
    print(describe())
    base = Size(rows=2, length=32, layers=1, width=64, vocabulary=512) if given.quick else Size()
    findings: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for name, (field, values) in AXES.items():
        if given.quick:
            values = tuple(getattr(base, field) * factor for factor in (1, 2))
        found = []
        for value in values:
            step = step_of(replace(base, **{field: value}))
            step()
            found.append(min(step() for _ in range(1 if given.quick else given.repeats)))
            rows.append({"axis": name, "value": value, "seconds": found[-1]})
        exponent = float(np.polyfit(np.log(values), [math.log(each) for each in found], deg=1)[0])
        findings[f"exponent.{field}"] = exponent
        pairs = "   ".join(f"{value:,}: {each:.3f} s" for value, each in zip(values, found, strict=True))
        print(f"{name:<16} exponent {exponent:5.2f}   {pairs}")
    publish("scaling", given, sizes=asdict(base), findings=findings, rows=rows)


if __name__ == "__main__":
    main()
