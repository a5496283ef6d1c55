"""One rank of a test with several processes: takes the cases of a plan in order, and writes what came of each.

    python ranks.py PLAN.json        with RANK, WORLD_SIZE and so on as a launcher sets them

A case that has `exits` ends the process with the error's exit code, as the command line would.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def main(plan: Path) -> None:
    import limbeck
    from limbeck.errors import LimbeckError
    from limbeck.training.world import leave

    assert callable(limbeck.train)
    # From here on: what other packages warn of while they are loaded is theirs.
    warnings.simplefilter("error")
    for name, case in json.loads(plan.read_text()).items():
        code = 0
        try:
            result = {"train": _train, "inspect": _inspect}[case["kind"]](case)
        except LimbeckError as error:
            result, code = {"error": type(error).__name__, "message": str(error)}, error.exit_code
        (plan.parent / f"{name}-{rank()}.json").write_text(json.dumps({"code": code, **result}))
        if case.get("exits"):
            leave(code)
    leave(0)


def rank() -> int:
    return int(os.environ["RANK"])


def _train(case: dict[str, Any]) -> dict[str, Any]:
    import limbeck

    with pytest.MonkeyPatch.context() as patch:
        for what, step in case.get("happens", {}).items():
            _arrange(patch, what, step)
        run = limbeck.train(case["recipe"], resume=case.get("resume", False))
    return {"directory": str(run.directory)}


def _arrange(patch: pytest.MonkeyPatch, what: str, at_step: int) -> None:
    """Let something happen on rank 1, in the middle of a step."""
    from limbeck.training import loop

    take_step = loop.take_step

    @functools.wraps(take_step)
    def disturbed(session: Any, step: int, **arguments: Any) -> Any:
        if step == at_step and rank() == 1:
            _EVENTS[what]()
        return take_step(session, step, **arguments)

    patch.setattr(loop, "take_step", disturbed)


def _no_memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")


_EVENTS: dict[str, Callable[[], None]] = {
    "sigterm": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "no memory": _no_memory,
}


def _inspect(case: dict[str, Any]) -> dict[str, Any]:
    """Where the weights are whenever no forward runs, and what this rank's share of a step is."""
    from torch.distributed.tensor import DTensor

    from limbeck.config import Recipe
    from limbeck.training.batching import micro_batches
    from limbeck.training.session import open_session
    from limbeck.training.step import move_weights, take_items, take_step
    from limbeck.training.world import World

    recipe = Recipe.load(case["recipe"])
    world = World.start(device=recipe.models.device, strategy=recipe.train.strategy)
    session = open_session(recipe, world=world, rows=None, recorded={})
    found: dict[str, Any] = {"rank": world.rank, "device": str(world.device)}

    def look(moment: str) -> None:
        parameters = list(session.distiller.parameters())
        moments = [v for state in session.optimizer.state.values() for key, v in state.items() if key != "step"]
        found[moment] = {
            "parameters_sharded": [isinstance(p, DTensor) for p in parameters],
            "moments_sharded": [isinstance(v, DTensor) for v in moments],
            "own_share": sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
            / sum(p.numel() for p in parameters),
        }

    look("start")
    items, _ = take_items(session, 1, 0)
    result = take_step(session, 1, items=items)
    look("gradient")
    batches = micro_batches(session, items=items, drawn=result.drawn)
    found["scored_tokens"] = [part.sequences.num_scored for part in batches]
    move_weights(session, result)
    look("step")
    assert session.validator is not None
    session.validator.run(session.distiller, world)
    look("validation")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
