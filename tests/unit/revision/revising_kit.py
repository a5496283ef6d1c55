"""Rows of two prompt tokens, a student that says 1 for ever, and teachers that differ where they are told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limbeck.revision import SCRG, Revision
from limbeck.sequences import Rollouts
from limbeck.testing import ScriptedModel, peaked, scripted_rollouts
from limbeck.testing.scripted import Script
from limbeck.types import Sequences, pack_rows

V, STOP = 5, 4
PROMPT = [0, 0]


def model(script: Script) -> ScriptedModel:
    return ScriptedModel(script, vocab_size=V)


def ones() -> ScriptedModel:
    """A student that goes on and on with 1."""
    return model(lambda prefix: peaked(1, 0.9, vocab_size=V))


def differing(**at: tuple[int, float]) -> ScriptedModel:
    """A teacher that agrees with `ones` but at these places of the response: `_2=(3, 0.9)` says 3 at place 2."""
    places = {len(PROMPT) + int(place.removeprefix("_")): says for place, says in at.items()}
    return model(lambda prefix: peaked(*places.get(len(prefix), (1, 0.9)), vocab_size=V))


def pack(responses: Sequence[Sequence[int]], **changed: Any) -> Sequences:
    named: dict[str, Any] = {
        "origin": ["student"] * len(responses),
        "keys": [(0, row) for row in range(len(responses))],
        "pad_id": 0,
        **changed,
    }
    flags = [[False] * len(PROMPT) + [True] * len(response) for response in responses]
    return pack_rows([[*PROMPT, *response] for response in responses], flags, **named)


def rollouts_of(student: ScriptedModel, **changed: Any) -> Rollouts:
    settings: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": frozenset({STOP}), "temperature": 0.0, **changed}
    return scripted_rollouts(student, **settings)


def revise(drawn: Sequences, student: ScriptedModel, teacher: ScriptedModel, **changed: Any) -> Revision:
    named = {"detector", "rounds", "greedy"}
    scrg = SCRG(**{"greedy": True, **{key: value for key, value in changed.items() if key in named}})
    rollouts = rollouts_of(student, **{key: value for key, value in changed.items() if key not in named})
    return scrg.revise(drawn, rollouts=rollouts, student=student, teacher=teacher, chunk=3)


def responses_of(sequences: Sequences) -> list[list[int]]:
    lengths = sequences.lengths.tolist()
    for row, length in enumerate(lengths):
        flags = [False] * len(PROMPT) + [True] * (length - len(PROMPT))
        assert sequences.is_response[row, :length].tolist() == flags
        assert not sequences.is_response[row, length:].any()
        assert sequences.tokens[row, : len(PROMPT)].tolist() == PROMPT
    return [sequences.tokens[row, len(PROMPT) : length].tolist() for row, length in enumerate(lengths)]
