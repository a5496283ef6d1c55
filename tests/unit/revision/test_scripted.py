"""The scripted models that other tests believe: they draw, and read, what the script says."""

from __future__ import annotations

import torch

from limbeck.models.decoders import Decoder
from limbeck.models.extending import extend
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import scored_tokens
from limbeck.revision import Viewer
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ScriptedModel, random_script
from limbeck.types import Sequences, pack_rows
from reference.revision import token_of

V = 6
SCRIPT = random_script(3, vocab_size=V)


def _prompts() -> Sequences:
    rows = [[1, 2, 3, 4], [5], [2, 2]]
    flags = [[False] * len(row) for row in rows]
    return pack_rows(rows, flags, origin=["prompt"] * 3, keys=[(0,), (1,), (2,)], pad_id=0)


def test_rows_of_different_lengths_are_drawn_as_each_would_be_in_a_loop() -> None:
    prompts, model = _prompts(), ScriptedModel(SCRIPT, vocab_size=V)
    assert isinstance(model, Decoder)
    assert isinstance(model, Viewer)
    noise = [Seeds(1).child("draw", row) for row in range(3)]
    drawn = extend(
        model,
        prompts,
        start=prompts.lengths,
        limit=torch.tensor([9, 12, 5]),
        rows=torch.ones(3, dtype=torch.bool),
        sampling=Sampling(stop_ids=frozenset({0})),
        noise=RowNoise(noise),
    ).sequences
    for row, limit in enumerate((9, 12, 5)):
        now = prompts.tokens[row, : int(prompts.lengths[row])].tolist()
        while now[-1] != 0 and len(now) < limit:
            now.append(token_of(SCRIPT(tuple(now)), float(RowNoise([noise[row]]).at([0], [len(now)])[0])))
        assert drawn.tokens[row, : int(drawn.lengths[row])].tolist() == now
    assert model.forwards > 0


def test_rows_are_read_as_the_script_has_them() -> None:
    flags = [[False, True, True], [False, False, True]]
    rows = pack_rows([[1, 2, 3], [4, 5, 1]], flags, origin=["student"] * 2, keys=[(0,), (1,)], pad_id=0)
    model = ScriptedModel(SCRIPT, vocab_size=V)
    found = model.view(rows, scored_tokens(rows)).log_probabilities(slice(0, 3)).exp()
    expected = torch.tensor([SCRIPT((1,)), SCRIPT((1, 2)), SCRIPT((4, 5))], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert (model.views, model.forwards) == (1, 0)


def test_a_random_script_is_a_distribution_that_belongs_to_its_seed_and_prefix() -> None:
    assert random_script(3, vocab_size=V)((1, 2)) == SCRIPT((1, 2))
    assert random_script(4, vocab_size=V)((1, 2)) != SCRIPT((1, 2)) != SCRIPT((2, 1))
    assert abs(sum(SCRIPT(())) - 1) < 1e-12
