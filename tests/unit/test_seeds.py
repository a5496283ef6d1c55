"""Randomness by name: stable numbers, distinct names, untouched global generators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.seeds import RowNoise, Seeds

PINNED_INTEGER = 2308292124748724335
PINNED_UNIFORMS = [0.8210130160599483, 0.7435312556652972, 0.0753012731113909]


def test_the_numbers_of_a_name_never_change() -> None:
    """A changed number would break every resumed run and every stored answer."""
    seeds = Seeds(7).child("draw", 3)
    assert seeds.integer() == PINNED_INTEGER
    assert seeds.generator().random(3).tolist() == PINNED_UNIFORMS
    assert seeds.uniform() == PINNED_UNIFORMS[0]
    assert RowNoise([seeds]).at([0] * 3, [0, 1, 2]).tolist() == PINNED_UNIFORMS


def test_different_paths_give_different_numbers() -> None:
    root = Seeds(7)
    names = [
        root,
        Seeds(8),
        root.child("a"),
        root.child("b"),
        root.child("a", 0),
        root.child("a", "0"),
        root.child(0, "a"),
        root.child("a0"),
        root.child("a", 0, 0),
        root.child("a", -0, 1),
        root.child("a', 'b"),
        root.child("a", "b"),
    ]
    assert len({seeds.integer() for seeds in names}) == len(names)
    assert len({seeds.uniform() for seeds in names}) == len(names)


def test_integers_fit_into_63_bits() -> None:
    integers = [Seeds(0).child(i).integer() for i in range(200)]
    assert all(0 <= integer < 2**63 for integer in integers)
    assert max(integers) > 2**62


def test_uniforms_look_uniform() -> None:
    uniforms = np.array([Seeds(3).child("u", i).uniform() for i in range(2000)])
    assert abs(uniforms.mean() - 0.5) < 0.03
    counts = np.histogram(uniforms, bins=10, range=(0, 1))[0]
    assert counts.min() > 140
    assert counts.max() < 260


def test_global_generators_are_left_alone() -> None:
    # Not Python's own: the type checks of the suite draw from it.
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    Seeds(1).child("x").generator().random(5)
    RowNoise([Seeds(1), Seeds(2)]).at([0, 1], [400, 2])
    assert states == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_one_row_and_one_position_belong_together() -> None:
    noise = RowNoise([Seeds(1), Seeds(2)])
    assert len(noise) == 2
    assert noise.at([], []).shape == (0,)
    with pytest.raises(ValueError, match="argument 2 is"):
        noise.at([0, 1], [0])
