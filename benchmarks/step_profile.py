"""Where the time of a training step goes: MGSR against GKD with the supervised term, on the same rows.

    python benchmarks/step_profile.py                              # the starter corpus
    python benchmarks/step_profile.py --data dolly/train.jsonl     # a file
    python benchmarks/step_profile.py --quick                      # random models; its ratios mean nothing

Teacher SmolLM2-135M-Instruct, student 15 of its layers (no training before). 16 rows a step, prompts of at most 128
tokens, rows of at most 192, 48 new tokens; every other step draws, both methods at the same steps. `mgsr` adds to
`gkd`: reading what was drawn with both models, drawing again from the error on, DAC-KL instead of JSD, span
correlation. Both methods take the same numbers of steps in turns, in one process; seconds are the mean over steps.
`base+DAC-KL` and `base+span` change one part of the base each.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from machine import describe
from pair import made_rows, saved_pair
from record import parser, publish

from limbeck.config import Recipe
from limbeck.losses import fused
from limbeck.models.scoring import Scorer
from limbeck.models.teacher_memory import TeacherMemory
from limbeck.revision import correcting
from limbeck.sequences import source
from limbeck.training.session import Session, open_session
from limbeck.training.step import move_weights, take_items, take_step
from limbeck.training.world import World

TARGET = 1.3
BASE: dict[str, Any] = {"base": "gkd", "weights": {"supervised": 1}}
METHODS: dict[str, dict[str, Any]] = {
    "gkd + supervised": BASE,
    "base+SCRG": {**BASE, "revision": {"kind": "scrg"}},
    "base+DAC-KL": {**BASE, "token": {"kind": "dac-kl"}},
    "base+span": {**BASE, "span": {"kind": "correlation"}},
    "mgsr": {"base": "mgsr"},
}


class Clock:
    """Seconds by part; a part inside another is taken out of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inside.append(0.0)
        yield
        whole = time.perf_counter() - began
        self.seconds[name] += whole - self._inside.pop()
        if self._inside:
            self._inside[-1] += whole

    def around(self, name: str, function: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


def watched(clock: Clock) -> ExitStack:
    """The parts of a step under a clock; what is left of a step is backward through the bodies and the optimizer."""
    stack = ExitStack()
    whole = Scorer.states

    def states(scorer: Scorer, sequences: Any) -> Any:
        is_teacher = not any(p.requires_grad for p in scorer.model.parameters())
        with clock.part("bodies of teacher" if is_teacher else "bodies of student"):
            return whole(scorer, sequences)

    stack.enter_context(mock.patch.object(Scorer, "states", states))
    homes: tuple[tuple[Any, str, str], ...] = (
        (source, "extend_in_turn", "draw"),
        (correcting, "extend_in_turn", "draw again"),
        (correcting, "gather_evidence", "evidence, heads"),
        (fused, "take_walk", "heads and terms"),
        (TeacherMemory, "_read", "bodies of teacher"),
    )
    for home, name, part in homes:
        stack.enter_context(mock.patch.object(home, name, clock.around(part, getattr(home, name))))
    return stack


def opened(
    folder: Path, method: dict[str, Any], models: tuple[str, str], *, data: str, rows: int, tokens: int
) -> Session:
    values = {
        "method": method,
        "models": {"teacher": models[0], "student": models[1], "device": "cpu"},
        "data": {"corpus": data, "max_prompt": 128, "max_length": 192, "long_prompt": "cut"},
        "sampling": {"max_new_tokens": tokens},
        "train": {"steps": 1000, "batch_rows": rows, "learning_rate": 1e-5},
        "validate": {"every": None},
        "run": str(folder / "run"),
    }
    return open_session(Recipe.load(values, []), world=World.start(device="cpu"), rows=None, recorded={})


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", default="starter", help="a corpus or a file of rows")
    options.add_argument("--steps", type=int, default=6)
    given = options.parse_args()
    rows, tokens, steps = (4, 6, 2) if given.quick else (16, 48, given.steps)
    print(describe())
    clocks = {name: Clock() for name in METHODS}
    drawn = dict.fromkeys(METHODS, 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = saved_pair(folder, quick=given.quick)
        data = made_rows(folder / "rows.jsonl", count=64) if given.quick else given.data
        sessions = {
            name: opened(folder, method, models, data=data, rows=rows, tokens=tokens)
            for name, method in METHODS.items()
        }
        # The first step of each is for what libraries do at their first use.
        for step in range(steps + 1):
            for name, session in sessions.items():
                clock = Clock() if step == 0 else clocks[name]
                # Steps 9, 10, ... : the gradients of the terms are not taken apart there.
                number = 9 + step
                items, _ = take_items(session, number, number * rows)
                with watched(clock), clock.part("backward, optimizer"):
                    result = move_weights(session, take_step(session, number, items=items))
                drawn[name] += step > 0 and "reference" not in result.row["origin"]
    base = sum(clocks["gkd + supervised"].seconds.values()) / steps
    for name, clock in clocks.items():
        mean = sum(clock.seconds.values()) / steps
        verdict = ""
        if name == "mgsr" and not given.quick:
            verdict = f"   target {TARGET:.2f} {'met' if mean / base <= TARGET else 'MISSED'}"
        print(
            f"{name:<17} {mean:6.2f} s a step, {drawn[name]} of {steps} drawn   {mean / base:5.2f} of the base{verdict}"
        )
        for part, value in sorted(clock.seconds.items(), key=lambda pair: -pair[1]):
            print(f"    {part:<20} {value / steps:6.2f} s  {value / steps / mean:4.0%}")
    means = {name: sum(clock.seconds.values()) / steps for name, clock in clocks.items()}
    parts = [
        {"method": name, "part": part, "seconds": value / steps}
        for name, clock in clocks.items()
        for part, value in clock.seconds.items()
    ]
    findings = {f"{name}.of-base": mean / base for name, mean in means.items()}
    publish(
        "step_profile", given, sizes={"rows": rows, "new_tokens": tokens, "steps": steps}, findings=findings, rows=parts
    )


if __name__ == "__main__":
    main()
