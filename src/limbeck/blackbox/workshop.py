"""A run of UNDO that is open: its folder, its questions, its teacher, its student before any round."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.blackbox.artefacts import (
    Stages,
    digest,
    file_digest,
    read_json,
    read_rows,
    write_json,
    write_rows,
)
from limbeck.blackbox.items import Choice, Item
from limbeck.blackbox.ledger import LEDGER, Ledger, Spent
from limbeck.blackbox.recipes import UndoRecipe, lasting_differences
from limbeck.blackbox.splits import Splits, make_splits, without_long
from limbeck.blackbox.students import Reader, check_trainable
from limbeck.blackbox.writers import Desk, Writer, check_limits, writer_of
from limbeck.blackbox.writing import Assignment, RationaleTeacher
from limbeck.errors import CheckpointError, ConfigError
from limbeck.files import alone_in, write_whole
from limbeck.seeds import Seeds

ITEMS = "items.jsonl"
MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"


@dataclass(kw_only=True)
class Workshop:
    """Everything that rounds are made with. `base` is the student before any round: a name or a folder."""

    recipe: UndoRecipe
    run: Path
    writer: Writer
    ledger: Ledger
    stages: Stages
    say: Callable[[str], None]
    is_replay: bool = False
    splits: Splits = field(init=False)
    base: str = ""
    reader: Reader = field(init=False)
    items: dict[str, Item] = field(init=False)
    prompt_tokens: dict[str, int] = field(init=False)
    started: float = field(default_factory=time.monotonic)
    begun: list[str] = field(default_factory=lambda: ["start"])
    """The stages that the loop has come to, under the names of their calls."""

    @property
    def seeds(self) -> Seeds:
        """The root of all that is drawn in the loop."""
        return Seeds(self.recipe.seed)

    @property
    def lasting(self) -> str:
        """A hash of all settings that a stage may depend on."""
        return digest(self.recipe.lasting())

    def teacher(self, stage: str) -> RationaleTeacher:
        """The teacher, its calls entered under this stage."""
        budget = self.recipe.budget.of_calls()
        desk = Desk(ledger=self.ledger, stage=stage, budget=budget, seed=self.recipe.seed, is_replay=self.is_replay)
        return self.writer.build(desk)

    def spent_out(self) -> str:
        """Which limit of the budget is used up by the stages that have begun; "" where none is.

        A ledger that a stopped run or a replay begins with holds calls of later ones: the loop ends where it did.
        """
        limits, spent = self.recipe.budget, self.ledger.spent(stage=self.begun)
        minutes = 0.0 if self.is_replay else (time.monotonic() - self.started) / 60
        used: dict[str, tuple[float, float | None]] = {
            "calls": (spent.calls, limits.calls),
            "tokens": (spent.prompt_tokens + spent.completion_tokens, limits.tokens),
            "money": (spent.cost, limits.money),
            "minutes": (minutes, limits.minutes),
        }
        return next((name for name, (amount, most) in used.items() if most is not None and amount >= most), "")

    def cost(self, stage: str) -> dict[str, Any]:
        """What the calls of a stage have come to; attempts on the wire are left out, since a replay makes none."""
        spent: Spent = self.ledger.spent(stage=stage)
        return {
            "calls": spent.calls,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "money": round(spent.cost, 9),
        }


@contextmanager
def open_workshop(
    recipe: UndoRecipe,
    *,
    resume: bool,
    say: Callable[[str], None],
    is_replay: bool = False,
    items: Path | None = None,
    ledger: Path | None = None,
    allow_import: bool = True,
) -> Iterator[Workshop]:
    """Make or open the folder of a run, read the questions, make the student where it is made from nothing.

    `items` and `ledger` are the questions and the calls of another run, taken as they are. Raises `ConfigError` where
    the folder is taken, `CheckpointError` where it is the run of another recipe or another process works in it, and
    what reading the questions raises, before anything is written.
    """
    run = Path(recipe.run)
    writer = writer_of(recipe.teacher, allow_import=allow_import)
    if not is_replay:
        check_limits(writer, recipe.budget.of_calls())
    if resume:
        _check_same(run, recipe)
    else:
        _check_free(run)
    stages = Stages(run=run, say=say)
    is_cut = stages.is_done(run, "questions")
    splits = None if is_cut else make_splits(recipe.task) if items is None else read_splits(items)
    if not is_cut:
        check_trainable(recipe, recipe.student.model)
    run.mkdir(parents=True, exist_ok=True)
    with alone_in(run):
        if not resume:
            # Reading the questions takes long enough for another process to begin here.
            _check_free(run)
        if ledger is not None:
            os.replace(ledger, run / LEDGER)
        write_whole(run / RECIPE, recipe.dump())
        with Ledger.open(run / LEDGER) as calls:
            work = Workshop(
                recipe=recipe,
                run=run,
                writer=writer,
                ledger=calls,
                stages=stages,
                say=say,
                is_replay=is_replay,
            )
            _prepare(work, splits)
            yield work


def _prepare(work: Workshop, splits: Splits | None) -> None:
    """The student before any round, and the questions that it can read."""
    student, run = work.recipe.student, work.run
    if student.model is not None:
        work.base = student.model
    else:
        work.base = str(run / "scratch")
        asked = list(splits.train) if splits is not None else list(read_splits(run / ITEMS).train)
        work.stages.once(
            run,
            "scratch",
            inputs={"recipe": work.lasting},
            outputs=["scratch"],
            make=lambda: _make_scratch(work, asked),
        )
    work.reader = Reader.of(work.recipe, work.base)

    def cut() -> None:
        assert splits is not None
        every = {item.id: item for items in splits.parts().values() for item in items}
        kept = without_long(splits, {id: work.reader.fits(item) for id, item in every.items()})
        write_rows(run / ITEMS, _rows_of(kept))
        write_json(run / MANIFEST, _manifest(work, kept))

    work.stages.once(run, "questions", inputs={"recipe": work.lasting}, outputs=[ITEMS, MANIFEST], make=cut)
    work.splits = read_splits(run / ITEMS)
    work.splits.check()
    for note in read_json(run / MANIFEST)["notes"]:
        work.say(f"note: {note}")
    work.items = {item.id: item for items in work.splits.parts().values() for item in items}
    work.prompt_tokens = {item.id: work.reader.prompt_length(item) for item in work.splits.train}


def _make_scratch(work: Workshop, items: list[Item]) -> None:
    from limbeck.blackbox.asking import Completion
    from limbeck.blackbox.scratch import save_scratch

    section = work.recipe.student.scratch
    assert section is not None, "the recipe names a model or a student from scratch"
    answers = work.teacher("start").write([Assignment(item=item) for item in items])
    texts = [answer.text for answer in answers if isinstance(answer, Completion)]
    save_scratch(work.run / "scratch", section, [*(item.asked() for item in items), *texts])


def read_splits(path: Path) -> Splits:
    """The questions of items.jsonl."""
    parts: dict[str, list[Item]] = {}
    for row in read_rows(path):
        part = row.pop("part")
        row["choices"] = [Choice(**choice) for choice in row["choices"]]
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        parts.setdefault(part, []).append(Item(**fields))
    ood = {name.removeprefix("ood:"): tuple(items) for name, items in parts.items() if name.startswith("ood:")}
    train, probe, stop, test = (tuple(parts[name]) for name in ("train", "probe", "stop", "test"))
    return Splits(train=train, probe=probe, stop=stop, test=test, ood=ood)


def _rows_of(splits: Splits) -> list[dict[str, Any]]:
    return [{"part": part, **dataclasses.asdict(item)} for part, items in splits.parts().items() for item in items]


def _manifest(work: Workshop, splits: Splits) -> dict[str, Any]:
    from limbeck.training.rundir import environment

    teacher = work.teacher("start")
    return {
        "teacher": {
            "kind": work.recipe.teacher.get("kind"),
            "name": teacher.name,
            "what": work.writer.what,
            "prompts": str(getattr(teacher, "prompts_version", "")),
        },
        "student": {
            "name": work.recipe.student.model or "from scratch",
            "weights": file_digest(Path(work.base)) if Path(work.base).is_dir() else "",
        },
        "questions": {part: len(items) for part, items in splits.parts().items()},
        "data": {part: digest([dataclasses.asdict(item) for item in items]) for part, items in splits.parts().items()},
        "overlap_with_train": splits.overlap(),
        "notes": list(splits.notes),
        "environment": environment(device=work.recipe.student.device, ranks=1, threads=_threads()),
    }


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _check_same(run: Path, recipe: UndoRecipe) -> None:
    if not (run / RECIPE).is_file():
        raise CheckpointError(f"'{run}' is not the folder of an UNDO run: it has no {RECIPE}")
    different = lasting_differences(UndoRecipe.load(run), recipe)
    if different:
        raise CheckpointError(
            f"{run} is the run of another recipe; it differs in:\n  "
            + "\n  ".join(different)
            + "\n  On resume only the budget, method.rounds, controls and the endpoint's patience may change."
        )


def _check_free(run: Path) -> None:
    if run.is_file():
        raise ConfigError(f"run is '{run}', which is a file; choose another folder: run=runs/NAME")
    if run.is_dir() and any(run.iterdir()):
        raise ConfigError(
            f"run is '{run}', which exists and is not empty\n"
            f"  go on with it by: limbeck undo resume {run}, or choose another folder: run=runs/NAME"
        )
