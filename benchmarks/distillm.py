"""DistiLLM's adaptive off-policy training against always drawing: wall time, and how far both students end up.

    python benchmarks/distillm.py --data dolly/train.jsonl     # SmolLM2-135M-Instruct and 15 of its layers
    python benchmarks/distillm.py --quick                      # random models; its ratios mean nothing

Both sides learn by skew reverse KL (DistiLLM, arXiv 2402.03898, Eq. 5, alpha 0.1) from the same student, in the same
number of steps of the same rows, after the same warm start on the references. `on-policy` draws all rows of all steps;
`distillm` follows `sequences: replay` with the adaptive schedule from 0.5 and a buffer of four steps' rows, so that it
fills. Seconds are those of the steps, the looks at the validation loss included. The schedule looks four times and at
the start: its default, a twentieth of the run, is every second of 48 steps, where looks at 64 rows each would read four
times the rows that are trained; in a run of thousands of steps either is a trifle. The share of trained rows that the
student wrote (fresh and replayed) is printed and has to be at least 25 %; the ratio of times without looks stands
beside the one that counts.

Then each student answers held-out prompts, and KL(student||teacher) on its own answers is taken a row. `worse` is
(distillm − on-policy) / on-policy of the mean over tokens; its 95 % interval resamples the prompts, each with both
students' answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from machine import describe
from pair import made_rows, saved_pair
from record import parser, publish

from limbeck.evaluation import evaluate
from limbeck.reporting.reduce import statistic_interval
from limbeck.sequences.replay import REPLAYED
from limbeck.training import loop
from limbeck.training.session import Session

SPEED, WORSE, LEAST_SHARE = 1.5, 0.02, 0.25
LOOKS = 4


def recipe(folder: Path, models: dict[str, str], method: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    new, rows, steps = (6, 4, 4) if given.quick else (64, 8, given.steps)
    return {
        "method": method,
        "models": {**models, "device": "cpu"},
        "data": {"corpus": given.data, "max_prompt": 128, "max_length": 192, "long_prompt": "cut"},
        "sampling": {"max_new_tokens": new},
        "train": {"steps": steps, "batch_rows": rows, "learning_rate": 2e-4, "seed": given.seed},
        # The schedule looks at validation rows that a null here would not cut; the run's end is the only validation.
        "validate": {"every": steps, "rows": 2, "metric": "loss"},
        **({"watch": {"rows": 0}} if "teacher" in models else {}),
        "run": str(folder),
    }


@dataclass(frozen=True)
class Took:
    """Seconds of a run's steps and of its looks, and the shares of its rows that the student wrote, ever and anew."""

    steps: float
    looks: float
    own: float
    fresh: float

    @property
    def seconds(self) -> float:
        """Of steps and looks."""
        return self.steps + self.looks


def trained(settings: dict[str, Any]) -> Took:
    """Train, and say how long it took and who wrote the rows."""
    looks, look = [0.0], loop.observed_loss

    def timed(session: Session) -> float:
        began = time.perf_counter()
        found = look(session)
        looks.append(time.perf_counter() - began)
        return found

    with mock.patch.object(loop, "observed_loss", timed):
        run = loop.train(settings)
    steps = [row for row in run.metrics() if row["kind"] == "step"]
    shares = {
        origin: sum(row["origin"].get(origin, 0.0) for row in steps) / len(steps)
        for origin in {name for row in steps for name in row["origin"]}
    }
    replayed, fixed = shares.get(REPLAYED, 0.0), shares.get("reference", 0.0)
    took = Took(
        steps=sum(row["time"]["seconds"] for row in steps), looks=sum(looks), own=1 - fixed, fresh=1 - fixed - replayed
    )
    print(
        f"  {took.seconds:.1f} s, {took.looks:.1f} of them in looks; {took.own:.0%} of the rows are the student's,"
        f" {took.fresh:.0%} drawn anew",
        flush=True,
    )
    return took


def own_kl(run: Path, teacher: str, corpus: str, given: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """By prompt: the sum of KL(student||teacher) over the tokens of the student's own answer, and their number."""
    new, rows = (6, 4) if given.quick else (64, given.rows)
    found = evaluate(
        run, corpus, seeds=(10,), teacher=teacher, max_rows=rows, max_prompt=128, max_new_tokens=new, device="cpu"
    )
    kept = [row for row in found.rows if row["measure"] == "own" and row["num_tokens"]]
    return {
        str(row["id"]): (row["scores"]["kl_student_teacher"] * row["num_tokens"], float(row["num_tokens"]))
        for row in kept
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", default="starter", help="a corpus or a file of rows")
    options.add_argument("--test", default=None, help="held-out prompts; without it the starter corpus's")
    options.add_argument("--steps", type=int, default=48)
    options.add_argument("--rows", type=int, default=64, help="held-out prompts")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        teacher, student = saved_pair(folder, quick=given.quick)
        if given.quick:
            given.data = given.test = made_rows(folder / "rows.jsonl", count=64)
        print("warm start on the references")
        warm = recipe(folder / "warm", {"student": student}, {"base": "sft"}, given)
        trained(warm)
        models = {"teacher": teacher, "student": str(folder / "warm" / "student")}
        schedule = {"kind": "adaptive", "initial": 0.5, "check_every": max(1, warm["train"]["steps"] // LOOKS)}
        replay = {"kind": "replay", "schedule": schedule, "capacity": 4 * warm["train"]["batch_rows"]}
        sides = {
            "on-policy": {"base": "distillm", "sequences": {"kind": "student"}},
            "distillm": {"base": "distillm", "sequences": replay},
        }
        took, divergences = {}, {}
        for name, method in sides.items():
            print(name)
            took[name] = trained(recipe(folder / name, models, method, given))
            divergences[name] = own_kl(folder / name, teacher, given.test or "starter", given)
    always, adaptive = took["on-policy"], took["distillm"]
    speed, without_looks = always.seconds / adaptive.seconds, always.steps / adaptive.steps
    ids = sorted(divergences["on-policy"].keys() & divergences["distillm"].keys())
    columns = np.array([[*divergences["distillm"][id], *divergences["on-policy"][id]] for id in ids])
    worse = statistic_interval(columns, lambda m: (m[:, 0] / m[:, 1]) / (m[:, 2] / m[:, 3]) - 1, seed=0)
    own = {
        name: sum(each[0] for each in of.values()) / sum(each[1] for each in of.values())
        for name, of in divergences.items()
    }
    print(
        f"on-policy / distillm: {speed:.2f} times the wall time   target {SPEED}"
        f"   ({without_looks:.2f} without looks at the validation loss)"
    )
    print(
        f"KL(s||t) on own answers of {len(ids)} prompts: distillm {own['distillm']:.3f}, on-policy"
        f" {own['on-policy']:.3f} nats; worse by {worse.mean:+.1%} [{worse.low:+.1%}, {worse.high:+.1%}]"
        f"   target: upper end at most {WORSE:.0%}"
    )
    if adaptive.own < LEAST_SHARE:
        print(f"only {adaptive.own:.0%} of distillm's rows are the student's: no comparison below {LEAST_SHARE:.0%}")
    findings = {
        "speed": speed,
        "speed.without_looks": without_looks,
        "worse.upper": worse.high,
        "worse": worse.mean,
        "share": adaptive.own,
        "share.fresh": adaptive.fresh,
    }
    rows = [{"side": name, **asdict(of), "seconds": of.seconds, "kl_own": own[name]} for name, of in took.items()]
    publish(
        "distillm",
        given,
        sizes={"steps": given.steps, "prompts": len(ids), "seed": given.seed},
        findings=findings,
        rows=rows,
    )


if __name__ == "__main__":
    main()
