"""What a run would ask of its teacher, before it asks anything: calls, tokens, money, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.blackbox.items import Item
from limbeck.blackbox.presets import Preset
from limbeck.blackbox.prompting import Prompts
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.splits import make_splits
from limbeck.blackbox.writers import HttpWriter, Writer, check_limits, writer_of
from limbeck.blackbox.writing import Assignment, Attempt, Example

_LETTERS_A_TOKEN = 4
_SUMMARY_LETTERS = 1_200
_SUMMARISED = ("summary", "hybrid")
# What an answer is taken to be where nothing was measured: a worked solution of some 150 tokens, an attempt of as many.
_RATIONALE_LETTERS = 600
# Seconds of a call of a large model that writes 150 tokens, several calls at once.
_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The calls of one round of one arm, with tokens as estimated."""

    arm: str
    round: int
    calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class UndoPlan:
    """All calls of a run that takes every round. `money` by the recipe's prices, `minutes` of waiting for the teacher.

    `shared_tokens`: how many of the prompt tokens stand in a prefix that all calls of a round begin with, which a
    server may keep.
    """

    stages: tuple[Planned, ...]
    questions: Mapping[str, int]
    shared_tokens: int
    money: float
    minutes: float
    what: str

    @property
    def calls(self) -> int:
        """Of all rounds and arms."""
        return sum(each.calls for each in self.stages)

    @property
    def prompt_tokens(self) -> int:
        """Of all calls."""
        return sum(each.prompt_tokens for each in self.stages)

    @property
    def completion_tokens(self) -> int:
        """Of all calls."""
        return sum(each.completion_tokens for each in self.stages)

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        summed = {name: getattr(self, name) for name in ("calls", "prompt_tokens", "completion_tokens")}
        return {**asdict(self), **summed}

    def lines(self) -> tuple[str, ...]:
        """For printing."""
        found = [f"the teacher is {self.what}"]
        found += [", ".join(f"{count:,} {part}" for part, count in self.questions.items())]
        found += [
            f"{each.arm} round {each.round}: {each.calls:,} calls, {each.prompt_tokens:,} + "
            f"{each.completion_tokens:,} tokens"
            for each in self.stages
        ]
        return (
            *found,
            f"all: {self.calls:,} calls, {self.prompt_tokens:,} tokens of prompts ({self.shared_tokens:,} of them in "
            f"shared prefixes), {self.completion_tokens:,} of answers",
            f"money {self.money:,.2f}, about {self.minutes:,.0f} minutes of waiting for the teacher",
            "an estimate for every round taken and nothing retried: four letters a token, 150 tokens a rationale and "
            "an attempt; scopes that depend on errors are counted as if all were wrong; training is not counted",
        )


def plan(recipe: UndoRecipe | Mapping[str, Any] | Path | str, *overrides: str) -> UndoPlan:
    """Count what `run_undo` would ask for; asks nobody, loads no model and writes nothing.

    Prompts are built from the questions themselves, with answers of 600 letters in the places where a rationale or an
    attempt will stand. Raises what reading the recipe and the questions raises.
    """
    settings = UndoRecipe.load(recipe, list(overrides))
    writer = writer_of(settings.teacher)
    check_limits(writer, settings.budget.of_calls())
    splits = make_splits(settings.task)
    counting = _Counting(settings, writer, splits.train, splits.probe)
    stages, shared = [counting.fresh()], 0
    for name in (settings.method.base, *settings.controls):
        arm = settings.arm(name)
        for number in range(1, arm.rounds + 1):
            if arm.scope == "none" and arm.feedback not in _SUMMARISED:
                continue
            stage, prefix = counting.refined(name, arm, number)
            stages.append(stage)
            shared += prefix
    costs = writer.calls_cost
    prompts = sum(each.prompt_tokens for each in stages)
    answers = sum(each.completion_tokens for each in stages)
    money, lanes = 0.0, 1
    if isinstance(writer, HttpWriter):
        money = writer.prices().cost(prompt_tokens=prompts, completion_tokens=answers)
        lanes = writer.concurrency
    minutes = sum(each.calls for each in stages) * _SECONDS / lanes / 60 if costs else 0.0
    return UndoPlan(
        stages=tuple(stages),
        questions={part: len(items) for part, items in splits.parts().items()},
        shared_tokens=shared,
        money=money,
        minutes=minutes,
        what=writer.what,
    )


class _Counting:
    def __init__(self, recipe: UndoRecipe, writer: Writer, train: Sequence[Item], probe: Sequence[Item]) -> None:
        self._recipe, self._costs = recipe, writer.calls_cost
        self._train, self._probe = train, probe
        # Where each round shows others, the start answers all that rounds may show.
        self._shown = probe[: recipe.task.probe]
        folder = getattr(writer, "prompts", None)
        self._prompts = Prompts.load(None if folder is None else Path(folder))
        self._filler = "x" * _RATIONALE_LETTERS

    def fresh(self) -> Planned:
        """The common start: one call a question of train and probe, and nothing of a student."""
        return self._stage("start", 0, [Assignment(item=item) for item in (*self._train, *self._probe)])

    def refined(self, name: str, arm: Preset, number: int) -> tuple[Planned, int]:
        """A later round of an arm, with the prompt tokens that all its calls share."""
        seen = number if self._recipe.method.history != "last" else 1
        examples = tuple(self._example(item, number, seen) for item in self._shown)
        own = arm.feedback in ("instance", "validation+instance", "hybrid")
        has_summary = arm.feedback in _SUMMARISED
        shown = arm.feedback in ("validation", "validation+instance")
        wanted = [
            Assignment(
                item=item,
                round=number,
                previous=self._filler,
                attempts=self._attempts(item, seen) if own else (),
                probe=examples if shown else (),
                summary="x" * _SUMMARY_LETTERS if has_summary else "",
            )
            for item in self._rewritten(arm)
        ]
        stage = self._stage(name, number, wanted)
        if has_summary and self._costs:
            stage = self._with_summary(stage, examples)
        is_shared = wanted and arm.feedback != "none" and self._costs
        return stage, len(wanted) * self._system_tokens(wanted[0]) if is_shared else 0

    def _rewritten(self, arm: Preset) -> list[Item]:
        if arm.scope == "none":
            return []
        share = self._recipe.method.scope_share if arm.scope == "sample" else 1.0
        return [*self._train[: round(share * len(self._train))], *self._shown]

    def _with_summary(self, stage: Planned, examples: Sequence[Example]) -> Planned:
        letters = sum(len(turn.content) for turn in self._prompts.summary_turns(examples, round=stage.round - 1))
        return replace(
            stage,
            calls=stage.calls + 1,
            prompt_tokens=stage.prompt_tokens + round(letters / _LETTERS_A_TOKEN),
            completion_tokens=stage.completion_tokens + round(_SUMMARY_LETTERS / _LETTERS_A_TOKEN),
        )

    def _stage(self, name: str, number: int, wanted: Sequence[Assignment]) -> Planned:
        calls = len(wanted) * self._recipe.method.candidates if self._costs else 0
        if not calls:
            return Planned(arm=name, round=number, calls=0, prompt_tokens=0, completion_tokens=0)
        # The shared turn is the same for all: it is counted once and multiplied.
        letters = self._system_tokens(wanted[0]) * _LETTERS_A_TOKEN * len(wanted)
        bare = [_without_shared(each) for each in wanted]
        letters += sum(len(self._prompts.turns(each)[-1].content) for each in bare)
        factor = self._recipe.method.candidates / _LETTERS_A_TOKEN
        return Planned(
            arm=name,
            round=number,
            calls=calls,
            prompt_tokens=round(letters * factor),
            completion_tokens=round(calls * _RATIONALE_LETTERS / _LETTERS_A_TOKEN),
        )

    def _system_tokens(self, asked: Assignment) -> int:
        turns = self._prompts.turns(asked)
        return sum(len(turn.content) for turn in turns[:-1]) // _LETTERS_A_TOKEN

    def _attempts(self, item: Item, count: int) -> tuple[Attempt, ...]:
        return tuple(
            Attempt(item_id=item.id, round=number, text=self._filler, finish="stop", is_right=False)
            for number in range(count)
        )

    def _example(self, item: Item, number: int, seen: int) -> Example:
        return Example(item=item, rationales=(self._filler,) * number, attempts=self._attempts(item, seen))


def _without_shared(asked: Assignment) -> Assignment:
    """The assignment with a probe of one letter: its own turn is the same."""
    return replace(asked, probe=(), summary="x") if asked.probe or asked.summary else asked
