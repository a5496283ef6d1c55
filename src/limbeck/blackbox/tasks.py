"""Tasks by name: their questions from local files, or from the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck.blackbox.generating import generate_items
from limbeck.blackbox.items import Item, read_items, read_row
from limbeck.blackbox.solutions import agrees
from limbeck.blackbox.task_rows import from_choices, from_gsm8k, from_strategyqa, from_svamp, sentences_of
from limbeck.data.corpora import is_path
from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.registry import Registry

_GENERATED = 2_000
_TRAIN_AND_TEST = {"train": "train", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """Where the questions of a task come from. Files lie at `folder`/SPLIT.jsonl below a root; `hub` is the set's id,
    `splits` what a split is called there, and `convert` makes its rows into the files' form.

    `generated` tasks need neither. `has_equations`: rows whose equation and answer disagree are known to occur.
    """

    folder: str = ""
    hub: str = ""
    configuration: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: dict(_TRAIN_AND_TEST))
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    generated: bool = False
    has_equations: bool = False
    has_facts: bool = False


TASKS: Registry[Task] = Registry(
    "task",
    {
        "gsm8k": Task(folder="gsm8k", hub="openai/gsm8k", configuration="main", convert=from_gsm8k),
        "svamp": Task(folder="svamp", hub="ChilleD/SVAMP", convert=from_svamp, has_equations=True),
        "strategyqa": Task(folder="strategyqa", hub="ChilleD/StrategyQA", convert=from_strategyqa, has_facts=True),
        # Its own test split has no public answers.
        "commonsenseqa": Task(
            folder="commonsenseqa",
            hub="tau/commonsense_qa",
            splits={"train": "train", "test": "validation"},
            convert=from_choices,
        ),
        "arc-easy": Task(folder="arc_easy", hub="allenai/ai2_arc", configuration="ARC-Easy", convert=from_choices),
        "arc-challenge": Task(
            folder="arc_challenge", hub="allenai/ai2_arc", configuration="ARC-Challenge", convert=from_choices
        ),
        "arithmetic": Task(generated=True),
    },
)


def load_task(
    name: str,
    split: str,
    root: Path | None = None,
    *,
    rows: int | None = None,
    note: Callable[[str], None] = print,
) -> tuple[Item, ...]:
    """The questions of a task's split, in their order; at most the first `rows` of them.

    `name` is one of `TASKS` or the path of a JSON-lines file (`read_items`; the split does not touch it). With a `root`
    the task's file below it is read; without one, its hub set through `datasets`, whose rows and split sizes differ
    from other copies'. "arithmetic" is made by `generate_items` with seed 0 (2,000 unless `rows` says otherwise). Rows
    whose equation and answer disagree are dropped, and `note` gets their number. Raises `UnknownName`, `DataError`.

    >>> [item.id for item in load_task("arithmetic", "test", rows=2)]
    ['arithmetic-test-0-0', 'arithmetic-test-0-1']
    """
    if rows is not None and rows < 1:
        raise ConfigError(f"rows is {rows}; at least 1 is needed, or None for all")
    if name not in TASKS and is_path(name):
        return read_items(Path(name).expanduser())[:rows]
    if name not in TASKS:
        raise UnknownName.among("task", name, [*TASKS, "FILE.jsonl"])
    task = TASKS[name]
    if split not in task.splits:
        raise DataError(f"the task {name} has no split '{split}'\n  allowed: {', '.join(task.splits)}")
    if task.generated:
        return generate_items(_GENERATED if rows is None else rows, split="test" if split == "test" else "train")
    items = read_items(root / task.folder / f"{split}.jsonl") if root else _from_hub(name, task, split=split)
    if task.has_facts:
        items = tuple(each if each.facts else replace(each, facts=_facts(each)) for each in items)
    if task.has_equations:
        items = _without_bad(items, name=f"{name} {split}", note=note)
    return items[:rows]


def _facts(item: Item) -> tuple[str, ...]:
    return tuple(sentences_of(item.rationale))


def _without_bad(items: tuple[Item, ...], *, name: str, note: Callable[[str], None]) -> tuple[Item, ...]:
    bad = {item.id for item in items if item.expression and not agrees(item.expression, item.gold)}
    if bad:
        note(
            f"{name}: {len(bad)} of {len(items):,} rows dropped, equation and answer disagree: {', '.join(sorted(bad))}"
        )
    return tuple(item for item in items if item.id not in bad)


def _from_hub(name: str, task: Task, *, split: str) -> tuple[Item, ...]:
    import datasets

    where = f"{task.hub}{f':{task.configuration}' if task.configuration else ''} {task.splits[split]}"
    try:
        rows = datasets.load_dataset(task.hub, task.configuration, split=task.splits[split])
    except Exception as error:
        raise DataError(
            f"the task {name} was given no root, and `datasets` cannot load {where} from the hub:\n"
            f"  {type(error).__name__}: {error}\n"
            f"  give the folder that holds {task.folder}/{split}.jsonl, or check the connection"
        ) from error
    assert task.convert is not None, "a task on the hub says how its rows are read"
    items = []
    for number, row in enumerate(rows):
        place, default_id = f"{where} row {number + 1}", f"{name}-{split}-{number:04d}"
        try:
            converted = task.convert(row)
        except (KeyError, TypeError, DataError) as error:
            reason = f"column {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{place}: {reason}\n  it has: {', '.join(row)}") from error
        items.append(read_row(converted, where=place, default_id=default_id))
    return tuple(items)
