"""Revision of what real (random) models draw: in float64, where neither padding nor company may change a token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from limbeck.models.decoders import CausalDecoder
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.records import EncodedRow
from limbeck.revision import SCRG, Revision, Viewer, gather_evidence
from limbeck.seeds import RowNoise, Seeds
from limbeck.sequences import Rollouts, Student
from limbeck.testing import tiny_pair
from limbeck.types import Sequences, pack_rows
from reference import revision as reference

ITEMS = tuple(
    (
        (0, index),
        EncodedRow(
            id=str(index),
            prompt=(257, *range(65, 67 + 3 * index)),
            tokens=(257, *range(65, 67 + 3 * index), 90, 260),
            is_response=(*[False] * (3 + 3 * index), True, True),
        ),
    )
    for index in range(5)
)
PAIRS = pytest.mark.parametrize("pair", [("llama", None), ("gemma3", "gpt2"), ("opt", "qwen3")], indirect=True)


@cache
def _exact_pair(architecture: str, teacher_architecture: str | None) -> Pair:
    pair = tiny_pair(architecture, teacher_architecture=teacher_architecture)
    assert pair.teacher is not None
    pair.student.double()
    pair.teacher.double()
    return pair


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    return _exact_pair(*request.param)


def _student(pair: Pair) -> CausalDecoder:
    return CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary))


def _teacher(pair: Pair) -> Scorer:
    assert pair.teacher is not None
    return Scorer.of(pair.teacher, vocabulary=pair.vocabulary)


def _rollouts(pair: Pair, **changed: Any) -> Rollouts:
    rollouts = Rollouts(
        decoder=_student(pair),
        sampling=Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student)),
        max_new_tokens=10,
        max_length=64,
        group_rows=2,
        pad_id=pair.pad_id,
        seeds=Seeds(5),
        device=torch.device("cpu"),
    )
    return dataclasses.replace(rollouts, **changed)


def _drawn(pair: Pair) -> Sequences:
    return Student().draw(ITEMS, rollouts=_rollouts(pair), step=1)


def _revise(pair: Pair, drawn: Sequences, *, scrg: SCRG | None = None, chunk: int = 7, **changed: Any) -> Revision:
    rollouts = _rollouts(pair, **changed)
    assert isinstance(rollouts.decoder, Viewer)
    return (scrg or SCRG()).revise(
        drawn, rollouts=rollouts, student=rollouts.decoder, teacher=_teacher(pair), chunk=chunk
    )


def _rows(sequences: Sequences) -> list[list[int]]:
    return [row[:length] for row, length in zip(sequences.tokens.tolist(), sequences.lengths.tolist(), strict=True)]


def _script(model: Any, width: int) -> Callable[[tuple[int, ...]], list[float]]:
    @torch.no_grad()
    def script(prefix: tuple[int, ...]) -> list[float]:
        logits = model(torch.tensor([prefix])).logits[0, -1, :width]
        return [float(probability) for probability in torch.softmax(logits, dim=-1)]

    return script


@PAIRS
@pytest.mark.parametrize("scrg", [SCRG(), SCRG(greedy=True), SCRG(rounds=2)])
def test_revision_is_that_of_the_loops_over_plain_transformers(pair: Pair, scrg: SCRG) -> None:
    drawn = _drawn(pair)
    revision = _revise(pair, drawn, scrg=scrg)
    assert drawn.limits is not None
    steps = []
    for row, key in enumerate(drawn.keys):

        def noise(purpose: str, number: int, position: int, key: Any = key) -> float:
            return float(RowNoise([Seeds(5).child(purpose, number, *key)]).at([0], [position])[0])

        outcome = reference.scrg(
            _rows(drawn)[row],
            begins=int(drawn.prompt_lengths[row]),
            limit=drawn.limits[row],
            student=_script(pair.student, pair.vocabulary.width),
            teacher=_script(pair.teacher, pair.vocabulary.width),
            teacher_noise=None if scrg.greedy else lambda n, i, noise=noise: noise("teacher-token", n, i),
            redraw_noise=lambda n, i, noise=noise: noise("redraw", n, i),
            stop_ids=pair.stop_ids,
            rounds=scrg.rounds,
        )
        assert _rows(revision.sequences)[row] == outcome.row
        steps += [(row, *step) for step in outcome.steps]
    assert sorted((each.row, each.round, each.position, each.teacher_token) for each in revision.corrections) == steps
    assert len(steps) >= len(drawn)


@PAIRS
def test_a_row_is_revised_alike_alone_in_any_order_and_however_wide_the_padding(pair: Pair) -> None:
    drawn = _drawn(pair)
    together = _revise(pair, drawn, group_rows=5)
    order = [3, 0, 4, 1, 2]
    moved = _revise(pair, drawn.rows(order), chunk=1, group_rows=3)
    for place, row in enumerate(order):
        alone = _revise(pair, drawn.rows([row]))
        assert _rows(alone.sequences)[0] == _rows(moved.sequences)[place] == _rows(together.sequences)[row]
        expected = [each for each in together.corrections if each.row == row]
        for revision, index in ((alone, 0), (moved, place)):
            found = [each for each in revision.corrections if each.row == index]
            assert [dataclasses.replace(each, row=row, kl=0.0) for each in found] == [
                dataclasses.replace(each, kl=0.0) for each in expected
            ]
            assert [each.kl for each in found] == pytest.approx([each.kl for each in expected], rel=1e-5)
    rows = _rows(drawn)
    flags = [drawn.is_response[row, : len(tokens)].tolist() for row, tokens in enumerate(rows)]
    wider = pack_rows(
        [*rows, [1] * 50],
        [*flags, [False] * 50],
        origin=[*drawn.origin, "student"],
        keys=[*drawn.keys, (9, 9)],
        pad_id=17,
        limits=[*(drawn.limits or ()), 50],
    )
    assert _rows(_revise(pair, wider, group_rows=6).sequences)[:5] == _rows(together.sequences)


@PAIRS
def test_evidence_is_in_the_shared_vocabulary_and_the_same_from_scorer_and_decoder(pair: Pair) -> None:
    drawn = _drawn(pair)
    settings: dict[str, Any] = {
        "teacher": _teacher(pair),
        "noise": None,
        "stop_ids": pair.stop_ids,
        "chunk": 5,
        "group_rows": 2,
        "device": torch.device("cpu"),
    }
    by_decoder = gather_evidence(drawn, student=_student(pair), **settings)
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    by_scorer = gather_evidence(drawn, student=scorer, **settings)
    assert torch.equal(by_decoder.kl_student_teacher, by_scorer.kl_student_teacher)
    assert int(by_decoder.teacher_token.max()) < pair.vocabulary.size
    for n in (0, len(by_decoder) - 1):
        prefix = tuple(_rows(drawn)[int(by_decoder.row[n])][: int(by_decoder.position[n])])
        p = torch.tensor(_script(pair.teacher, pair.vocabulary.width)(prefix), dtype=torch.float64)
        q = torch.tensor(_script(pair.student, pair.vocabulary.width)(prefix), dtype=torch.float64)
        assert float(by_decoder.kl_student_teacher[n]) == pytest.approx(float((q * (q / p).log()).sum()), rel=1e-5)
        assert float(by_decoder.kl_teacher_student[n]) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)


@PAIRS
def test_models_that_agree_leave_almost_nothing_to_a_greedy_teacher(pair: Pair) -> None:
    greedy = Sampling(temperature=0.0, stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student))
    drawn = Student().draw(ITEMS, rollouts=_rollouts(pair, sampling=greedy), step=1)
    rollouts = _rollouts(pair, sampling=greedy)
    own = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    revision = SCRG(greedy=True).revise(drawn, rollouts=rollouts, student=own, teacher=own, chunk=4)
    assert revision.sequences is drawn
    assert revision.measures.mismatches == 0
    assert abs(revision.measures.kl) < 1e-9
