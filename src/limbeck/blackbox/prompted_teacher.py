"""A language model as a teacher of rationales: prompts around it, a ledger before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request, Teacher, Turn
from limbeck.blackbox.endpoints import Budget
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.prompting import Prompts
from limbeck.blackbox.writing import Assignment, Example
from limbeck.errors import CheckpointError
from limbeck.seeds import Seeds

_SUMMARY_TOKENS = 400
_LETTERS_A_TOKEN = 3
_TOGETHER = 512
# Calls between two looks at a budget: two batches of a local model.
_UNWATCHED = 16


class PromptedTeacher:
    """Writes rationales with any `asking.Teacher`: whatever the ledger holds is not asked again.

    An answer that is cut is asked for once more with twice the room. A request that is too long for the teacher is
    shortened: earlier attempts first, then half of the probe again and again, then the summary; what is still too long
    comes back as `Refusal` ("context"). `context`, where known, is the teacher's in tokens (three letters each): then
    no call is spent to find out. `budget` is for a teacher that does not keep to one itself: it is looked at after
    every 16 calls, so that tokens may be passed by as many, and raises `Stopped`.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        ledger: Ledger,
        prompts: Prompts,
        stage: str,
        temperature: float = 0.7,
        max_tokens: int = 512,
        context: int | None = None,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> None:
        self._teacher, self._ledger, self._prompts, self._stage = teacher, ledger, prompts, stage
        self._temperature, self._max_tokens, self._context = temperature, max_tokens, context
        self._budget = budget or Budget()
        self._seeds = Seeds(seed)

    @property
    def name(self) -> str:
        """The model's."""
        return self._teacher.name

    @property
    def prompts_version(self) -> str:
        """The version of the prompts."""
        return self._prompts.version

    def write(self, assignments: Sequence[Assignment]) -> list[Answer]:
        """One rationale an assignment, in order. Raises what the teacher raises; what was answered is in the ledger."""
        return self._written([(self._prompts.turns, each) for each in assignments])

    def summarise(self, examples: Sequence[Example], *, round: int) -> Answer:
        """What these attempts have in common, in the teacher's words."""
        first = examples[0].item
        asked = Assignment(item=first, round=round, probe=tuple(examples))
        return self._written([(self._summary, asked)], max_tokens=_SUMMARY_TOKENS, temperature=0.0)[0]

    def _summary(self, asked: Assignment) -> tuple[Turn, ...]:
        return self._prompts.summary_turns(asked.probe, round=asked.round)

    def _written(
        self,
        wanted: Sequence[tuple[Callable[[Assignment], tuple[Turn, ...]], Assignment]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> list[Answer]:
        room = max_tokens or self._max_tokens
        answers: dict[int, Answer] = {}
        shrunk = {place: each for place, (_, each) in enumerate(wanted)}
        left = list(shrunk)
        while left:
            requests, again = {}, []
            for place in left:
                turns = wanted[place][0](shrunk[place])
                if self._is_too_long(turns, room):
                    answers[place] = Refusal(reason="context", message="longer than teacher.context")
                    continue
                requests[place] = Request(
                    turns=turns,
                    max_tokens=room,
                    temperature=self._temperature if temperature is None else temperature,
                    seed=self._seed(shrunk[place]),
                    sample=shrunk[place].sample,
                )
            found = self._complete(list(requests.values()))
            answers |= dict(zip(requests, found, strict=True))
            for place in left:
                answer = answers[place]
                if isinstance(answer, Refusal) and answer.reason == "context":
                    smaller = smaller_than(shrunk[place])
                    if smaller is not None:
                        shrunk[place] = smaller
                        again.append(place)
            left = again
        cut = [place for place, each in answers.items() if isinstance(each, Completion) and each.finish == "length"]
        longer = [
            Request(
                turns=wanted[place][0](shrunk[place]),
                max_tokens=2 * room,
                temperature=self._temperature if temperature is None else temperature,
                seed=self._seed(shrunk[place]),
                sample=shrunk[place].sample,
            )
            for place in cut
        ]
        for place, answer in zip(cut, self._complete(longer), strict=True):
            # A server that cannot give more room has answered already.
            answers[place] = answer if isinstance(answer, Completion) else answers[place]
        return [answers[place] for place in range(len(wanted))]

    def _complete(self, requests: Sequence[Request]) -> list[Answer]:
        wanted = {request.key(self.name): request for request in requests}
        known = {key: self._ledger.answer(self.name, request) for key, request in wanted.items()}
        missing = [request for key, request in wanted.items() if known[key] is None]
        while missing:
            self._ledger.check(self._budget)
            count = self._unwatched()
            group, missing = missing[:count], missing[count:]
            for request, answer in zip(group, self._teacher.complete(group), strict=True):
                # A teacher over HTTP has recorded it already, and the first record stays.
                self._ledger.record(self.name, request, answer, stage=self._stage)
                known[request.key(self.name)] = answer
        answers = [known[request.key(self.name)] for request in requests]
        assert all(answer is not None for answer in answers), "every request that was missing was asked"
        return [answer for answer in answers if answer is not None]

    def _unwatched(self) -> int:
        """How many calls may be made before the budget is looked at again."""
        if self._budget == Budget():
            return _TOGETHER
        if self._budget.calls is None:
            return _UNWATCHED
        return min(_UNWATCHED, self._budget.calls - self._ledger.spent().calls)

    def _seed(self, asked: Assignment) -> int:
        return self._seeds.child("teacher", asked.item.id, asked.round, asked.sample).integer() % 2**31

    def _is_too_long(self, turns: Sequence[Turn], room: int) -> bool:
        letters = sum(len(turn.content) for turn in turns)
        return self._context is not None and letters / _LETTERS_A_TOKEN + room > self._context


def smaller_than(asked: Assignment) -> Assignment | None:
    """The assignment with less in it; None where nothing is left to leave out.

    In this order: earlier attempts of the question and of the probe, half of the probe, the summary, the last attempt.
    """
    has_history = len(asked.attempts) > 1 or any(
        len(one.attempts) > 1 or len(one.rationales) > 1 for one in asked.probe
    )
    if has_history:
        probe = tuple(replace(one, attempts=one.attempts[-1:], rationales=one.rationales[-1:]) for one in asked.probe)
        return replace(asked, attempts=asked.attempts[-1:], probe=probe)
    if asked.probe:
        return replace(asked, probe=asked.probe[: len(asked.probe) // 2])
    if asked.summary:
        return replace(asked, summary="")
    if asked.attempts:
        return replace(asked, attempts=())
    return None


class NotRecorded(CheckpointError):
    """A call that a ledger does not hold."""


class RecordedTeacher:
    """The answers of a ledger and nothing else: what a replay asks in the place of the teacher of this name."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self._name, self._ledger = name, ledger

    @property
    def name(self) -> str:
        """The recorded teacher's, so that its calls are found."""
        return self._name

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """Raises `NotRecorded` for a request that was never made."""
        answers = [self._ledger.answer(self._name, request) for request in requests]
        missing = sum(answer is None for answer in answers)
        if missing:
            raise NotRecorded(
                f"{missing} of {len(requests)} calls of '{self._name}' are not in {self._ledger.path}\n"
                "  a replay asks nobody; were the prompts, the recipe or Limbeck changed since the run?"
            )
        return [answer for answer in answers if answer is not None]
