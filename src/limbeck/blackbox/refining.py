"""What a rule-based teacher goes by when it rewrites: the student's measured errors, or nothing at all."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from limbeck.blackbox.asking import Answer, Completion
from limbeck.blackbox.diagnosing import diagnose
from limbeck.blackbox.failures import ERROR_CLASSES, Diagnosis, ErrorClass
from limbeck.blackbox.items import Item
from limbeck.blackbox.writing import Assignment, Attempt, Example
from limbeck.seeds import Seeds

Scope = Literal["item", "probe", "summary", "nothing"]
Diagnose = Callable[[Attempt, Item], Diagnosis]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The error that a rewrite is for. `scope`: where it was seen, on this question, on the probe set, in a summary;
    "nothing" where nothing of the student is known."""

    scope: Scope
    diagnosis: Diagnosis


def diagnose_attempt(attempt: Attempt, item: Item) -> Diagnosis:
    """What `diagnose` says of an attempt: read from its text; `attempt.error` is not looked at."""
    return _diagnosed(attempt.text, attempt.finish, item)


@functools.lru_cache(maxsize=10_000)
def _diagnosed(text: str, finish: str, item: Item) -> Diagnosis:
    """Kept, since each rewrite of a round goes by the same attempts at the probe set."""
    return diagnose(text, finish=finish, item=item)


def measured(assignment: Assignment) -> Measured:
    """The error to write against: the question's own last one, else the commonest of the probe set or the summary.

    Attempts of the latest round count, the first wrong one of them first. Of the probe set, each question's latest
    attempts; right ones do not vote. A summary is searched for the names of error classes.

    >>> item = Item(id="1", question="2, 2 more?", gold="4", kind="numeric", expression="2 + 2")
    >>> tried = Attempt(item_id="1", round=0, text="2 + 2 = 5\\n#### 5", finish="stop", is_right=False)
    >>> measured(Assignment(item=item, round=1, attempts=(tried,))).diagnosis.error
    'arithmetic_slip'
    """
    if assignment.attempts:
        found = [diagnose_attempt(attempt, assignment.item) for attempt in _latest(assignment.attempts)]
        wrong = [each for each in found if each.error != "ok"]
        return Measured(scope="item", diagnosis=(wrong or found)[0])
    counts = error_counts(assignment.probe)
    if any(example.attempts for example in assignment.probe):
        return Measured(scope="probe", diagnosis=Diagnosis(error=commonest(counts)))
    if assignment.summary:
        return Measured(scope="summary", diagnosis=Diagnosis(error=commonest(_counts_in(assignment.summary))))
    return Measured(scope="nothing", diagnosis=Diagnosis(error="ok"))


def error_counts(probe: Sequence[Example]) -> Counter[ErrorClass]:
    """How often each class of error occurs in the latest attempts at the probe questions; "ok" is not counted."""
    found = [
        diagnose_attempt(attempt, example.item).error for example in probe for attempt in _latest(example.attempts)
    ]
    return Counter(error for error in found if error != "ok")


def summary_of(counts: Counter[ErrorClass]) -> Answer:
    """The error classes and how often they occurred, the commonest first: a summary that `measured` reads.

    >>> summary_of(Counter({"no_final": 1, "arithmetic_slip": 12})).text
    'arithmetic_slip 12, no_final 1'
    """
    said = ", ".join(f"{error} {count}" for error, count in counts.most_common())
    return Completion(text=said or "no errors", finish="stop")


def _counts_in(summary: str) -> Counter[ErrorClass]:
    """How often a summary says that each class occurred: the number behind its name, else how often it is named."""
    counts: Counter[ErrorClass] = Counter()
    for error in ERROR_CLASSES:
        said = [int(number or 1) for number in re.findall(rf"\b{error}\b(?:\W{{1,3}}(\d{{1,6}})\b)?", summary)]
        if error != "ok" and said:
            counts[error] = sum(said)
    return counts


def commonest(counts: Counter[ErrorClass]) -> ErrorClass:
    """The class with the largest count, the first of `ERROR_CLASSES` where several have it; "ok" without any."""
    return max(ERROR_CLASSES, key=lambda error: (counts[error], error == "ok"))


def drawn(choices: Sequence[T], assignment: Assignment, *, seed: int) -> T:
    """One of the choices, by seed, round, question and retry alone: a rewrite that knows nothing of a student."""
    seeds = Seeds(seed).child("blind", assignment.round, assignment.item.id, assignment.sample)
    return choices[int(seeds.generator().integers(len(choices)))]


def is_uninformed(assignment: Assignment) -> bool:
    """Whether it asks for a later round's rationale without a word of how a student did."""
    return assignment.round > 0 and not (assignment.attempts or assignment.probe or assignment.summary)


def _latest(attempts: Sequence[Attempt]) -> list[Attempt]:
    last = max((attempt.round for attempt in attempts), default=0)
    return [attempt for attempt in attempts if attempt.round == last]
