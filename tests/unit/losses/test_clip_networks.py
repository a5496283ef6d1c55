"""Clip networks beside the MLP: what they start as, what they see, and the same layers built from torch's modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from clip_kit import built, scores_of
from torch import nn

from limbeck.errors import ConfigError
from limbeck.losses import CLIP_NETWORKS, Bounds, ClipNetwork
from limbeck.losses.clip_features import classes_and_summary, ranked_features
from limbeck.losses.clip_networks import RankedClipNetwork
from limbeck.losses.dac import DACKL
from limbeck.losses.match import TokenScores
from limbeck.losses.ranked_networks import Convolutional, Recurrent

RANKED = ("conv", "rnn")
LEARNED = ("mlp", *RANKED)
learned = pytest.mark.parametrize("name", LEARNED)
ranked = pytest.mark.parametrize("name", RANKED)


def network(name: str, *, num_features: int = 44, seed: int = 0) -> nn.Module:
    found: nn.Module = CLIP_NETWORKS[name]().build(num_features, generator=torch.Generator().manual_seed(seed))
    return found


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_registry_holds_the_agreed_names() -> None:
    assert list(CLIP_NETWORKS) == ["mlp", "conv", "rnn", "fixed"]
    for name in CLIP_NETWORKS:
        part = CLIP_NETWORKS[name]()
        assert isinstance(part, ClipNetwork)
        assert isinstance(part, RankedClipNetwork) == (name in RANKED)
        assert (part.learning_rate > 0) == (name != "fixed")


@learned
@pytest.mark.parametrize("features", ["topk", "full"])
@pytest.mark.parametrize("coordinate", ["mass", "rank", "value"])
def test_every_learned_network_starts_wide_open_and_alike(name: str, features: str, coordinate: str) -> None:
    scores = scores_of(3, 90)
    ours, mlp = (
        built(DACKL(clip=CLIP_NETWORKS[each](), features=features, coordinate=coordinate), 90).measured(scores)
        for each in (name, "mlp")
    )
    torch.testing.assert_close(ours.loss, mlp.loss, rtol=1e-12, atol=1e-12)
    for key in ("lower", "upper"):
        torch.testing.assert_close(ours.values[key], mlp.values[key], rtol=1e-12, atol=0)
    if coordinate == "mass":
        assert ours.values["upper"].tolist() == pytest.approx([1 / (1 + 2.718281828459045**-6)] * 3)


@learned
def test_weights_come_from_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (network(name, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    ours, again, others = (torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (one, same, other))
    assert torch.equal(ours, again)
    assert not torch.equal(ours, others)


@learned
@pytest.mark.parametrize("num_features", [6, 8, 24, 1028])
def test_bounds_keep_their_order_and_tokens_do_not_meet(name: str, num_features: int) -> None:
    found = network(name, num_features=num_features)
    with torch.no_grad():
        list(found.parameters())[-2].normal_(std=30.0, generator=torch.Generator().manual_seed(1))
    features = noise(9, num_features, seed=2) * 2
    bounds = found(features)
    assert (bounds.lower <= bounds.upper).all()
    assert bounds.lower.isfinite().all()
    assert bounds.upper.unique().numel() > 1
    for n in (0, 8):
        torch.testing.assert_close(found(features[n : n + 1]).upper, bounds.upper[n : n + 1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_the_convolutions_are_those_of_torch(kernel: int, size: int) -> None:
    part = Convolutional(channels=6, kernel=kernel).build(2 * size + 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(noise(*parameter.shape, seed=parameter.numel()) * 0.3)
    features = noise(5, 2 * size + 4)
    inner = features[:, : 2 * size].reshape(5, 2, size) + 2.0
    for weight, bias, inputs in ((part.first_weight, part.first_bias, 2), (part.second_weight, part.second_bias, 6)):
        padded = nn.functional.pad(inner, (kernel // 2, kernel - 1 - kernel // 2))
        out = nn.functional.conv1d(padded, weight.reshape(6, inputs, kernel), bias, stride=2)
        inner = nn.functional.gelu(out)
    seen = torch.cat([inner.mean(-1), inner.amax(-1), features[:, 2 * size :]], dim=-1)
    a, b = nn.functional.linear(seen, part.last_weight, part.last_bias).unbind(-1)
    bounds = part(features)
    torch.testing.assert_close(bounds.upper, a + 6, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bounds.lower, a + 6 - nn.functional.softplus(b + 12), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_the_recurrence_is_torchs_gru_from_the_tail_to_the_head(size: int) -> None:
    part = Recurrent(hidden=5, classes_per_step=4).build(2 * size + 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(noise(*parameter.shape, seed=parameter.numel()) * 0.3)
    with torch.random.fork_rng():
        gru = nn.GRU(8, 5, batch_first=True)
    with torch.no_grad():
        for name, weight in (("weight_ih_l0", part.input_weight), ("weight_hh_l0", part.state_weight),
                             ("bias_ih_l0", part.input_bias), ("bias_hh_l0", part.state_bias)):  # fmt: skip
            getattr(gru, name).copy_(weight)
    features = noise(3, 2 * size + 4)
    steps = []
    for first in range(0, size, 4):
        for_each = []
        for row in range(2):
            values = features[:, row * size : row * size + size][:, first : first + 4] + 2.0
            for_each.append(nn.functional.pad(values, (0, 4 - values.shape[1])))
        steps.append(torch.cat(for_each, dim=-1))
    _, last = gru(torch.stack(steps[::-1], dim=1))
    a, _ = nn.functional.linear(torch.cat([last[0], features[:, 2 * size :]], -1), part.last_weight, part.last_bias).T
    torch.testing.assert_close(part(features).upper, a + 6, rtol=1e-5, atol=1e-5)


def test_what_ranked_networks_see() -> None:
    scores = scores_of(2, 9)
    target, student = scores.target_logp, scores.student_logp.detach()
    top = torch.topk(target, 3)
    seen, summary = classes_and_summary(
        ranked_features(target_nk=top.values, student_nk=student.gather(1, top.indices))
    )
    torch.testing.assert_close(seen[:, 0], (top.values + 10) / 5 + 2)
    torch.testing.assert_close(seen[:, 1], (student.gather(1, top.indices) + 10) / 5 + 2)
    p = top.values.exp()
    rest = 1 - p.sum(-1)
    torch.testing.assert_close(summary[:, 0], -(p * p.log()).sum(-1) - rest * rest.log())
    torch.testing.assert_close(summary[:, 2:], torch.stack([p[:, 0], rest], dim=-1))


@ranked
@pytest.mark.parametrize("features", ["topk", "full"])
def test_the_vocabularys_order_is_nothing_to_ranked_networks(name: str, features: str) -> None:
    scores = scores_of(4, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    moved = TokenScores(
        student_logp=scores.student_logp[:, order], target_logp=scores.target_logp[:, order], tokens=scores.tokens
    )
    term = built(DACKL(clip=CLIP_NETWORKS[name](), features=features), 16)
    with torch.no_grad():
        term.network.last_weight.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(term(moved), term(scores), rtol=1e-10, atol=1e-10)


@ranked
def test_full_features_are_those_of_topk_where_the_top_is_all(name: str) -> None:
    scores = scores_of(3, 21)
    whole, top = (built(DACKL(clip=CLIP_NETWORKS[name](), features=features), 21) for features in ("full", "topk"))
    for term in (whole, top):
        with torch.no_grad():
            term.network.last_weight.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(whole(scores), top(scores), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("conv", {"channels": 0}),
        ("conv", {"kernel": 0}),
        ("rnn", {"hidden": 0}),
        ("rnn", {"classes_per_step": 0}),
        ("rnn", {"learning_rate": 0.0}),
        ("conv", {"stride": 2}),
    ],
)
def test_sizes_that_make_no_sense_are_refused(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        CLIP_NETWORKS[name](**values)


class _OfBounds(nn.Module):
    """A clip network of a user's own: what it gives is made of a learned lower and upper bound a token."""

    def __init__(self, made: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.made = made
        self.bounds = nn.Parameter(torch.tensor([-6.0, 6.0]))

    def forward(self, features: torch.Tensor) -> object:
        lower, upper = self.bounds.expand(len(features), 2).unbind(1)
        return self.made(lower, upper)


@dataclass(frozen=True)
class _Own:
    made: Callable[[torch.Tensor, torch.Tensor], object]
    learning_rate: float = 0.01

    def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
        return _OfBounds(self.made)


def _bounds(lower: torch.Tensor, upper: torch.Tensor) -> Bounds:
    return Bounds(lower=lower, upper=upper)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda lower, upper: (lower, upper), "gave a tuple"),
        (lambda lower, upper: _bounds(lower[:1], upper[:1]), r"shapes \[1\] and \[1\] for 3 tokens"),
        (lambda lower, upper: _bounds(upper, lower), "lower bound above the upper one"),
        (lambda lower, upper: _bounds(lower.detach(), upper.detach()), "have no gradient"),
    ],
)
def test_a_network_of_ones_own_that_gives_no_bounds_is_refused(
    made: Callable[[torch.Tensor, torch.Tensor], object], why: str
) -> None:
    scores = scores_of(3, 90)
    assert built(DACKL(clip=_Own(_bounds)), 90)(scores).isfinite().all()
    with pytest.raises(ConfigError, match=why):
        built(DACKL(clip=_Own(made)), 90)(scores)


def test_a_network_that_is_to_learn_has_parameters() -> None:
    @dataclass(frozen=True)
    class Empty:
        learning_rate: float

        def build(self, num_features: int, *, generator: torch.Generator) -> nn.Module:
            network = nn.Module()
            network.layers = [nn.Parameter(torch.zeros(2))]
            return network

    built(DACKL(clip=Empty(0.0)), 90)
    with pytest.raises(ConfigError, match="has no parameters"):
        built(DACKL(clip=Empty(0.01)), 90)
