"""A run once more, from its ledger: nobody is asked, and every file comes out the same."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from limbeck.blackbox.artefacts import file_digest
from limbeck.blackbox.ledger import LEDGER
from limbeck.blackbox.loop import UndoRun, run_undo
from limbeck.blackbox.recipes import UndoRecipe, is_recorded
from limbeck.blackbox.workshop import ITEMS
from limbeck.errors import CheckpointError, ConfigError

_COMPARED = (".jsonl", ".json", ".csv", ".safetensors")
# Times, and files that name folders: the only ones that a second run writes otherwise.
_DIFFERENT = (
    "events.jsonl",
    "recipe.yaml",
    "metrics.jsonl",
    "environment.json",
    "auto.json",
    "samples.jsonl",
    "rows.json",
)


def replay(
    run: Path, *, out: Path, recipe: UndoRecipe | Path | None = None, say: Callable[[str], None] = print
) -> tuple[UndoRun, tuple[str, ...]]:
    """Do a finished run again in `out`, its questions and its teacher's answers taken from `run`.

    Returns the new run and the files that were compared, byte for byte: rows, numbers, reports and weights of every
    round. `recipe` is needed for a teacher of your own, which is not imported from a run. Raises `CheckpointError`
    where a call is not in the ledger or a file differs, `ConfigError` where `out` is taken. On another machine or
    thread count weights may differ in their last bits, and with them what follows.
    """
    if not (run / LEDGER).is_file():
        raise CheckpointError(f"'{run}' is not the folder of an UNDO run: it has no {LEDGER}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"'{out}' exists and is not empty; choose another folder for the replay")
    source = recipe or run
    given = UndoRecipe.load(source, [f"run={json.dumps(str(out))}"])
    begun = out.with_name(f".{out.name}.ledger")
    begun.mkdir(parents=True, exist_ok=True)
    try:
        _copy_ledger(run / LEDGER, begun / LEDGER)
        done = run_undo(
            given,
            say=say,
            is_replay=True,
            items=run / ITEMS,
            ledger=begun / LEDGER,
            allow_import=not is_recorded(source),
        )
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return done, _compare(run, out)


def _copy_ledger(source: Path, target: Path) -> None:
    """Through SQLite: what a write-ahead log holds is copied too."""
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


def _compare(run: Path, out: Path) -> tuple[str, ...]:
    names = sorted(
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.suffix in _COMPARED and path.name not in _DIFFERENT and _is_made_by_the_loop(path.relative_to(run))
    )
    for name in names:
        if not (out / name).is_file():
            raise CheckpointError(f"the replay made no {name}; was the run finished?")
        if file_digest(run / name) != file_digest(out / name):
            raise CheckpointError(
                f"the replay's {name} differs from the run's\n"
                "  another machine, thread count or version of Limbeck? compare manifest.json: environment"
            )
    return tuple(names)


def _is_made_by_the_loop(path: Path) -> bool:
    return path.parts[0] not in ("transfer", "export") and not any(part.startswith(".") for part in path.parts)
