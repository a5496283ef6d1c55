"""The questions of a run in parts that never mix: by id, and by text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from limbeck.blackbox.items import Item, read_items
from limbeck.blackbox.sections import TaskSection
from limbeck.errors import DataError
from limbeck.seeds import Seeds

_SHARE, _MOST = 0.1, 500
_GRAM = 13
_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class Splits:
    """`train` is rewritten and learned from; attempts at `probe` are shown to the teacher; `stop` chooses the round;
    `test` and `ood` are reported. `notes` say what was left out.
    """

    train: tuple[Item, ...]
    probe: tuple[Item, ...]
    stop: tuple[Item, ...]
    test: tuple[Item, ...]
    ood: Mapping[str, tuple[Item, ...]]
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, tuple[Item, ...]]:
        """All parts by name; those of `ood` as "ood:NAME"."""
        named = {f"ood:{name}": items for name, items in self.ood.items()}
        return {"train": self.train, "probe": self.probe, "stop": self.stop, "test": self.test, **named}

    def check(self) -> None:
        """Raise `DataError` if an id or a text stands in two of train, probe, stop and test, or in train and ood."""
        parts = self.parts()
        for what, key in (("id", lambda item: item.id), ("question", text_of)):
            seen: dict[str, str] = {}
            for name, items in parts.items():
                for item in items:
                    other = seen.setdefault(key(item), name)
                    is_allowed = other == name or (other.startswith(("test", "ood")) and name.startswith("ood"))
                    if not is_allowed:
                        raise DataError(
                            f"the {what} of '{item.id}' stands in {other} and in {name}; these may not mix\n"
                            f"  {item.source or item.question[:80]}"
                        )

    def overlap(self) -> dict[str, dict[str, int]]:
        """How many questions of stop, test and each ood set share a text with train: whole, with every number masked,
        and 13 words in a row."""
        whole = {text_of(item) for item in self.train}
        masked = {_masked(text) for text in whole}
        grams = {gram for text in whole for gram in _grams(text)}
        found = {}
        for name, items in self.parts().items():
            if name in ("train", "probe"):
                continue
            texts = [text_of(item) for item in items]
            found[name] = {
                "exact": sum(text in whole for text in texts),
                "numbers_masked": sum(_masked(text) in masked for text in texts),
                "thirteen_words": sum(not grams.isdisjoint(_grams(text)) for text in texts),
            }
        return found


def text_of(item: Item) -> str:
    """What two questions are compared by: their words, case and white space aside.

    >>> text_of(Item(id="1", question="What  is 2+2?\\n", gold="4", kind="numeric"))
    'what is 2+2?'
    """
    return " ".join(item.asked().casefold().split())


def make_splits(task: TaskSection) -> Splits:
    """Read the questions and cut them by `task.seed`.

    Probe and stop are cut from the training questions. A question whose text comes twice is kept where it is needed
    most: in the test set, else once in training. Ids are prefixed where several sources share them. Raises `DataError`.
    """
    pool, test, ood = _read(task)
    notes: list[str] = []
    if test is None:
        pool, test = _cut_test(pool, task)
    test = _subset(_once(test), task.test, task.seed, "test")
    ood = {name: _subset(_once(items), task.ood_rows, task.seed, name) for name, items in ood.items()}
    held = {text_of(item) for items in (test, *ood.values()) for item in items}
    clean = tuple(item for item in _once(pool) if text_of(item) not in held)
    if len(clean) < len(pool):
        notes.append(f"{len(pool) - len(clean)} training questions stand in the data twice or in a test; left out")
    ordered = _shuffled(clean, task.seed, "cut")
    wanted = min(_MOST, max(1, round(_SHARE * len(ordered)))) if task.stop == "auto" else task.stop
    num_probe = probe_size(task)
    rest = len(ordered) - num_probe - wanted
    if rest < 1:
        raise DataError(
            f"{len(ordered)} questions are too few for {num_probe} of task.probe and task.stop {wanted}; none is left "
            "to learn from\n  lower them, or give more questions"
        )
    probe, stop, train = ordered[:num_probe], ordered[num_probe : num_probe + wanted], ordered[-rest:]
    splits = Splits(
        train=train if task.train is None else train[: task.train],
        probe=probe,
        stop=stop,
        test=test,
        ood=ood,
        notes=tuple(notes),
    )
    splits.check()
    return splits


def probe_size(task: TaskSection) -> int:
    """The questions that are kept for the probe: four times those of a round where each round shows others."""
    return task.probe * (1 if task.probe_policy == "fixed" else _PROBES)


def without_long(splits: Splits, fits: Mapping[str, bool]) -> Splits:
    """The splits without the questions that the student cannot read whole; `fits` by id. Raises `DataError`."""
    kept: dict[str, Any] = {}
    dropped = 0
    for name, items in splits.parts().items():
        kept[name] = tuple(item for item in items if fits[item.id])
        dropped += len(items) - len(kept[name])
        if not kept[name]:
            raise DataError(f"no question of {name} fits into student.max_prompt tokens; raise it")
    if not dropped:
        return splits
    note = f"{dropped} questions are longer than student.max_prompt; left out"
    return dataclasses.replace(
        splits,
        **{name: kept[name] for name in ("train", "probe", "stop", "test")},
        ood={name: kept[f"ood:{name}"] for name in splits.ood},
        notes=(*splits.notes, note),
    )


def _read(task: TaskSection) -> tuple[tuple[Item, ...], tuple[Item, ...] | None, dict[str, tuple[Item, ...]]]:
    root = None if task.root is None else Path(task.root)
    ood = {name: _named(_load(name, "test", root), f"{name}:test:") for name in task.ood}
    if task.file is not None:
        pool = _named(read_items(Path(task.file)), "train:")
        return pool, None if task.test_file is None else _named(read_items(Path(task.test_file)), "test:"), ood
    assert task.name is not None, "the recipe was checked"
    if task.name == "arithmetic":
        return _generated(task), _generated(task, split="test"), ood
    return _named(_load(task.name, "train", root), "train:"), _named(_load(task.name, "test", root), "test:"), ood


def _generated(task: TaskSection, *, split: str = "train") -> tuple[Item, ...]:
    from limbeck.blackbox.generating import generate_items

    stop = _MOST if task.stop == "auto" else task.stop
    count = (task.train or 2000) + probe_size(task) + stop if split == "train" else task.test or _MOST
    # What two draws share is left out afterwards.
    wanted = count + count // 4 if split == "train" else count
    items = generate_items(wanted, task.seed, split, steps=task.steps, largest=task.largest)
    return _named(cast("tuple[Item, ...]", tuple(items)), f"{split}:")


def _load(name: str, split: str, root: Path | None) -> tuple[Item, ...]:
    from limbeck.blackbox.tasks import load_task

    return tuple(load_task(name, split, root=root))


def _named(items: Sequence[Item], prefix: str) -> tuple[Item, ...]:
    """Ids that say where they come from: those of two files may be the same numbers."""
    return tuple(
        item if item.id.startswith(prefix) else dataclasses.replace(item, id=f"{prefix}{item.id}") for item in items
    )


def _cut_test(pool: tuple[Item, ...], task: TaskSection) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    ordered = _shuffled(_once(pool), task.seed, "test")
    count = task.test if task.test is not None else min(_MOST, max(1, round(_SHARE * len(ordered))))
    return ordered[count:], ordered[:count]


def _once(items: Sequence[Item]) -> tuple[Item, ...]:
    return tuple({text_of(item): item for item in reversed(items)}.values())[::-1]


def _subset(items: tuple[Item, ...], count: int | None, seed: int, name: str) -> tuple[Item, ...]:
    return items if count is None else _shuffled(items, seed, f"subset {name}")[:count]


def _shuffled(items: Sequence[Item], seed: int, purpose: str) -> tuple[Item, ...]:
    """The items in an order that depends on the seed and on their texts' order."""
    order: list[int] = np.argsort(Seeds(seed).child("splits", purpose).generator().random(len(items))).tolist()
    return tuple(items[place] for place in order)


def _masked(text: str) -> str:
    return re.sub(r"\d[\d,.]*", "#", text)


def _grams(text: str) -> set[str]:
    words = re.findall(r"\w+", text)
    return {" ".join(words[first : first + _GRAM]) for first in range(len(words) - _GRAM + 1)}
