"""Arithmetic word problems made by rule: chains of two to four operations with exact answers, told in our own words."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from limbeck.blackbox.arithmetic import Sign
from limbeck.blackbox.items import Item
from limbeck.blackbox.stories import EVENTS, OPENINGS, PEOPLE, QUESTIONS, THINGS, Event, told
from limbeck.errors import ConfigError
from limbeck.seeds import Seeds

Split = Literal["train", "test"]
_TEST_SHARE = 0.2
_MOST_TRIES = 10_000
_SIGNS: tuple[Sign, ...] = ("+", "-", "*", "/")
_LEAST_LARGEST = 20
_RESULTS: dict[Sign, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
_DIGITS = re.compile(r"\d+")


def generate_items(
    count: int, seed: int = 0, split: str = "train", *, steps: Sequence[int] = (2, 3, 4), largest: int = 400
) -> tuple[Item, ...]:
    """`count` problems of as many operations as `steps` says in turn; every number is an integer from 1 to `largest`.

    Item i depends on the seed, the split, and the items before it (no question occurs twice), so that a longer set
    begins with the shorter one. Each has its exact `gold`, its `expression`, and a `rationale` of one named equation a
    line. Guaranteed: a question of one split, with its numbers masked, is no masked question of the other split,
    whatever the seeds are; the split is a hash of the masked question, a fifth of them being test. Not guaranteed:
    single sentences, people and things are shared by both. Raises `ConfigError`.

    >>> item = generate_items(4, seed=4)[3]
    >>> print(item.rationale)
    Bricks for each child: 33 / 3 = 11
    Bricks after the loss: 11 - 9 = 2
    >>> print(item.expression, "=", item.gold)
    (33 / 3) - 9 = 2
    """
    if split not in ("train", "test"):
        raise ConfigError(f"generated problems have no split '{split}'\n  allowed: train, test")
    if count < 0 or not steps or min(steps) < 1 or largest < _LEAST_LARGEST:
        raise ConfigError(
            f"generate_items was asked for {count} items of {list(steps)} steps with numbers up to {largest}\n"
            f"  allowed: 0 items or more, one step or more, numbers up to {_LEAST_LARGEST} or more"
        )
    items: list[Item] = []
    questions: set[str] = set()
    for index in range(count):
        draw = Seeds(seed).child("word-problem", split, index).generator()
        id = f"arithmetic-{split}-{seed}-{index}"
        item = _fresh(draw, split=split, steps=steps[index % len(steps)], largest=largest, known=questions, id=id)
        questions.add(item.question)
        items.append(item)
    return tuple(items)


def split_of(masked: str) -> Split:
    """The split that a question with masked numbers belongs to: a hash of its text.

    >>> split_of("Ada has # eggs.") == split_of("Ada has # eggs.")
    True
    """
    digest = hashlib.blake2b(masked.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "little") < _TEST_SHARE * 2**64 else "train"


def masked(question: str) -> str:
    """A question with every number masked.

    >>> masked("Ada has 12 eggs and 3 nuts.")
    'Ada has # eggs and # nuts.'
    """
    return _DIGITS.sub("#", question)


def _fresh(draw: np.random.Generator, *, split: str, steps: int, largest: int, known: set[str], id: str) -> Item:
    for _ in range(_MOST_TRIES):
        story = _story(draw, steps=steps, largest=largest)
        if story is not None and story.question not in known and split_of(masked(story.question)) == split:
            return story.item(id)
    raise ConfigError(
        f"no new problem of {steps} steps with numbers up to {largest} was found after {len(known):,}\n"
        "  ask for fewer, for more steps, or raise largest"
    )


@dataclass(frozen=True, kw_only=True)
class _Story:
    """A question, and what is done to its first number, one after the other: name, sign, second operand and result."""

    question: str
    first: int
    moves: tuple[tuple[str, Sign, int, int], ...]

    def item(self, id: str) -> Item:
        """The problem with its gold answer."""
        expression, value, lines = str(self.first), self.first, []
        for place, (name, sign, number, result) in enumerate(self.moves):
            expression = f"({expression}) {sign} {number}" if place else f"{expression} {sign} {number}"
            lines.append(f"{name}: {value} {sign} {number} = {result}")
            value = result
        return Item(
            id=id,
            question=self.question,
            gold=str(value),
            kind="numeric",
            rationale="\n".join(lines),
            expression=expression,
            source=f"generate_items {id}",
        )


def _story(draw: np.random.Generator, *, steps: int, largest: int) -> _Story | None:
    """One story; None where the numbers leave no way on."""
    person, things = PEOPLE[draw.integers(len(PEOPLE))], THINGS[draw.integers(len(THINGS))]
    first = value = int(draw.integers(3, min(100, largest // 2)))
    moves: list[tuple[Event, Sign, int, int]] = []
    for _ in range(steps):
        sign = _SIGNS[draw.integers(len(_SIGNS))]
        number = _number(draw, value=value, sign=sign, largest=largest)
        event = _event(draw, sign=sign, before={event for event, *_ in moves})
        if number is None or event is None:
            return None
        value = _RESULTS[sign](value, number)
        moves.append((event, sign, number, value))
    sentences = [told(OPENINGS[draw.integers(len(OPENINGS))], person=person, things=things, number=first)]
    sentences += [told(event.text, person=person, things=things, number=number) for event, _, number, _ in moves]
    sentences.append(told(QUESTIONS[draw.integers(len(QUESTIONS))], person=person, things=things))
    named = tuple(
        (told(event.name, person=person, things=things), sign, number, result) for event, sign, number, result in moves
    )
    return _Story(question=" ".join(sentences), first=first, moves=named)


def _event(draw: np.random.Generator, *, sign: Sign, before: set[Event]) -> Event | None:
    """Something that happens with this sign, and has not happened yet: it would be told in the same words."""
    fitting = [event for event in EVENTS if event.sign == sign and event not in before]
    return fitting[draw.integers(len(fitting))] if fitting else None


def _number(draw: np.random.Generator, *, value: int, sign: Sign, largest: int) -> int | None:
    """A second operand that keeps the result an integer from 1 to `largest`; None where there is none."""
    if sign == "+":
        most = min(99, largest - value)
        return int(draw.integers(2, most + 1)) if most >= 2 else None
    if sign == "-":
        most = min(99, value - 1)
        return int(draw.integers(2, most + 1)) if most >= 2 else None
    if sign == "*":
        most = min(9, largest // value)
        return int(draw.integers(2, most + 1)) if most >= 2 else None
    divisors = [divisor for divisor in range(2, 10) if value % divisor == 0]
    return divisors[draw.integers(len(divisors))] if divisors else None
