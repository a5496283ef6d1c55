"""What evidence says about each token, against sums by hand, and that it depends on nothing but the row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.losses.fused import HiddenView
from limbeck.losses.heads import Head
from limbeck.revision import Viewer, gather_evidence
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ScriptedModel, peaked, random_script
from limbeck.types import Evidence, Sequences, pack_rows
from reference import equations
from reference.revision import teacher_token

V = 7
STOP = 6
STUDENT, TEACHER = random_script(1, vocab_size=V), random_script(2, vocab_size=V, sharpness=2.0)

# Two prompt tokens; a row with two answers; one that goes on behind its stop token; one without a response.
ROWS = [[1, 2, 3, 4, 5], [1, 0, STOP, 2, 3, 3, STOP], [2, 2, 1, STOP, 3, 1], [3, 3]]
ANSWERS = [[(2, 5)], [(1, 3), (4, 7)], [(2, 6)], []]


def _pack(rows: Sequence[Sequence[int]], answers: Sequence[Sequence[tuple[int, int]]], **named: Any) -> Sequences:
    flags = [
        [any(first <= i < end for first, end in own) for i in range(len(row))]
        for row, own in zip(rows, answers, strict=True)
    ]
    keys = named.pop("keys", [(0, index) for index in range(len(rows))])
    return pack_rows(rows, flags, origin=["student"] * len(rows), keys=keys, pad_id=0)


def _noise(sequences: Sequences) -> RowNoise:
    return RowNoise([Seeds(3).child("teacher-token", 1, *key) for key in sequences.keys])


def _gather(sequences: Sequences, *, greedy: bool = False, **changed: Any) -> Evidence:
    settings: dict[str, Any] = {
        "student": ScriptedModel(STUDENT, vocab_size=V),
        "teacher": ScriptedModel(TEACHER, vocab_size=V),
        "noise": None if greedy else _noise(sequences),
        "stop_ids": {STOP},
        "chunk": 3,
        "group_rows": 2,
        "device": torch.device("cpu"),
    }
    return gather_evidence(sequences, **{**settings, **changed})


def _eligible(evidence: Evidence) -> list[tuple[int, int]]:
    places = zip(evidence.row.tolist(), evidence.position.tolist(), evidence.eligible.tolist(), strict=True)
    return [(row, position) for row, position, eligible in places if eligible]


@pytest.mark.parametrize("greedy", [False, True])
def test_every_column_by_hand(greedy: bool) -> None:
    sequences = _pack(ROWS, ANSWERS)
    evidence, noise = _gather(sequences, greedy=greedy), _noise(sequences)
    places = [(row, i) for row, own in enumerate(ANSWERS) for first, end in own for i in range(first, end)]
    assert list(zip(evidence.row.tolist(), evidence.position.tolist(), strict=True)) == places
    for n, (row, i) in enumerate(places):
        prefix, drawn = tuple(ROWS[row][:i]), ROWS[row][i]
        p, q = TEACHER(prefix), STUDENT(prefix)
        said = teacher_token(p, None if greedy else float(noise.at([row], [i])[0]))
        assert (int(evidence.drawn_token[n]), int(evidence.teacher_token[n])) == (drawn, said)
        expected = {
            "kl_student_teacher": equations.kl(q, p),
            "kl_teacher_student": equations.kl(p, q),
            "drawn_student_logp": math.log(q[drawn]),
            "drawn_teacher_logp": math.log(p[drawn]),
            "teacher_token_student_logp": math.log(q[said]),
            "teacher_token_teacher_logp": math.log(p[said]),
            "nucleus": sum(p_v for p_v in p if p_v > p[drawn]),
            "rank": sorted(p, reverse=True).index(p[drawn]),
        }
        found = {name: float(getattr(evidence, name)[n]) for name in expected}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), (row, i)


def test_numbers_are_float32_and_the_kl_is_taken_over_the_shared_vocabulary() -> None:
    class Masked(ScriptedModel):
        """Id 0 is not shared: its probability is no part of anything."""

        def view(self, sequences: Sequences, where: Any) -> HiddenView:
            whole = super().view(sequences, where)
            shared = torch.tensor([False, *[True] * (V - 1)])
            return HiddenView(hidden=whole.hidden, head=Head(weight=None, size=V, shared=shared))

    student, teacher = Masked(STUDENT, vocab_size=V), Masked(TEACHER, vocab_size=V)
    evidence = _gather(_pack(ROWS[:1], ANSWERS[:1]), student=student, teacher=teacher)
    prefix = tuple(ROWS[0][:2])
    p, q = ([value / sum(script(prefix)[1:]) for value in script(prefix)[1:]] for script in (TEACHER, STUDENT))
    assert float(evidence.kl_student_teacher[0]) == pytest.approx(equations.kl(q, p), rel=1e-5)
    assert evidence.kl_student_teacher.dtype == evidence.nucleus.dtype == torch.float32
    assert 0 not in evidence.teacher_token.tolist()


def _always(token: int) -> ScriptedModel:
    return ScriptedModel(lambda _: peaked(token, 0.9, vocab_size=V), vocab_size=V)


def test_only_generated_tokens_up_to_the_first_stop_token_are_eligible() -> None:
    evidence = _gather(_pack(ROWS, ANSWERS), teacher=_always(0), greedy=True)
    assert _eligible(evidence) == [(0, 2), (0, 3), (0, 4), (1, 4), (1, 5), (1, 6), (2, 2), (2, 3)]


def test_a_token_that_the_teacher_says_too_is_not_eligible() -> None:
    evidence = _gather(_pack([[1, 2, 0, 0, 3]], [[(2, 5)]]), teacher=_always(0), greedy=True)
    assert _eligible(evidence) == [(0, 4)]


def test_a_stop_token_is_eligible_as_correction_everywhere_but_first() -> None:
    sequences = _pack([[1, 2, 3, 4], [5, 3]], [[(2, 4)], [(1, 2)]])
    assert _eligible(_gather(sequences, teacher=_always(STOP), greedy=True)) == [(0, 3)]


def test_corrected_positions_are_out_even_beyond_the_rows_end() -> None:
    sequences = _pack([[1, 2, 3, 4], [5, 3, 3]], [[(2, 4)], [(1, 3)]])
    evidence = _gather(sequences, teacher=_always(0), greedy=True, corrected=[{2, 9}, {1}])
    assert _eligible(evidence) == [(0, 3), (1, 2)]


def test_a_broken_distribution_is_not_eligible() -> None:
    def broken(prefix: tuple[int, ...]) -> list[float]:
        return [math.nan] * V if len(prefix) == 3 else peaked(0, 0.9, vocab_size=V)

    sequences = _pack([[1, 2, 3, 4, 5]], [[(2, 5)]])
    for role in ("student", "teacher"):
        models = {"teacher": _always(0), role: ScriptedModel(broken, vocab_size=V)}
        for greedy in (True, False):
            evidence = _gather(sequences, greedy=greedy, **models)
            assert not bool(evidence.eligible[1])
            assert bool(evidence.kl_student_teacher[1].isnan())
            assert not bool(evidence.kl_student_teacher[[0, 2]].isnan().any())


@pytest.mark.parametrize(("chunk", "group_rows"), [(1, 1), (2, 3), (100, 4)])
def test_chunks_and_groups_change_nothing(chunk: int, group_rows: int) -> None:
    sequences = _pack(ROWS, ANSWERS)
    one, other = _gather(sequences), _gather(sequences, chunk=chunk, group_rows=group_rows)
    for name, column in vars(one).items():
        if name != "columns":
            torch.testing.assert_close(vars(other)[name], column, rtol=1e-6, atol=1e-7)


def test_the_order_of_the_rows_and_their_company_change_nothing() -> None:
    whole = _gather(_pack(ROWS, ANSWERS))
    order = [2, 0, 1]
    keys = [(0, row) for row in order]
    moved = _gather(_pack([ROWS[row] for row in order], [ANSWERS[row] for row in order], keys=keys))
    for place, row in enumerate(order):
        for name in ("teacher_token", "kl_student_teacher", "rank", "eligible"):
            expected = getattr(whole, name)[whole.row == row]
            torch.testing.assert_close(getattr(moved, name)[moved.row == place], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [ROWS, [[3, 3], [1], [2, 2]], [[3]] * 5])
def test_each_model_is_called_once_a_group_whatever_the_rows_hold(rows: list[list[int]]) -> None:
    answers = ANSWERS if rows is ROWS else [[] for _ in rows]
    student, teacher = ScriptedModel(STUDENT, vocab_size=V), ScriptedModel(TEACHER, vocab_size=V)
    evidence = _gather(_pack(rows, answers), student=student, teacher=teacher, group_rows=2)
    assert student.views == teacher.views == math.ceil(len(rows) / 2)
    assert len(evidence) == sum(end - first for own in answers for first, end in own)


def test_a_column_that_nothing_gathers_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"needs entropy(?s:.*)columns that exist: attention, uniform"):
        _gather(_pack(ROWS, ANSWERS), needs=("uniform", "entropy"))


def test_no_gradient_is_kept() -> None:
    weight = torch.randn(V, V, requires_grad=True)

    class Learning:
        def view(self, sequences: Sequences, where: Any) -> HiddenView:
            assert not torch.is_grad_enabled()
            return HiddenView(hidden=torch.ones(len(where), V) @ weight, head=Head(weight=weight, size=V))

    assert isinstance(Learning(), Viewer)
    evidence = _gather(_pack(ROWS, ANSWERS), student=Learning())
    assert not any(column.requires_grad for column in vars(evidence).values() if isinstance(column, torch.Tensor))
