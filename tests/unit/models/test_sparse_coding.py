"""Classes and log-probabilities as bytes: what goes in comes out, to within a step, in as many bytes as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.models.sparse_coding import STEPS, decoded, encoded, most_bytes_a_token

VOCABULARY = 300_000


@st.composite
def tokens(draw):
    """Some classes of each token in ascending order, and their probabilities beside the rest's."""
    rows = draw(
        st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9, unique=True), min_size=1, max_size=6)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return [sorted(row) for row in rows], [rng.dirichlet(np.ones(len(row) + 1)) for row in rows]


def _padded(rows, masses):
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    logp = np.full((len(rows), width), -np.inf)
    for n, (row, mass) in enumerate(zip(rows, masses, strict=True)):
        ids[n, : len(row)], logp[n, : len(row)] = row, np.log(mass[:-1])
    counts = np.array([len(row) for row in rows])
    return encoded(ids, logp, counts_n=counts, rest_n=np.log([mass[-1] for mass in masses]))


@given(tokens())
def test_what_was_written_is_read(given_tokens):
    rows, masses = given_tokens
    ids, logp, rest = decoded(_padded(rows, masses))
    for n, (row, mass) in enumerate(zip(rows, masses, strict=True)):
        assert ids[n, : len(row)].tolist() == row
        assert set(ids[n, len(row) :]) <= {-1}
        found = np.exp([*logp[n, : len(row)], rest[n]])
        assert found.sum() == pytest.approx(1, abs=1e-12)
        # Half a step each way by rounding, and as much by making the sum 1; beyond 32 nats there is only "very little".
        assert np.allclose(np.log(found[mass > 1e-13]), np.log(mass[mass > 1e-13]), rtol=0, atol=1.01 / STEPS)


@given(st.integers(0, 2**31), st.sampled_from([1_000, 49_152, 151_936, 256_000]))
def test_the_size_is_at_most_what_the_formula_says(seed, size):
    rng = np.random.default_rng(seed)
    classes = 33
    ids = np.stack([np.sort(rng.choice(size, classes, replace=False)) for _ in range(7)])
    logp = np.log(rng.dirichlet(np.ones(classes + 1), size=7))
    coded = encoded(ids, logp[:, :-1], counts_n=np.full(7, classes), rest_n=logp[:, -1])
    assert coded.num_bytes <= 7 * most_bytes_a_token(classes=classes, vocabulary_size=size)
    assert most_bytes_a_token(classes=classes, vocabulary_size=size) <= 150


def test_a_rest_without_mass_stays_so():
    coded = encoded(np.array([[0, 1]]), np.log([[0.25, 0.75]]), counts_n=np.array([2]), rest_n=np.array([-np.inf]))
    _, logp, rest = decoded(coded)
    assert rest[0] == -np.inf
    assert np.exp(logp).sum() == pytest.approx(1)


def test_nothing_is_nothing():
    nothing = np.zeros((0, 0))
    coded = encoded(nothing.astype(np.int64), nothing, counts_n=np.zeros(0, dtype=np.int64), rest_n=np.zeros(0))
    ids, logp, rest = decoded(coded)
    assert (coded.num_bytes, ids.shape, logp.shape, rest.shape) == (0, (0, 0), (0, 0), (0,))


@pytest.mark.parametrize("gap", [0, 127, 128, 16_383, 16_384, 2_097_151])
def test_every_length_of_a_gap(gap):
    coded = encoded(np.array([[5, 6 + gap]]), np.log([[0.5, 0.5]]), counts_n=np.array([2]), rest_n=np.array([-np.inf]))
    assert decoded(coded)[0].tolist() == [[5, 6 + gap]]
