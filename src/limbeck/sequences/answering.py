"""The teacher answers the training prompts: what is missing in the cache is drawn, group after group, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from limbeck.errors import DataError
from limbeck.models.sampling import Sampling
from limbeck.models.turns import UNIT_TURNS
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences.answer_cache import Answer, AnswerCache, prompt_hash
from limbeck.sequences.building import Written
from limbeck.sequences.source import Item, Rollouts
from limbeck.sequences.teacher import TeacherWritten

# Rows that are sorted by length before they are grouped: groups are even, and a longer run has the same ones.
_WINDOW_GROUPS = 16
_SECONDS = 30.0


@runtime_checkable
class Reading(Protocol):
    """How a teacher reads the student's rows, and how the student reads its answers."""

    @property
    def name(self) -> str:
        """What is read, for the cache: the student's tokens, or a template of the teacher's own."""
        ...

    def prompt(self, row: EncodedRow) -> tuple[int, ...]:
        """The prompt in the teacher's ids."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """The teacher's ids as text, without those that end an answer."""
        ...

    def learned(self, row: EncodedRow, answer: Answer) -> EncodedRow:
        """The student's prompt with this answer; one that was cut has no end-of-turn token."""
        ...


@dataclass(frozen=True, kw_only=True)
class Author:
    """A teacher that writes: what it draws with, how it reads, and what tells it from others.

    `rollouts` holds the decoder, the stop ids and the limits; its temperature and seeds are not the answers'.
    """

    rollouts: Rollouts
    reading: Reading
    identity: Mapping[str, Any]

    def asked(self, source: TeacherWritten) -> dict[str, Any]:
        """Everything that an answer depends on, besides its prompt."""
        rollouts = self.rollouts
        return {
            "teacher": dict(self.identity),
            "template": self.reading.name,
            "sampling": {
                "temperature": source.temperature,
                "top_p": source.top_p,
                "top_k": source.top_k,
                "max_new_tokens": rollouts.max_new_tokens,
                "max_length": rollouts.max_length,
                "stop_ids": sorted(rollouts.sampling.stop_ids),
                # A vocabulary's whole padding would be thousands of numbers.
                "banned_ids": prompt_hash(sorted(rollouts.sampling.banned_ids)),
            },
        }


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of the writing is this process's; `gather` gives the rows of all ranks, and every rank calls it."""

    rank: int
    ranks: int
    gather: Callable[[list[Any]], list[Any]]


def write_answers(
    source: TeacherWritten,
    *,
    author: Author,
    rows: Sequence[EncodedRow],
    cache: AnswerCache,
    share: Share,
    note: Callable[[str], None],
) -> Written:
    """The rows with the teacher's answers, by the student's prompt; what the cache lacks is drawn and kept there.

    Rows of one prompt have one answer. The noise of an answer is `Seeds(0).child("teacher-written", hash of the
    prompt)`. Every rank calls it and gets the same answers: the first one reads the cache, and each writes its groups.
    Groups are made of what is missing in windows of the rows' own order, so that a killed run goes on with the groups
    that it would have drawn, and a longer one has the same, but for one of few rows. Raises `DataError` for a prompt
    that leaves no room, and what the cache raises.
    """
    asked = {row.prompt: author.reading.prompt(row) for row in rows}
    hashes = {prompt: prompt_hash(tokens) for prompt, tokens in asked.items()}
    wanted = dict.fromkeys(hashes.values())
    # Read on every rank, so that a damaged file is an error on all of them; what counts is what the first one saw.
    found = cache.read()
    seen = [found[hash] for hash in wanted if hash in found] if share.rank == 0 else []
    known = {each.prompt: each for each in share.gather(seen)}
    tokens_of = {hashes[prompt]: tokens for prompt, tokens in asked.items()}
    groups = _groups(tokens_of, known=known, group_rows=author.rollouts.group_rows, ranks=share.ranks)
    progress = _Progress(missing=sum(map(len, groups)), rows=len(wanted), cache=cache, note=note)
    rollouts = _rollouts(source, author)
    own: list[Answer] = []
    for group in groups[share.rank :: share.ranks]:
        drawn = _drawn(group, tokens_of, rollouts=rollouts, reading=author.reading)
        own += cache.add(drawn)
        progress.wrote(len(group) * share.ranks)
    known |= {each.prompt: each for each in share.gather(own)}
    first = {row.prompt: row for row in reversed(rows)}
    return {prompt: author.reading.learned(first[prompt], known[hash]) for prompt, hash in hashes.items()}


def _groups(
    tokens_of: Mapping[str, tuple[int, ...]], *, known: Mapping[str, Answer], group_rows: int, ranks: int
) -> list[list[str]]:
    """What is missing in groups of prompts of similar length, longest first within a window.

    A group holds more rows than are decoded at a time, as long as all ranks have one.
    """
    hashes, size = list(tokens_of), _WINDOW_GROUPS * group_rows
    group_rows *= max(1, min(UNIT_TURNS, len(hashes) // (group_rows * ranks)))
    groups: list[list[str]] = []
    for first in range(0, len(hashes), size):
        missing = [hash for hash in hashes[first : first + size] if hash not in known]
        missing.sort(key=lambda hash: -len(tokens_of[hash]))
        groups += [missing[place : place + group_rows] for place in range(0, len(missing), group_rows)]
    return groups


def _rollouts(source: TeacherWritten, author: Author) -> Rollouts:
    given = author.rollouts.sampling
    sampling = Sampling(
        temperature=source.temperature,
        top_p=source.top_p,
        top_k=source.top_k,
        stop_ids=given.stop_ids,
        banned_ids=given.banned_ids,
    )
    return replace(author.rollouts, sampling=sampling, seeds=Seeds(0), state=None)


def _drawn(
    group: Sequence[str], tokens_of: Mapping[str, tuple[int, ...]], *, rollouts: Rollouts, reading: Reading
) -> list[Answer]:
    items: list[Item] = []
    for hash in group:
        prompt = tokens_of[hash]
        if len(prompt) >= rollouts.max_length:
            raise DataError(
                f"a prompt is {len(prompt)} tokens long for the teacher, which reads {rollouts.max_length} with its "
                f"answer:\n  {reading.text(prompt)[:80]!r}\n  lower data.max_prompt, or set data.long_prompt=cut"
            )
        items.append(((hash,), EncodedRow(id=hash, prompt=prompt, tokens=prompt, is_response=(False,) * len(prompt))))
    sequences = rollouts.student(items, purpose="teacher-written")
    answers = []
    for row, hash in enumerate(group):
        tokens = sequences.tokens[row, len(tokens_of[hash]) : int(sequences.lengths[row])].tolist()
        stopped = bool(tokens) and tokens[-1] in rollouts.sampling.stop_ids
        text = reading.text(tokens[:-1] if stopped else tokens)
        answers.append(Answer(prompt=hash, text=text, tokens=tuple(tokens), stopped=stopped))
    return answers


class _Progress:
    """A line at the start, now and then, and at the end."""

    def __init__(self, *, missing: int, rows: int, cache: AnswerCache, note: Callable[[str], None]) -> None:
        self._missing, self._note = missing, note
        self._done, self._started = 0, time.monotonic()
        self._said = self._started
        there = f"{rows - missing:,} of {rows:,} are in {cache.path}"
        note(f"the teacher's answers: {there}" + (f"; {missing:,} are written now" if missing else ""))

    def wrote(self, count: int) -> None:
        self._done = min(self._missing, self._done + count)
        now = time.monotonic()
        if now - self._said < _SECONDS and self._done < self._missing:
            return
        left = (now - self._started) / self._done * (self._missing - self._done)
        self._note(f"the teacher's answers: {self._done:,} of {self._missing:,} written, {left:.0f} s left")
        self._said = now
