"""Which token a detector takes for the error."""

from __future__ import annotations

import math
import re

import pytest
import torch
from pydantic import ValidationError

from limbeck.errors import ConfigError, UnknownName
from limbeck.revision import DETECTORS, REVISERS, SCRG, AttentionArgmax, Detector, KLDArgmax, RandomToken, Reviser
from limbeck.revision.detectors import ranked_errors
from limbeck.testing import toy_evidence
from limbeck.types import Evidence


def _evidence(**changed: list[float] | list[bool]) -> Evidence:
    return toy_evidence(
        **{
            "kl_student_teacher": [1.0, 9.0, 4.0, 2.0],
            "kl_teacher_student": [8.0, 1.0, 2.0, 4.0],
            "eligible": [True, False, True, True],
            **changed,
        }
    )


def test_the_score_is_the_divergence_where_a_token_may_be_corrected() -> None:
    assert KLDArgmax()(_evidence()).tolist() == [1.0, -math.inf, 4.0, 2.0]
    assert KLDArgmax(direction="teacher-student")(_evidence()).tolist() == [8.0, -math.inf, 2.0, 4.0]


def test_no_eligible_token_is_never() -> None:
    assert KLDArgmax()(_evidence(eligible=[False] * 4)).tolist() == [-math.inf] * 4


@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_a_nan_never_wins_and_an_infinity_does(direction: str) -> None:
    column = f"kl_{direction.replace('-', '_')}"
    scores = KLDArgmax(direction=direction)(_evidence(**{column: [math.nan, 9.0, 4.0, math.inf]}))
    assert scores.tolist() == [-math.inf, -math.inf, 4.0, math.inf]
    assert int(scores.argmax()) == 3


def test_the_registries_hold_what_a_recipe_names() -> None:
    assert isinstance(DETECTORS["kld-argmax"](), Detector)
    assert isinstance(REVISERS["scrg"](), Reviser)
    assert REVISERS["scrg"]() == SCRG(detector=KLDArgmax(), rounds=1, greedy=False)
    assert list(DETECTORS) == ["kld-argmax", "random", "heuristic", "attention"]
    for make in DETECTORS.values():
        assert isinstance(make(), Detector)
        assert SCRG(detector=make()).detector == make()
    with pytest.raises(UnknownName, match="kld-argmax"):
        DETECTORS["kld-argmx"]


def test_scores_of_other_tokens_are_refused() -> None:
    evidence = toy_evidence(row=[0, 0, 0], eligible=[True, True, True])
    with pytest.raises(ConfigError, match=re.escape("scores of shape [2] for 3 tokens")):
        ranked_errors(torch.zeros(2), evidence=evidence, most=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KLDArgmax(direction="both"),
        lambda: KLDArgmax(temperature=2),
        lambda: RandomToken(seed=1),
        lambda: AttentionArgmax(layers=2),
        lambda: SCRG(rounds=0),
        lambda: SCRG(greedy="perhaps"),
        lambda: SCRG(detector="kld-argmax"),
    ],
)
def test_values_out_of_range_are_refused(make) -> None:
    with pytest.raises(ValidationError):
        make()


def test_evidence_of_two_lengths_is_refused() -> None:
    with pytest.raises(Exception, match="rank"):
        toy_evidence(kl_student_teacher=[1.0, 2.0], rank=[1])
    assert len(_evidence()) == 4
    assert torch.equal(_evidence().position, torch.arange(4))
