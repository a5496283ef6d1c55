"""One rank of a test with several processes: takes the cases of a plan, and writes what came of each.

python ranks.py PLAN.json, with RANK and WORLD_SIZE set as a launcher sets them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any


def main(plan_file: Path) -> None:
    import time; t = time.time()

    if True:
        import limbeck.training.loop
    warnings.simplefilter("error")
    plan = json.loads(plan_file.read_text())
    rank = int(os.environ["RANK"])
    for name, case in plan.items():
        out: dict[str, Any]
        try:
            out = _CASES[case["kind"]](case)
        except limbeck.errors.LimbeckError as error:
            out = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        (plan_file.parent / f"{name}-{rank}.json").write_text(json.dumps(out))
        if out.get("exit_code") and case.get("last"):
            sys.exit(out["exit_code"])


def _train(case: dict[str, Any]) -> dict[str, Any]:
    import limbeck

    run = limbeck.train(case["recipe"], *case.get("overrides", []), resume=case.get("resume", False))
    return {"directory": str(run.directory)}


def _inspect(case: dict[str, Any]) -> dict[str, Any]:
    """Where the weights are between forwards: before the first step, after one, and after a validation."""
    from torch.distributed.tensor import DTensor

    from limbeck.config import Recipe
    from limbeck.training.session import open_session
    from limbeck.training.step import take_items, take_step
    from limbeck.training.world import World

    recipe = Recipe.load(case["recipe"])
    world = World.start(device=recipe.models.device, strategy=recipe.train.strategy)
    session = open_session(recipe, world=world, rows=None, recorded={})
    found: dict[str, Any] = {}

    def look(moment: str) -> None:
        parameters = list(session.distiller.parameters())
        moments = [v for state in session.optimizer.state.values() for k, v in state.items() if k != "step"]
        found[moment] = {
            "sharded": all(isinstance(p, DTensor) for p in parameters),
            "own": sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters),
            "all": sum(p.numel() for p in parameters),
            "moments": len(moments),
            "moments_sharded": all(isinstance(v, DTensor) for v in moments),
        }

    look("start")
    items, _ = take_items(session, 1, 0)
    take_step(session, 1, items=items)
    look("step")
    session.validator.run(session.distiller, world)
    look("validation")
    return found


_CASES = {"train": _train, "inspect": _inspect}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Path(sys.argv[1]))
