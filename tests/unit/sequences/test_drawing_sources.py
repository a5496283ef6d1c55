from __future__ import annotations

import pytest
import torch

from limbeck.models.decoders import CausalDecoder
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences import Fixed, Mixture, Rollouts, Student
from limbeck.sequences.source import Item
from limbeck.testing import tiny_pair

ITEMS: tuple[Item, ...] = tuple(
    (
        (0, index),
        EncodedRow(
            id=str(index),
            prompt=tuple(range(65, 68 + index)),
            tokens=(*range(65, 68 + index), 90, 260),
            is_response=(*[False] * (3 + index), True, True),
        ),
    )
    for index in range(5)
)


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    pair = tiny_pair()
    return Rollouts(
        decoder=CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary)),
        sampling=Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student)),
        max_new_tokens=6,
        max_length=64,
        group_rows=2,
        pad_id=pair.pad_id,
        seeds=Seeds(5),
        device=torch.device("cpu"),
    )


def test_all_rows_of_a_step_come_from_one_source_by_the_steps_coin(rollouts: Rollouts) -> None:
    mixture = Mixture(Student(), Fixed(), 0.25)
    chosen = [mixture.chosen(step, seeds=rollouts.seeds) for step in range(1, 2001)]
    assert abs(sum(isinstance(source, Student) for source in chosen) / 2000 - 0.25) < 0.04
    assert chosen == [mixture.chosen(step, seeds=rollouts.seeds) for step in range(1, 2001)]
    for step in (chosen.index(Student()) + 1, chosen.index(Fixed()) + 1):
        origins = {mixture.draw(items, rollouts=rollouts, step=step).origin for items in (ITEMS, ITEMS[1:3])}
        assert origins in ({("student",) * 5, ("student",) * 2}, {("reference",) * 5, ("reference",) * 2})


@pytest.mark.parametrize(("share", "source"), [(0.0, Fixed()), (1.0, Student())])
def test_a_share_of_nothing_or_all_leaves_one_source(rollouts: Rollouts, share: float, source: object) -> None:
    mixture = Mixture(Student(), Fixed(), share)
    assert all(mixture.chosen(step, seeds=rollouts.seeds) == source for step in range(500))


def test_a_students_rows_are_its_own_continuations_of_the_prompts(rollouts: Rollouts) -> None:
    drawn = Student().draw(ITEMS, rollouts=rollouts, step=1)
    assert drawn.keys == tuple(key for key, _ in ITEMS)
    for row, (_, item) in enumerate(ITEMS):
        length = int(drawn.lengths[row])
        begins = len(item.prompt)
        assert drawn.tokens[row, :begins].tolist() == list(item.prompt)
        assert drawn.is_response[row, :length].tolist() == [False] * begins + [True] * (length - begins)
        assert 1 <= length - begins <= 6


def test_a_row_draws_alike_alone_and_a_horizon_cuts_it_short(rollouts: Rollouts) -> None:
    whole = Student().draw(ITEMS, rollouts=rollouts, step=1)
    short = Student(horizon=2).draw(ITEMS[3:], rollouts=rollouts, step=9)
    for row, (_, item) in enumerate(ITEMS[3:]):
        begins = len(item.prompt)
        expected = whole.tokens[row + 3, begins : int(whole.lengths[row + 3])].tolist()[:2]
        assert short.tokens[row, begins : int(short.lengths[row])].tolist() == expected
