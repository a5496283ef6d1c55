"""Where a run stands: what is done, what it has cost, what comes next."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.blackbox.artefacts import EVENTS, read_json
from limbeck.blackbox.ledger import LEDGER, Ledger
from limbeck.blackbox.workshop import RECIPE
from limbeck.errors import CheckpointError
from limbeck.files import read_rows
from limbeck.training.rundir import METRICS


def standing(run: Path) -> tuple[str, ...]:
    """Lines about a run, finished or not: the rounds with their accuracy, the calls so far, the stage it is in."""
    found = standing_values(run)
    lines = [f"run: {run}"]
    for each in found["rounds"]:
        stop, test = each["accuracy"]["stop"], each["accuracy"]["test"]
        lines.append(
            f"{each['arm']} round {each['round']}: stop {100 * stop['mean']:.1f} ±{100 * stop['error']:.1f} %, "
            f"test {100 * test['mean']:.1f} ±{100 * test['error']:.1f} %"
        )
    lines += [f"{each['arm']}: ended, {each['reason']}; best round {each['best']}" for each in found["ended"]]
    if found["spent"] is not None:
        spent = found["spent"]
        lines.append(
            f"calls: {spent['calls']:,} answered in {spent['attempts']:,} attempts, {spent['prompt_tokens']:,} + "
            f"{spent['completion_tokens']:,} tokens, money {spent['cost']:,.4f}"
        )
    return (*lines, found["stage"])


def standing_values(run: Path) -> dict[str, Any]:
    """The same as plain values, for JSON. Raises `CheckpointError` for a folder that is no UNDO run."""
    if not (run / RECIPE).is_file():
        raise CheckpointError(f"'{run}' is not the folder of an UNDO run: it has no {RECIPE}")
    if (run / METRICS).is_file():
        raise CheckpointError(f"'{run}' is a run of limbeck train; limbeck report shows it")
    folders = [run / "iter_00", *sorted(run.glob("arms/*/iter_*"))]
    rounds = [read_json(each / "metrics.json") for each in folders if (each / "metrics.json").is_file()]
    ended = [read_json(path) for path in sorted(run.glob("arms/*/outcome.json"))]
    spent = None
    if (run / LEDGER).is_file():
        with Ledger.open(run / LEDGER) as ledger:
            spent = asdict(ledger.spent())
    return {
        "run": str(run),
        "rounds": [{name: each[name] for name in ("arm", "round", "accuracy")} for each in rounds],
        "ended": [{name: each[name] for name in ("arm", "reason", "best")} for each in ended],
        "spent": spent,
        "stage": _stage(run),
    }


def _stage(run: Path) -> str:
    last: dict[str, str] = {}
    path = run / EVENTS
    if path.is_file():
        last = dict(next(iter(deque(read_rows(path, growing=True), maxlen=1)), {}))
    if not last:
        return f"nothing is done yet; go on with: limbeck undo resume {run}"
    if last["event"] == "end":
        return "finished"
    what = "in" if last["event"] == "begin" else "after"
    return f"{what} the stage '{last['stage']}' of {last['folder']}; if it does not run: limbeck undo resume {run}"
