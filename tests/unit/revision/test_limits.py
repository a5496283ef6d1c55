"""How long a row may be drawn: what a draw knows is kept until the row is drawn again."""

from __future__ import annotations

import pytest
import torch

from limbeck.models.extending import extend
from limbeck.models.sampling import Sampling
from limbeck.records import EncodedRow
from limbeck.seeds import RowNoise, Seeds
from limbeck.sequences import Student
from limbeck.testing import ScriptedModel, peaked, random_script, scripted_rollouts
from limbeck.types import Sequences, pack_rows

ITEMS = tuple(
    ((0, index), EncodedRow(id=str(index), prompt=(1,) * (index + 1), tokens=(1,), is_response=(False,)))
    for index in range(4)
)


def _packed(limits: list[int] | None) -> Sequences:
    flags = [[False, True, True], [False, True]]
    return pack_rows([[5, 6, 7], [8, 9]], flags, origin=["student"] * 2, keys=[(0,), (1,)], pad_id=0, limits=limits)


def test_limits_go_with_their_rows() -> None:
    assert _packed(None).limits is None
    assert _packed(None).rows([1]).limits is None
    assert _packed([9, 4]).rows([1, 0, 1]).limits == (4, 9, 4)
    assert _packed([9, 4]).to("cpu").limits == (9, 4)
    with pytest.raises(AssertionError, match="one limit a row"):
        _packed([9])


@pytest.mark.parametrize(("horizon", "limits"), [(None, (6, 7, 7, 7)), (2, (3, 4, 5, 6)), (100, (6, 7, 7, 7))])
def test_a_student_draws_up_to_the_limit_it_writes_down(horizon: int | None, limits: tuple[int, ...]) -> None:
    endless = ScriptedModel(lambda prefix: peaked(1, 0.9, vocab_size=3), vocab_size=3)
    rollouts = scripted_rollouts(endless, max_new_tokens=5, max_length=7, group_rows=3)
    drawn = Student(horizon=horizon).draw(ITEMS, rollouts=rollouts, step=1)
    assert drawn.limits == limits
    assert tuple(drawn.lengths.tolist()) == limits


def test_an_extension_keeps_them() -> None:
    model = ScriptedModel(random_script(0, vocab_size=12), vocab_size=12)
    for limits in (None, [9, 4]):
        extension = extend(
            model,
            _packed(limits),
            start=torch.tensor([2, 2]),
            limit=torch.tensor([9, 4]),
            rows=torch.tensor([True, False]),
            sampling=Sampling(),
            noise=RowNoise([Seeds(0).child(row) for row in range(2)]),
        )
        assert extension.sequences.limits == (None if limits is None else tuple(limits))
