"""The rationales of a run as training data for any other tool: chat and instruction rows."""

from __future__ import annotations

from pathlib import Path

from limbeck.blackbox.artefacts import read_json, read_rows, write_json, write_rows
from limbeck.blackbox.loop import UndoRun
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.workshop import MANIFEST
from limbeck.errors import CheckpointError, ConfigError


def export(
    run: Path, *, arm: str | None = None, round: int | None = None, out: Path | None = None
) -> tuple[Path, Path]:
    """Write chat.jsonl (`messages`) and instructions.jsonl (`instruction`, `output`) of one round's training rows.

    The arm is the method's and the round its best where none is named. about.json beside them says where the rows come
    from. Returns both files; `out` defaults to `export/` in the run. Limbeck reads both back as corpora. Raises
    `CheckpointError` where the run has no outcome, `ConfigError` for a round that it does not have.
    """
    name = arm or UndoRecipe.load(run).method.base
    arms = UndoRun(run).arms
    if name not in arms:
        known = ", ".join(arms) or "none yet"
        raise CheckpointError(f"the run {run} has no outcome of an arm '{name}'; it has: {known}")
    by_number = {read_json(run / each / "metrics.json")["round"]: run / each for each in arms[name]["rounds"]}
    number = arms[name]["best"] if round is None else round
    if number not in by_number:
        rounds = ", ".join(map(str, by_number))
        raise ConfigError(f"the arm '{name}' of {run} has no round {number}; it has {rounds}")
    rows = read_rows(by_number[number] / "train.jsonl")
    folder = out or run / "export"
    chat, instructions = folder / "chat.jsonl", folder / "instructions.jsonl"
    write_rows(
        chat,
        (
            {
                "id": row["id"],
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["completion"]},
                ],
                "source": row["kind"],
            }
            for row in rows
        ),
    )
    write_rows(
        instructions,
        (
            {"id": row["id"], "instruction": row["prompt"], "output": row["completion"], "source": row["kind"]}
            for row in rows
        ),
    )
    teacher = read_json(run / MANIFEST)["teacher"]
    about = {"arm": name, "round": number, "rows": len(rows), "teacher": teacher}
    about["note"] = "check that the terms of the teacher and of the questions' data allow what you do with these rows"
    write_json(folder / "about.json", about)
    return chat, instructions
