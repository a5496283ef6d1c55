"""Agreement of student and teacher against loops over plain transformers logits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from limbeck.evaluation.agreement import COLUMNS, agreement_rows, token_values
from limbeck.evaluation.kept_teacher import KeptTeacher
from limbeck.losses.match import TokenScores
from limbeck.models.pair import Pair
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.testing import tiny_pair
from limbeck.types import Sequences, pack_rows
from reference import equations

ROWS = [[257, 72, 73, 74, 258], [257, 80, 81, 82], [257, *range(90, 104), 258], [257, 65, 66]]
FIRST = [2, 1, 9, 3]  # the last row has no response
IDS = ["a", "b", "c", "empty"]


def packed() -> Sequences:
    flags = [[i >= first for i in range(len(row))] for row, first in zip(ROWS, FIRST, strict=True)]
    return pack_rows(ROWS, flags, origin=["reference"] * 4, keys=[(id,) for id in IDS], pad_id=256)


def rows_of(pair: Pair, *, teacher: bool = True, chunk: int = 5, group_rows: int = 2) -> dict[str, dict]:
    groups = agreement_rows(
        packed(),
        student=Scorer.of(pair.student, vocabulary=pair.vocabulary),
        teacher=Scorer.of(pair.teacher, vocabulary=pair.vocabulary) if teacher else None,
        chunk=chunk,
        group_rows=group_rows,
    )
    return {row["id"]: row for group in groups for row in group}


def kept_rows(pair: Pair, folder: Path, *, group_rows: int = 2) -> list[dict]:
    assert pair.teacher is not None
    scorer = Scorer.of(pair.teacher, vocabulary=pair.vocabulary)
    groups = agreement_rows(
        packed(),
        student=Scorer.of(pair.student, vocabulary=pair.vocabulary),
        teacher=KeptTeacher(scorer, folder),
        chunk=5,
        group_rows=group_rows,
    )
    return [row for group in groups for row in group]


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_what_a_teacher_found_is_kept_and_counts_as_if_it_had_read_again(architecture: str, tmp_path: Path) -> None:
    pair = tiny_pair(architecture)
    expected = rows_of(pair)
    assert {row["id"]: row for row in kept_rows(pair, tmp_path)} == expected
    assert len(list(tmp_path.iterdir())) == 2
    # One row a group: the last has no token to be kept, and is kept.
    alone = {row["id"]: row for row in kept_rows(pair, tmp_path, group_rows=1)}
    assert alone == {row["id"]: row for row in kept_rows(pair, tmp_path, group_rows=1)}
    assert alone["empty"]["num_tokens"] == 0
    assert len(list(tmp_path.iterdir())) == 6
    assert pair.teacher is not None
    for parameter in pair.teacher.get_decoder().layers.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    assert {row["id"]: row for row in kept_rows(pair, tmp_path)} == expected
    assert {row["id"]: row for row in kept_rows(pair, tmp_path, group_rows=4)} != expected


@pytest.mark.parametrize("harm", [b"", b"{", None])
def test_a_damaged_file_of_what_a_teacher_found_is_made_again(harm: bytes | None, tmp_path: Path) -> None:
    pair = tiny_pair()
    expected = kept_rows(pair, tmp_path)
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[:-4] if harm is None else harm)
    assert kept_rows(pair, tmp_path) == expected
    assert all(path.stat().st_size > 4 for path in tmp_path.iterdir())


def test_a_teacher_that_cannot_be_split_is_read_each_time(tmp_path: Path) -> None:
    pair = tiny_pair()
    assert pair.teacher is not None
    scorer = Scorer(pair.teacher, vocabulary=pair.vocabulary, split=False)
    where = scored_tokens(packed())
    view = KeptTeacher(scorer, tmp_path).view(packed(), where)
    assert torch.equal(view.hidden, scorer.view(packed(), where).hidden)
    assert list(tmp_path.iterdir()) == []


def probabilities(model: torch.nn.Module, prefix: list[int], size: int) -> list[float]:
    """By plain transformers, over the first `size` ids, renormalised."""
    with torch.no_grad():
        return model(torch.tensor([prefix])).logits[0, -1, :size].double().softmax(-1).tolist()


def by_hand(p: list[float], q: list[float], token: int) -> dict[str, float]:
    return {
        "kl_teacher_student": equations.kl(p, q),
        "kl_student_teacher": equations.kl(q, p),
        "top1_agreement": float(p.index(max(p)) == q.index(max(q))),
        "acceptance": sum(min(p_v, q_v) for p_v, q_v in zip(p, q, strict=True)),
        "cross_entropy": -math.log(q[token]),
        "teacher_cross_entropy": -math.log(p[token]),
    }


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_rows_scores_are_the_means_over_its_tokens(architecture: str) -> None:
    pair = tiny_pair(architecture)
    assert pair.teacher is not None
    found = rows_of(pair)
    assert set(found) == set(IDS)
    for id, row, first in zip(IDS[:3], ROWS, FIRST, strict=False):
        values = []
        for place in range(first, len(row)):
            p, q = (probabilities(model, row[:place], pair.vocabulary.size) for model in (pair.teacher, pair.student))
            values.append(by_hand(p, q, row[place]))
        assert found[id]["num_tokens"] == len(values)
        assert set(found[id]["scores"]) == set(COLUMNS)
        for name in COLUMNS:
            mean = sum(value[name] for value in values) / len(values)
            assert found[id]["scores"][name] == pytest.approx(mean, rel=2e-4, abs=2e-5), (id, name)


def test_a_row_without_a_scored_token_has_no_scores() -> None:
    assert rows_of(tiny_pair())["empty"] == {"id": "empty", "num_tokens": 0, "scores": {}}


def test_a_group_without_any_scored_token_is_no_error() -> None:
    assert rows_of(tiny_pair(), group_rows=1)["empty"]["scores"] == {}


def test_without_a_teacher_there_is_cross_entropy_alone() -> None:
    found = rows_of(tiny_pair(), teacher=False)
    assert {name for row in found.values() for name in row["scores"]} == {"cross_entropy"}


@pytest.mark.parametrize(("chunk", "group_rows"), [(1, 1), (3, 4), (100, 3)])
def test_chunks_and_groups_change_nothing(chunk: int, group_rows: int) -> None:
    pair = tiny_pair()
    expected, found = rows_of(pair), rows_of(pair, chunk=chunk, group_rows=group_rows)
    for id in IDS:
        assert found[id]["scores"] == pytest.approx(expected[id]["scores"], rel=1e-4, abs=1e-5)


def test_a_teacher_that_is_the_student_agrees_everywhere() -> None:
    pair = tiny_pair()
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    (rows,) = agreement_rows(packed(), student=scorer, teacher=scorer, chunk=7, group_rows=4)
    for row in rows:
        if row["num_tokens"]:
            assert row["scores"]["top1_agreement"] == 1.0
            assert row["scores"]["acceptance"] == pytest.approx(1.0, abs=1e-6)
            assert row["scores"]["kl_teacher_student"] == pytest.approx(0.0, abs=1e-6)


def test_each_column_equals_its_formula_with_ids_that_both_leave_out() -> None:
    p, q = [0.5, 0.25, 0.25, 0.0], [0.125, 0.75, 0.125, 0.0]
    scores = TokenScores(
        student_logp=torch.tensor([q, p], dtype=torch.float64).log(),
        target_logp=torch.tensor([p, p], dtype=torch.float64).log(),
        tokens=torch.tensor([1, 0]),
    )
    values = token_values(scores)
    assert set(values) == set(COLUMNS)
    for row, expected in enumerate((by_hand(p, q, 1), by_hand(p, p, 0))):
        for name in COLUMNS:
            assert float(values[name][row]) == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


def test_disjoint_distributions_are_never_accepted() -> None:
    p, q = [1.0, 0.0], [0.0, 1.0]
    logp = [torch.tensor([row], dtype=torch.float64).log() for row in (p, q)]
    values = token_values(TokenScores(student_logp=logp[1], target_logp=logp[0], tokens=torch.tensor([1])))
    assert float(values["acceptance"]) == 0.0
    assert float(values["kl_teacher_student"]) == float(values["kl_student_teacher"]) == math.inf
