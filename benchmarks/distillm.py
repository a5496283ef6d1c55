"""DistiLLM's adaptive off-policy training against always drawing: wall time, and how far both students end up.

    python benchmarks/distillm.py --data dolly/train.jsonl     # SmolLM2-135M-Instruct and 15 of its layers
    python benchmarks/distillm.py --quick                      # random models; its ratios mean nothing

Both sides learn by skew reverse KL (DistiLLM, arXiv 2402.03898, Eq. 5, alpha 0.1) from the same student, in the same
number of steps of the same rows, after the same warm start on the references. `on-policy` draws all rows of all steps;
`distillm` follows `sequences: replay` with the adaptive schedule from 0.5 and a buffer of four steps' rows, so that it
fills. Seconds are those of the steps, the looks at the validation loss included. The share of trained rows that the
student wrote (fresh and replayed) is printed and has to be at least 25 %.

Then each student answers held-out prompts, and KL(student||teacher) on its own answers is taken a row. `worse` is
(distillm − on-policy) / on-policy of the mean over tokens; its 95 % interval resamples the prompts, each with both
students' answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from machine import describe
from pair import made_rows, saved_pair
from record import parser, publish

from limbeck.evaluation import evaluate
from limbeck.reporting.reduce import statistic_interval
from limbeck.training import loop
from limbeck.training.session import Session

SPEED, WORSE, LEAST_SHARE = 1.5, 0.02, 0.25


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


def trained(settings: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the run's steps and looks, and the share of its rows that the student wrote."""
    looks, look = [0.0], loop.observed_loss

    def timed(session: Session) -> float:
        began = time.perf_counter()
        found = look(session)
        looks.append(time.perf_counter() - began)
        return found

    with mock.patch.object(loop, "observed_loss", timed):
        run = loop.train(settings)
    steps = [row for row in run.metrics() if row["kind"] == "step"]
    own = sum(share for row in steps for origin, share in row["origin"].items() if origin != "reference") / len(steps)
    seconds = sum(row["time"]["seconds"] for row in steps) + sum(looks)
    print(f"  {seconds:.1f} s, {sum(looks):.1f} of them in looks; {own:.0%} of the rows are the student's", flush=True)
    return seconds, own


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
        held = 4 * warm["train"]["batch_rows"]
        replay = {"kind": "replay", "schedule": {"kind": "adaptive", "initial": 0.5}, "capacity": held}
        sides = {
            "on-policy": {"base": "distillm", "sequences": {"kind": "student"}},
            "distillm": {"base": "distillm", "sequences": replay},
        }
        seconds, shares, divergences = {}, {}, {}
        for name, method in sides.items():
            print(name)
            seconds[name], shares[name] = trained(recipe(folder / name, models, method, given))
            divergences[name] = own_kl(folder / name, teacher, given.test or "starter", given)
    speed = seconds["on-policy"] / seconds["distillm"]
    ids = sorted(divergences["on-policy"].keys() & divergences["distillm"].keys())
    columns = np.array([[*divergences["distillm"][id], *divergences["on-policy"][id]] for id in ids])
    worse = statistic_interval(columns, lambda m: (m[:, 0] / m[:, 1]) / (m[:, 2] / m[:, 3]) - 1, seed=0)
    own = {
        name: sum(each[0] for each in of.values()) / sum(each[1] for each in of.values())
        for name, of in divergences.items()
    }
    print(f"on-policy / distillm: {speed:.2f} times the wall time   target {SPEED}")
    print(
        f"KL(s||t) on own answers of {len(ids)} prompts: distillm {own['distillm']:.3f}, on-policy"
        f" {own['on-policy']:.3f} nats; worse by {worse.mean:+.1%} [{worse.low:+.1%}, {worse.high:+.1%}]"
        f"   target: upper end at most {WORSE:.0%}"
    )
    if shares["distillm"] < LEAST_SHARE:
        print(
            f"only {shares['distillm']:.0%} of distillm's rows are the student's: no comparison below {LEAST_SHARE:.0%}"
        )
    findings = {"speed": speed, "worse.upper": worse.high, "worse": worse.mean, "share": shares["distillm"]}
    rows = [{"side": name, "seconds": seconds[name], "kl_own": own[name], "own_rows": shares[name]} for name in sides]
    publish(
        "distillm",
        given,
        sizes={"steps": given.steps, "prompts": len(ids), "seed": given.seed},
        findings=findings,
        rows=rows,
    )


if __name__ == "__main__":
    main()
