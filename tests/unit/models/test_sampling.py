"""One draw: frequencies, filters, edges."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from pydantic import ValidationError

from limbeck.models.sampling import NgramBan, Sampling, distribution, draw


def test_evenly_spread_uniforms_give_the_distributions_frequencies() -> None:
    p = torch.tensor([0.05, 0.6, 0.0, 0.25, 0.1])
    uniforms = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    tokens, logp = draw(p.log().expand(2000, 5), uniforms_b=uniforms, sampling=Sampling())
    counts = torch.bincount(tokens, minlength=5) / 2000
    torch.testing.assert_close(counts, p, atol=1e-3, rtol=0)
    torch.testing.assert_close(logp.exp(), p[tokens], atol=1e-6, rtol=1e-5)


def test_uniforms_at_the_edges_never_draw_an_impossible_token() -> None:
    p = torch.tensor([[0.0, 0.5, 0.5, 0.0]] * 2)
    tokens, _ = draw(p.log(), uniforms_b=torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64), sampling=Sampling())
    assert tokens.tolist() == [1, 2]


@pytest.mark.parametrize("classes", [3, 256, 700])
def test_a_token_is_the_first_whose_running_sum_is_above_the_uniform(classes: int) -> None:
    logp = (4 * torch.randn(200, classes, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    uniforms = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens, _ = draw(logp, uniforms_b=uniforms, sampling=Sampling())
    for p, u, token in zip(logp.softmax(-1).tolist(), uniforms.tolist(), tokens.tolist(), strict=True):
        sums = list(accumulate(p))
        assert token == next(v for v, upto in enumerate(sums) if upto > u * sums[-1])


def test_temperature_zero_is_the_argmax() -> None:
    logp = torch.randn(6, 11).log_softmax(-1)
    tokens, _ = draw(logp, uniforms_b=torch.rand(6).double(), sampling=Sampling(temperature=0.0))
    assert torch.equal(tokens, logp.argmax(-1))


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.5, [1]), (0.59, [1]), (0.61, [1, 3]), (0.84, [1, 3]), (1.0, [0, 1, 3, 4])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p: float, kept: list[int]) -> None:
    p = torch.tensor([[0.05, 0.6, 0.0, 0.25, 0.1]], dtype=torch.float64)
    assert distribution(p.log(), Sampling(top_p=top_p))[0].nonzero().squeeze(1).tolist() == kept


def test_top_k_and_temperature_renormalise() -> None:
    p = torch.tensor([[0.05, 0.6, 0.25, 0.1]], dtype=torch.float64)
    got = distribution(p.log(), Sampling(temperature=2.0, top_k=2))
    root = p[0, 1:3].sqrt()
    torch.testing.assert_close(got[0, 1:3], root / root.sum())
    assert float(got.sum()) == pytest.approx(1.0)


def test_out_of_range_settings_are_refused() -> None:
    for bad in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}):
        with pytest.raises(ValidationError):
            Sampling(**bad)


def test_ngram_ban_remembers_the_prompt_and_what_is_appended() -> None:
    ban = NgramBan(3, [[1, 2, 3, 1, 2], [7]])
    assert ban.banned(0) == {3}
    assert ban.banned(1) == set()
    ban.append(0, 4)
    assert ban.banned(0) == set()
    for token in (1, 2):
        ban.append(0, token)
    assert ban.banned(0) == {3, 4}
