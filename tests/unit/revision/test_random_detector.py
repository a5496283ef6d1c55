"""The detector that asks a coin: every token that may be corrected is as likely, and the coin is the row's own."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from revising_kit import STOP, differing, model, ones, pack, responses_of, revise, rollouts_of

from limbeck.errors import ConfigError
from limbeck.revision import SCRG, RandomToken, gather_evidence
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import random_script, toy_evidence
from limbeck.types import Sequences

# Places 0, 2, 3 and 5 of the response may be corrected; place 5 behind the others, place 3 by far the worst.
WRONG = differing(_0=(3, 0.9), _2=(3, 0.6), _3=(2, 0.999), _5=(3, 0.9))


def _places(drawn: Sequences, **changed) -> list[int]:
    revision = revise(drawn, ones(), WRONG, detector=RandomToken(), **changed)
    return [each.response_place for each in revision.corrections]


def test_the_score_is_the_number_where_a_token_may_be_corrected() -> None:
    evidence = toy_evidence(uniform=[0.5, 0.75, 0.25, 0.0], eligible=[True, False, True, True])
    assert RandomToken()(evidence).tolist() == [0.5, -math.inf, 0.25, 0.0]
    assert RandomToken()(toy_evidence(uniform=[0.5], eligible=[False])).tolist() == [-math.inf]


def test_every_eligible_token_is_as_likely() -> None:
    rows = 600
    counts = Counter(_places(pack([[1] * 6] * rows, limits=[8] * rows), seed=11, group_rows=rows))
    assert set(counts) == {0, 2, 3, 5}
    expected = rows / 4
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # The 99.9th percentile at three degrees of freedom.
    assert chi_square < 16.27


def test_rows_of_two_tokens_and_of_six_are_alike() -> None:
    """No place is preferred, however many tokens may be corrected."""
    rows = 240
    wrong = differing(**{f"_{place}": (3, 0.9) for place in range(6)})
    for count in (2, 6):
        drawn = pack([[1] * count] * rows, limits=[2 + count] * rows)
        revision = revise(drawn, ones(), wrong, detector=RandomToken(), group_rows=rows, seed=count)
        found = Counter(each.response_place for each in revision.corrections)
        chi_square = sum((found[place] - rows / count) ** 2 / (rows / count) for place in range(count))
        assert chi_square < {2: 10.83, 6: 20.52}[count]


def test_the_choice_is_the_rows_own() -> None:
    """Neither company nor order nor the size of groups decides; the run's seed does."""
    student, teacher = random_script(1, vocab_size=5), random_script(2, vocab_size=5)
    drawn = pack([[1, 2, 3, 1, 2, 3]] * 12, limits=[8] * 12)

    def found(rows: Sequences, **changed) -> list[tuple[int, list[int]]]:
        settings = {"greedy": False, "temperature": 1.0, "detector": RandomToken(), "seed": 4, **changed}
        revision = revise(rows, model(student), model(teacher), **settings)
        places = {each.row: each.response_place for each in revision.corrections}
        return [(places.get(row, -1), tokens) for row, tokens in enumerate(responses_of(revision.sequences))]

    whole = found(drawn)
    assert len({place for place, _ in whole}) > 2
    assert [found(drawn.rows([row]))[0] for row in range(12)] == whole
    order = [7, 3, 0, 11, 5]
    assert found(drawn.rows(order), group_rows=2) == [whole[row] for row in order]
    assert found(drawn, seed=5) != whole


def test_each_round_has_numbers_of_its_own() -> None:
    """With one number for all rounds, the second largest would always follow: the order of six is then fixed."""
    rows = 200
    wrong = differing(**{f"_{place}": (3, 0.9) for place in range(6)})
    drawn = pack([[1] * 6] * rows, limits=[8] * rows)
    revision = revise(drawn, ones(), wrong, detector=RandomToken(), group_rows=rows, rounds=2)
    pairs = {}
    for each in revision.corrections:
        pairs.setdefault(each.row, []).append(each.response_place)
    again = 0
    for row, (first, second) in pairs.items():
        noise = RowNoise([Seeds(0).child("detector", 1, 0, row)])
        numbers = [float(noise.at([0], [2 + place])[0]) for place in range(6)]
        assert first == max(range(6), key=numbers.__getitem__)
        again += second == sorted(range(6), key=numbers.__getitem__)[-2]
    # One in five by chance.
    assert again < rows * 0.35


def test_the_column_is_the_rows_noise_and_no_other_detector_has_it() -> None:
    drawn = pack([[1, 1, STOP], [1, 2]])
    noise = [Seeds(3).child("detector", 1, *key) for key in drawn.keys]
    settings = {
        "student": ones(),
        "teacher": WRONG,
        "noise": None,
        "stop_ids": {STOP},
        "chunk": 2,
        "group_rows": 1,
        "device": torch.device("cpu"),
    }
    evidence = gather_evidence(drawn, needs=("uniform",), detector_noise=RowNoise(noise), **settings)
    expected = RowNoise(noise).at(evidence.row.tolist(), evidence.position.tolist())
    assert evidence.columns["uniform"].tolist() == pytest.approx(expected.tolist(), abs=1e-7)
    assert gather_evidence(drawn, detector_noise=RowNoise(noise), **settings).columns == {}
    with pytest.raises(ConfigError, match="no noise"):
        gather_evidence(drawn, needs=("uniform",), **settings)


def test_it_changes_nothing_but_the_choice() -> None:
    """The teacher's tokens are those that any other detector has: an ablation compares like with like."""
    student, teacher = random_script(1, vocab_size=5), random_script(2, vocab_size=5)
    drawn = pack([[1, 2, 3, 1]] * 4)
    found = []
    for detector in (RandomToken(), SCRG().detector):
        scrg = SCRG(detector=detector)
        rollouts = rollouts_of(model(student), seed=7)
        revision = scrg.revise(drawn, rollouts=rollouts, student=model(student), teacher=model(teacher), chunk=3)
        assert revision.evidence is not None
        found.append(revision.evidence)
    assert torch.equal(found[0].teacher_token, found[1].teacher_token)
    assert torch.equal(found[0].eligible, found[1].eligible)
