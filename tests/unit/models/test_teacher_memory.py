"""Detection's reading serves the training pass: the same numbers, and only what has changed is read again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.losses.views import HiddenView
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.models.teacher_memory import TeacherMemory
from limbeck.testing import ARCHITECTURES, tiny_pair
from limbeck.types import Sequences, pack_rows

PLAIN = [name for name in ARCHITECTURES if "gemma" not in name]
PROMPTS = [[257, 72, 73, 74], [257, 80], [257, *range(90, 104)]]
RESPONSES = [[65, 66, 67, 68, 69, 258], [70, 71, 72], list(range(40, 62))]


def _rows(responses: list[list[int]], chosen: tuple[int, ...] = (0, 1, 2)) -> Sequences:
    return pack_rows(
        [[*PROMPTS[row], *responses[row]] for row in chosen],
        [[False] * len(PROMPTS[row]) + [True] * len(responses[row]) for row in chosen],
        origin=["student"] * len(chosen),
        keys=[(0, row) for row in chosen],
        pad_id=256,
    )


def _revised() -> list[list[int]]:
    """Row 0 changes at its third token and row 2 at its tenth; row 1 stays."""
    return [[65, 66, 90, 91, 92, 93, 94, 258], RESPONSES[1], [*RESPONSES[2][:9], 100, 101, 102]]


def _scorer(architecture: str) -> Scorer:
    pair = tiny_pair(architecture)
    return Scorer.of(pair.teacher, vocabulary=pair.vocabulary)


def _close(found: Any, expected: HiddenView) -> bool:
    return torch.allclose(found.hidden, expected.hidden, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_corrected_row_is_read_from_its_correction_on(architecture: str) -> None:
    scorer = _scorer(architecture)
    memory = TeacherMemory(scorer)
    drawn, revised = _rows(RESPONSES), _rows(_revised())
    where = scored_tokens(drawn)
    assert _close(memory.view(drawn, where), scorer.view(drawn, where))
    assert memory.columns_read == drawn.tokens.numel()
    memory.columns_read = 0
    assert _close(memory.read(revised), scorer.view(revised, scored_tokens(revised)))
    # Two rows are read: six tokens of row 0 and three of row 2; or both from their beginning.
    assert memory.columns_read == 2 * (6 if architecture in PLAIN else len(PROMPTS[2]) + 12)
    memory.columns_read = 0
    parts = [_rows(_revised(), chosen) for chosen in ((2, 1), (1,))]
    for part in parts:
        assert _close(memory.read(part), scorer.view(part, scored_tokens(part)))
    assert memory.columns_read == (3 if architecture in PLAIN else len(PROMPTS[2]) + 12)


def test_a_second_look_reads_what_the_first_correction_changed() -> None:
    scorer = _scorer("llama")
    memory = TeacherMemory(scorer)
    drawn, revised = _rows(RESPONSES), _rows(_revised())
    memory.view(drawn, scored_tokens(drawn))
    memory.view(revised, scored_tokens(revised))
    memory.columns_read = 0
    again = _revised()
    again[0][4:] = [30, 31, 32]
    last = _rows(again)
    assert _close(memory.view(last, scored_tokens(last)), scorer.view(last, scored_tokens(last)))
    assert memory.columns_read == 3
    assert _close(memory.read(last), scorer.view(last, scored_tokens(last)))
    assert memory.columns_read == 3


def test_rows_that_nobody_read_are_read_as_a_scorer_does() -> None:
    scorer = _scorer("gpt2")
    memory = TeacherMemory(scorer)
    drawn = _rows(RESPONSES)
    found = memory.read(drawn)
    assert torch.equal(found.hidden, scorer.view(drawn, scored_tokens(drawn)).hidden)
    assert len(memory) == 0
    memory.view(_rows(RESPONSES, (0,)), scored_tokens(_rows(RESPONSES, (0,))))
    memory.columns_read = 0
    assert _close(memory.read(drawn), scorer.view(drawn, scored_tokens(drawn)))
    assert memory.columns_read == 2 * drawn.tokens.shape[1]


def test_keys_and_values_beyond_the_limit_are_computed_again() -> None:
    scorer = _scorer("llama")
    memory = TeacherMemory(scorer, most_bytes=0)
    drawn, revised = _rows(RESPONSES), _rows(_revised())
    memory.view(drawn, scored_tokens(drawn))
    memory.columns_read = 0
    assert _close(memory.read(drawn), scorer.view(drawn, scored_tokens(drawn)))
    assert memory.columns_read == 0
    assert _close(memory.read(revised), scorer.view(revised, scored_tokens(revised)))
    assert memory.columns_read == 2 * (len(PROMPTS[2]) + 12)


def test_learned_positions_end_where_the_context_does() -> None:
    """A row up to the last position beside a shorter one: its padding asks for no position that is not there."""
    scorer = _scorer("gpt2")
    context = int(scorer.model.config.n_positions)
    long = [*range(60, 90)] * 9
    rows = [long[: context - len(PROMPTS[0])], [70, 71], RESPONSES[2]]
    drawn = _rows(rows)
    memory = TeacherMemory(scorer)
    memory.view(drawn, scored_tokens(drawn))
    rows = [[*rows[0][:4], *[33] * (len(rows[0]) - 4)], [70, 34], RESPONSES[2]]
    revised = _rows(rows)
    assert _close(memory.read(revised), scorer.view(revised, scored_tokens(revised)))
