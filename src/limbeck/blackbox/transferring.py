"""The data of a run for another student: trained on the first and on the final rationales, and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.blackbox.artefacts import Stages, digest, file_digest, read_json, read_rows, write_json
from limbeck.blackbox.items import Item
from limbeck.blackbox.loop import UndoRun
from limbeck.blackbox.measuring_rounds import accuracy
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.stopping import paired
from limbeck.blackbox.students import Reader, attempt, check_trainable, learn, row_tokens, start_digest, steps_for
from limbeck.blackbox.workshop import ITEMS, read_splits
from limbeck.errors import CheckpointError, ConfigError, DataError, NothingToLearn, Stopped
from limbeck.files import alone_in
from limbeck.interrupts import interrupting
from limbeck.seeds import Seeds


def transfer(
    run: Path,
    student: str,
    *,
    arm: str | None = None,
    round: int | None = None,
    max_new_tokens: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train `student` on the rows of round 0 and on those of another round, equally long, and measure both.

    That is the arm's best round unless `round` names one of its others.

    Returns what metrics.json in `transfer/<student>/<max_new_tokens>-tokens/<arm>-round-<round>/` holds: accuracy on
    stop and test for each, and their paired difference. What round 0 makes of the student lies beside it in `first/`,
    for all rounds and arms. Rows and questions that do not fit into this student are left out of both and counted. A
    stopped transfer goes on when it is called again. Raises `CheckpointError` where the run has no outcome yet or
    another process is at it, `ConfigError` for a round that the arm has not and for a student that cannot be trained
    here, `Stopped` after Ctrl-C.
    """
    done = UndoRun(run)
    recipe = UndoRecipe.load(run)
    name = arm or recipe.method.base
    if name not in done.arms:
        raise CheckpointError(f"the run {run} has no outcome of '{name}' yet; see: limbeck undo status {run}")
    outcome = done.arms[name]
    rounds = {read_json(run / each / "metrics.json")["round"]: run / each for each in outcome["rounds"]}
    number = outcome["best"] if round is None else round
    if number not in rounds:
        raise ConfigError(f"{name} has no round {number}; it has {', '.join(map(str, rounds))}")
    own = dataclasses.replace(recipe.student, model=student, scratch=None)
    if max_new_tokens is not None:
        own = dataclasses.replace(own, max_new_tokens=max_new_tokens)
    recipe = dataclasses.replace(recipe, student=own)
    folder = run / "transfer" / student.strip("/.~").replace("/", "-") / f"{own.max_new_tokens}-tokens"
    sources = {"first": run / "iter_00", "final": rounds[number]}
    places = {"first": folder / "first", "final": folder / f"{name}-round-{number}"}
    if sources["final"] == sources["first"]:
        say(f"note: round {number} is the start of '{name}', with the first rationales: both are the same; see --round")
    try:
        with interrupting():
            answers, dropped = _measured(recipe, run, student, folder=folder, sources=sources, places=places, say=say)
    except (KeyboardInterrupt, Stopped) as error:
        raise Stopped(f"{str(error) or 'stopped'}\n  What is done is kept; the same command goes on.") from error
    numbers: dict[str, Any] = {"student": student, "arm": name, "round": number, "left_out": dropped}
    for kind, found in answers.items():
        numbers[kind] = {part: accuracy(rows) for part, rows in found.items()}
    gaps = {part: paired(_right(answers["final"][part]), _right(rows)) for part, rows in answers["first"].items()}
    numbers["final_minus_first"] = {part: {"mean": gap, "error": error} for part, (gap, error) in gaps.items()}
    write_json(places["final"] / "metrics.json", numbers)
    return numbers


def _measured(
    recipe: UndoRecipe,
    run: Path,
    student: str,
    *,
    folder: Path,
    sources: Mapping[str, Path],
    places: Mapping[str, Path],
    say: Callable[[str], None],
) -> tuple[dict[str, dict[str, list[dict[str, Any]]]], dict[str, int]]:
    """The attempts at each part of the student of each source, and how many rows and questions were left out."""
    fitted, parts, dropped = _fitting(recipe, run, student, sources=sources)
    if any(dropped.values()):
        told = ", ".join(f"{count} of {name}" for name, count in dropped.items())
        say(f"note: rows and questions that do not fit into {student} are left out: {told}")
    if not all((place / "student.json").is_file() for place in places.values()):
        check_trainable(recipe, student)
    tokens = recipe.train.epochs * sum(map(row_tokens, fitted["first"]))
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(run=folder, say=say, elsewhere="")
    # The same model may be named in several ways.
    settings = {key: value for key, value in recipe.lasting().items() if key != "student.model"}
    answers = {}
    for kind, rows in fitted.items():
        place = places[kind]
        place.mkdir(parents=True, exist_ok=True)

        def study(place: Path = place, rows: list[dict[str, Any]] = rows) -> None:
            _study(recipe, place, student=student, rows=rows, tokens=tokens, parts=parts, say=say)

        with alone_in(place):
            stages.once(
                place,
                "transfer",
                inputs={
                    "recipe": digest(settings),
                    "student": start_digest(student),
                    "rows": file_digest(sources[kind] / "train.jsonl"),
                },
                outputs=["student.json", "stop_attempts.jsonl", "test_attempts.jsonl"],
                make=study,
            )
        answers[kind] = {part: read_rows(place / f"{part}_attempts.jsonl") for part in parts}
    return answers, dropped


def _fitting(
    recipe: UndoRecipe, run: Path, student: str, *, sources: Mapping[str, Path]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, tuple[Item, ...]], dict[str, int]]:
    """The rows of each source and the questions of each part that a student takes whole; and how many it does not."""
    splits, reader = read_splits(run / ITEMS), Reader.of(recipe, student)
    items = {item.id: item for item in splits.train}
    room = (
        f"which has {reader.encoder.max_prompt} tokens for a question (student.max_prompt of the run) and "
        f"{reader.longest} for an answer (--max-new-tokens)"
    )
    fitted, parts, dropped = {}, {}, {}
    for kind, source in sources.items():
        fitted[kind], dropped[kind] = _fitted(source / "train.jsonl", items, reader)
        if not fitted[kind]:
            raise NothingToLearn(f"no row of {source / 'train.jsonl'} fits into {student}, {room}")
    # The run has left out what its own student does not read whole; another may need more tokens.
    for part, asked in (("stop", splits.stop), ("test", splits.test)):
        parts[part] = tuple(item for item in asked if reader.fits(item))
        dropped[part] = len(asked) - len(parts[part])
        if not parts[part]:
            raise DataError(f"no question of {part} fits into {student}, {room}")
    return fitted, parts, dropped


def _right(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {row["item_id"]: float(row["correct"]) for row in rows}


def _fitted(path: Path, items: Mapping[str, Item], reader: Reader) -> tuple[list[dict[str, Any]], int]:
    """The rows that fit into a student, with lengths in its tokens; and how many do not."""
    rows, count = [], 0
    for row in read_rows(path):
        item, count = items[row["item_id"]], count + 1
        length = reader.length(item, row["completion"])
        if length is not None:
            rows.append({**row, "num_tokens": length, "prompt_tokens": reader.prompt_length(item)})
    return rows, count - len(rows)


def _study(
    recipe: UndoRecipe,
    place: Path,
    *,
    student: str,
    rows: list[dict[str, Any]],
    tokens: float,
    parts: Mapping[str, tuple[Item, ...]],
    say: Callable[[str], None],
) -> None:
    steps = steps_for(rows, tokens=tokens, batch_rows=min(recipe.train.batch_rows, len(rows)))
    say(f"transfer to {student}: {len(rows)} rows in {steps} steps")
    seed = Seeds(recipe.seed).child("learn", 0).integer() % 2**31
    made = learn(recipe, place, start=student, rows=rows, steps=steps, seed=seed)
    attempt(recipe, str(made), parts, folder=place, round=0)
    write_json(place / "student.json", {"folder": str(made.relative_to(place)), "steps": steps})
