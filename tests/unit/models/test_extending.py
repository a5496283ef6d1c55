"""The sampling loop against `transformers.generate`, and what it promises about noise, limits and forced tokens."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import Extension, evaluating, extend
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ARCHITECTURES, tiny_pair
from limbeck.types import Sequences, pack_rows

PROMPTS = [[257, 72, 73, 74], [257, 80], [257, *range(90, 120)], [257, 65, 66]]


def _pack(prompts: list[list[int]]) -> Sequences:
    keys = [(0, index) for index in range(len(prompts))]
    flags = [[False] * len(prompt) for prompt in prompts]
    return pack_rows(prompts, flags, origin=["prompt"] * len(prompts), keys=keys, pad_id=256)


def _decoder(pair) -> CausalDecoder:
    return CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary))


def _noise(count: int, root: int = 0) -> RowNoise:
    return RowNoise([Seeds(root).child("draw", row) for row in range(count)])


def _draw(
    pair, prompts=PROMPTS, *, new: int = 20, sampling: Sampling | None = None, noise=None, **options
) -> Extension:
    sequences = _pack(prompts)
    return extend(
        _decoder(pair),
        sequences,
        start=options.pop("start", sequences.lengths),
        limit=options.pop("limit", sequences.lengths + new),
        rows=options.pop("rows", torch.ones(len(prompts), dtype=torch.bool)),
        sampling=sampling or Sampling(temperature=0.0, stop_ids=pair.stop_ids),
        noise=noise or _noise(len(prompts)),
        **options,
    )


def _row(extension: Extension, row: int) -> list[int]:
    return extension.sequences.tokens[row, : int(extension.sequences.lengths[row])].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_equals_generate_row_by_row(architecture: str) -> None:
    pair = tiny_pair(architecture)
    banned = list(pair.vocabulary.dropped_student)
    extension = _draw(pair)
    for row, prompt in enumerate(PROMPTS):
        expected = pair.student.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=sorted(pair.stop_ids),
            pad_token_id=256,
            suppress_tokens=banned,
        )[0].tolist()
        assert _row(extension, row) == expected
        assert bool(extension.stopped[row]) == (expected[-1] in pair.stop_ids)


def test_ngram_ban_equals_generate() -> None:
    pair = tiny_pair("gpt2", seed=3)
    prompt = [257, 72, 73, 72, 73, 72]
    sampling = Sampling(temperature=0.0, no_repeat_ngram=2, banned_ids=frozenset(pair.stop_ids))
    extension = _draw(pair, [prompt], sampling=sampling, new=30)
    expected = pair.student.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=30,
        do_sample=False,
        no_repeat_ngram_size=2,
        pad_token_id=256,
        eos_token_id=None,
        suppress_tokens=sorted({*pair.vocabulary.dropped_student, *pair.stop_ids}),
    )[0].tolist()
    assert _row(extension, 0) == expected
    pairs = list(pairwise(expected))
    assert max(Counter(pairs[6:]).values()) == 1


def test_a_rows_noise_does_not_depend_on_its_batch() -> None:
    pair = tiny_pair()
    sampling = Sampling(stop_ids=pair.stop_ids)
    together = _draw(pair, sampling=sampling)
    for row, prompt in enumerate(PROMPTS):
        noise = RowNoise([Seeds(0).child("draw", row)])
        alone = _draw(pair, [prompt], sampling=sampling, noise=noise)
        assert _row(alone, 0) == _row(together, row)


def test_drawn_tokens_are_responses_of_the_student_and_prompts_are_not() -> None:
    pair = tiny_pair()
    extension = _draw(pair, sampling=Sampling(stop_ids=pair.stop_ids))
    sequences = extension.sequences
    assert set(sequences.origin) == {"student"}
    for row, prompt in enumerate(PROMPTS):
        length = int(sequences.lengths[row])
        assert sequences.is_response[row, : len(prompt)].sum() == 0
        assert bool(sequences.is_response[row, len(prompt) : length].all())
        assert sequences.is_response[row, length:].sum() == 0
    assert sequences.keys == tuple((0, row) for row in range(len(PROMPTS)))


def test_rows_that_are_not_chosen_come_back_as_they_were() -> None:
    pair = tiny_pair()
    rows = torch.tensor([True, False, True, False])
    extension = _draw(pair, rows=rows)
    assert _row(extension, 1) == PROMPTS[1]
    assert _row(extension, 3) == PROMPTS[3]
    assert extension.sequences.origin == ("student", "prompt", "student", "prompt")


def test_a_forced_token_stands_at_start_and_the_rest_is_drawn_again() -> None:
    pair = tiny_pair()
    first = _draw(pair, new=12, sampling=Sampling(stop_ids=frozenset()))
    start = torch.tensor([len(prompt) + 3 for prompt in PROMPTS])
    limit = torch.tensor([len(prompt) + 12 for prompt in PROMPTS])
    forced = torch.tensor([99, 98, 97, 96])
    again = extend(
        _decoder(pair),
        first.sequences,
        start=start,
        limit=limit,
        forced=forced,
        rows=torch.ones(4, dtype=torch.bool),
        sampling=Sampling(stop_ids=frozenset()),
        noise=_noise(4, root=1),
    )
    for row, prompt in enumerate(PROMPTS):
        kept = len(prompt) + 3
        assert _row(again, row)[:kept] == _row(first, row)[:kept]
        assert _row(again, row)[kept] == int(forced[row])
        assert int(again.sequences.lengths[row]) == int(limit[row])


def test_a_forced_stop_token_ends_the_row() -> None:
    pair = tiny_pair()
    sequences = _pack(PROMPTS)
    extension = _draw(pair, forced=torch.full((4,), 258))
    assert extension.stopped.tolist() == [True] * 4
    assert extension.sequences.lengths.tolist() == (sequences.lengths + 1).tolist()


def test_a_row_at_its_limit_draws_nothing_and_is_not_stopped() -> None:
    pair = tiny_pair()
    extension = _draw(pair, new=0)
    assert [_row(extension, row) for row in range(4)] == PROMPTS
    assert not extension.stopped.any()
    assert extension.sequences.num_scored == 0


def test_banned_ids_are_never_drawn_and_behaviour_is_the_sampling_distributions() -> None:
    pair = tiny_pair()
    sampling = Sampling(temperature=0.7, top_k=5, banned_ids=frozenset(range(0, 260, 2)))
    extension = _draw(pair, sampling=sampling, new=30)
    drawn = extension.sequences.tokens[extension.sequences.is_response]
    assert not (drawn % 2 == 0)[drawn < 260].any()
    logp = extension.behaviour_logp[extension.sequences.is_response]
    assert bool((logp <= 0).all())
    assert bool((logp < 0).any())


def test_evaluating_restores_the_modes_of_every_part() -> None:
    model = tiny_pair("gpt2").student
    model.train()
    model.transformer.h[0].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert model.training
    assert not model.transformer.h[0].training
    assert model.transformer.h[1].training
