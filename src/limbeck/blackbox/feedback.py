"""What a teacher is shown of the student: the probe's attempts, the question's own, a summary, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from limbeck.blackbox.artefacts import digest
from limbeck.blackbox.asking import Answer
from limbeck.blackbox.items import Item
from limbeck.blackbox.sections import MethodSection, Shown
from limbeck.blackbox.writing import Assignment, Attempt, Example
from limbeck.seeds import Seeds

# A student that loops would otherwise fill the prompt: about 256 tokens.
_SHOWN = 1_024
_RIGHT = ("", "ok")
_LETTERS_A_TOKEN = 4


@runtime_checkable
class Summarising(Protocol):
    """A teacher that can also say in its own words what a student does wrong."""

    def summarise(self, examples: Sequence[Example], *, round: int) -> Answer:
        """At most some 300 tokens about these attempts, or a refusal."""
        ...


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What every assignment of a round shows: examples of the probe, and a summary of them ("" without)."""

    probe: tuple[Example, ...] = ()
    summary: str = ""

    def evidence(self) -> dict[str, str]:
        """What the rows of this round remember of it."""
        shown = [[each.item.id, [attempt_id(one) for one in each.attempts]] for each in self.probe]
        return {"probe": digest(shown) if shown else "", "summary": digest(self.summary) if self.summary else ""}


def attempt_id(attempt: Attempt) -> str:
    """A name for an attempt by its question, round and text."""
    return digest([attempt.item_id, attempt.round, attempt.text])


def attempt_of(row: Mapping[str, Any]) -> Attempt:
    """The attempt of a row of attempts.jsonl, cut to what a prompt shows of it."""
    return Attempt(
        item_id=row["item_id"],
        round=row["round"],
        text=row["text"][:_SHOWN],
        finish=row["finish"] if len(row["text"]) <= _SHOWN else "length",
        is_right=row["correct"],
        error=row["error"],
    )


def attempts_by_item(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, tuple[Attempt, ...]]:
    """The first attempt of each round at each question, oldest first; `rounds` are rows of attempts.jsonl."""
    found: dict[str, tuple[Attempt, ...]] = {}
    for rows in rounds:
        for row in rows:
            if row["draw"] == 0:
                found[row["item_id"]] = (*found.get(row["item_id"], ()), attempt_of(row))
    return found


def saturation(examples: Sequence[Example]) -> str:
    """ "right" where the latest answer to every question of the probe is right, "wrong" where none is, else "".

    Either way the probe cannot tell what the student lacks.
    """
    latest = [each.attempts[-1].is_right for each in examples if each.attempts]
    return "right" if latest and all(latest) else "wrong" if latest and not any(latest) else ""


def remembered(attempts: Sequence[Attempt], method: MethodSection) -> tuple[Attempt, ...]:
    """The part of a history that is shown: the last attempt, all, or the newest that fit into a window of tokens,
    counted as four letters each. The last one always is."""
    if method.history == "all" or not attempts:
        return tuple(attempts)
    kept = [attempts[-1]]
    room = 0 if method.history == "last" else _LETTERS_A_TOKEN * method.history_tokens - len(kept[0].text)
    for attempt in reversed(attempts[:-1]):
        room -= len(attempt.text)
        if room < 0:
            break
        kept.insert(0, attempt)
    return tuple(kept)


def shuffled(attempts: Mapping[str, tuple[Attempt, ...]], *, seeds: Seeds) -> dict[str, tuple[Attempt, ...]]:
    """Every question gets the attempts of another one, under its own id; a lone question gets none.

    The questions are put in a seeded order, and each takes what belongs to the next: nobody keeps what is its own.
    """
    ids = sorted(attempts)
    order = [ids[place] for place in np.argsort(seeds.generator().random(len(ids))).tolist()]
    if len(order) < 2:
        return dict.fromkeys(order, ())
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return {id: tuple(replace(each, item_id=id) for each in attempts[following[id]]) for id in ids}


def probe_examples(
    items: Sequence[Item],
    *,
    rationales: Sequence[Mapping[str, str]],
    attempts: Mapping[str, tuple[Attempt, ...]],
    method: MethodSection,
) -> tuple[Example, ...]:
    """The probe's questions with the teacher's rationales, by round and item, and the student's attempts at them."""
    return tuple(
        Example(
            item=item,
            rationales=tuple(texts[item.id] for texts in rationales if item.id in texts),
            attempts=remembered(attempts.get(item.id, ()), method),
        )
        for item in items
    )


def choose_probe(
    items: Sequence[Item], *, count: int, policy: str, errors: Mapping[str, str], seeds: Seeds
) -> tuple[Item, ...]:
    """The questions that a round shows: the first ones, others each round, or as many of each class of error as there
    are of the others. `errors` are the classes of the latest answers ("" and "ok" for right ones).

    Answers that are all right tell a teacher nothing: where a draw of "resample" holds no wrong one, the questions
    that were answered wrong come first.
    """
    if policy == "fixed" or count >= len(items):
        return tuple(items[:count])
    order = [items[place] for place in np.argsort(seeds.generator().random(len(items))).tolist()]
    if policy == "resample":
        wrong = [item for item in order if errors.get(item.id, "ok") not in _RIGHT]
        if any(item in wrong for item in order[:count]):
            return tuple(order[:count])
        return tuple([*wrong, *(item for item in order if item not in wrong)][:count])
    classes: dict[str, list[Item]] = {}
    for item in order:
        classes.setdefault(errors.get(item.id, ""), []).append(item)
    taken: list[Item] = []
    while len(taken) < count:
        for name in sorted(classes):
            if classes[name] and len(taken) < count:
                taken.append(classes[name].pop(0))
    return tuple(taken)


def assignments(
    items: Sequence[Item],
    *,
    round: int,
    shown: Shown,
    previous: Mapping[str, str],
    attempts: Mapping[str, tuple[Attempt, ...]],
    feedback: Feedback,
    method: MethodSection,
) -> list[Assignment]:
    """What is asked of the teacher for each question. Under "none" it sees its own last rationale and nothing else."""
    sees_own = shown in ("instance", "validation+instance", "hybrid")
    return [
        Assignment(
            item=item,
            round=round,
            previous=previous.get(item.id, ""),
            attempts=remembered(attempts.get(item.id, ()), method) if sees_own else (),
            probe=() if shown == "none" else feedback.probe,
            summary="" if shown == "none" else feedback.summary,
        )
        for item in items
    ]
