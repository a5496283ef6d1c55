"""Where a run stands: what is done, what it has cost, what comes next."""

from __future__ import annotations

import json
from pathlib import Path

from limbeck.blackbox.artefacts import EVENTS, read_json
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.workshop import LEDGER, RECIPE
from limbeck.errors import CheckpointError


def standing(run: Path) -> tuple[str, ...]:
    """Lines about a run, finished or not: the rounds with their accuracy, the calls so far, the stage it is in."""
    if not (run / RECIPE).is_file():
        raise CheckpointError(f"'{run}' is not the folder of an UNDO run: it has no {RECIPE}")
    lines = [f"run: {run}"]
    for folder in [run / "iter_00", *sorted(run.glob("arms/*/iter_*"))]:
        if not (folder / "metrics.json").is_file():
            continue
        metrics = read_json(folder / "metrics.json")
        stop, test = metrics["accuracy"]["stop"], metrics["accuracy"]["test"]
        lines.append(
            f"{metrics['arm']} round {metrics['round']}: stop {100 * stop['mean']:.1f} ±{100 * stop['error']:.1f} %, "
            f"test {100 * test['mean']:.1f} ±{100 * test['error']:.1f} %"
        )
    for path in sorted(run.glob("arms/*/outcome.json")):
        outcome = read_json(path)
        lines.append(f"{outcome['arm']}: ended, {outcome['reason']}; best round {outcome['best']}")
    if (run / LEDGER).is_file():
        with Ledger.open(run / LEDGER) as ledger:
            spent = ledger.spent()
        lines.append(
            f"calls: {spent.calls:,} answered in {spent.attempts:,} attempts, {spent.prompt_tokens:,} + "
            f"{spent.completion_tokens:,} tokens, money {spent.cost:,.4f}"
        )
    lines.append(_stage(run))
    return tuple(lines)


def _stage(run: Path) -> str:
    last: dict[str, str] = {}
    path = run / EVENTS
    if path.is_file():
        # A kill may have cut the last line.
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            last = json.loads(line)
    if not last:
        return f"nothing is done yet; go on with: limbeck undo resume {run}"
    if last["event"] == "end":
        return "finished"
    what = "in" if last["event"] == "begin" else "after"
    return f"{what} the stage '{last['stage']}' of {last['folder']}; if it does not run: limbeck undo resume {run}"
