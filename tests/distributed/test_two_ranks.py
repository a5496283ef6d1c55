"""Two processes give what one gives, under DDP and sharded by FSDP2."""

from __future__ import annotations

import json

import pytest
import torch
from rank_kit import CASES, Launch, Place
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.distributed

# What else they have is in the other cases too.
SLOW = ("conv", "rnn", "learned", "mgsr")
each_case = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES]
)


@each_case
@pytest.mark.usefixtures("alone", "ranks")
def test_two_ranks_give_the_losses_and_weights_of_one(place: Place, strategy: str, case: str) -> None:
    ones, twos = place.metrics(f"alone-{case}"), place.metrics(f"{strategy}-{case}")
    assert [row["kind"] for row in twos][:7] == ["step"] * 6 + ["validation"]
    assert [row["name"] for row in twos[7:]] in ([], ["teacher-no-better"]), "random models: either may be the better"
    for one, two in zip(ones, twos, strict=True):
        assert two.keys() == one.keys()
        for key in {"loss", "cross_entropy", "teacher_cross_entropy", "rouge_l", "response_tokens"} & one.keys():
            assert two[key] == pytest.approx(one[key], abs=1e-6, rel=0), key
        for key in {"terms", "gradient_shares"} & one.keys():
            assert two[key] == pytest.approx(one[key], abs=1e-6, rel=0), key
        for key in {"measures", "revision", "spans", "collection", "own"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-5), key
        for key in {"gradient_norm"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-6)
        if case == "learned" and two["kind"] == "step":
            assert two["spans"] > 0
            assert two["tokens"]["plain_text"] > 0
        for key in {"tokens", "origin", "learning_rate", "step", "replay"} & one.keys():
            assert two[key] == one[key]
    origins = {origin for row in twos[:6] for origin in row["origin"]}
    drawn = {"gkd": {"student"}, "mgsr": {"revised"}, "mgsr:off-policy": {"revised", "replayed"}}
    method = CASES[case]["method"]
    if method == "seqkd":
        assert origins == {"teacher"}
        assert _written(place, f"alone-{case}") == _written(place, f"{strategy}-{case}")
    else:
        assert origins >= ({"mixed"} if method == "minillm" else {"reference"} | drawn.get(method, set()))
    one_student, two_student = place.weights(f"alone-{case}"), place.weights(f"{strategy}-{case}")
    assert two_student.keys() == one_student.keys()
    for name, weight in one_student.items():
        torch.testing.assert_close(two_student[name], weight, atol=1e-5, rtol=0)
    one_clip, two_clip = place.clip_network(f"alone-{case}"), place.clip_network(f"{strategy}-{case}")
    assert two_clip.keys() == one_clip.keys()
    assert bool(one_clip) == (case in ("mgsr", "replay", "lora", "conv", "rnn"))
    for name, weight in one_clip.items():
        # Adam divides by the gradient's own size: where that is rounding, orders of summing show.
        torch.testing.assert_close(two_clip[name], weight, atol=3e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["learned"])
@pytest.mark.usefixtures("alone", "ranks")
def test_two_ranks_learn_the_spans_of_one(place: Place, strategy: str, case: str) -> None:
    one, two = (json.loads((place.path / f"{by}-{case}" / "extractor.json").read_text()) for by in ("alone", strategy))
    assert two == one
    assert two["collocations"]


def _written(place: Place, run: str) -> dict[str, list[int]]:
    (file,) = (place.path / f"answers-{run}").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    assert len(rows) == len({row["prompt"] for row in rows})
    return {row["prompt"]: row["tokens"] for row in rows}


@each_case
@pytest.mark.usefixtures("alone", "ranks")
def test_two_ranks_answer_as_one(place: Place, strategy: str, case: str) -> None:
    one, two = (place.path / f"{by}-{case}" / "validation" / "step-000006.jsonl" for by in ("alone", strategy))
    assert two.read_text() == one.read_text()
    assert len(two.read_text().splitlines()) == 33


@each_case
@pytest.mark.usefixtures("alone", "ranks")
def test_the_student_of_two_ranks_is_a_plain_folder(place: Place, strategy: str, case: str) -> None:
    folder, by_one = (place.path / f"{by}-{case}" / "student" for by in (strategy, "alone"))
    assert sorted(path.name for path in folder.rglob("*")) == sorted(path.name for path in by_one.rglob("*"))
    for name in ("config.json", "generation_config.json"):
        assert (folder / name).read_text() == (by_one / name).read_text()
    saved = place.weights(f"{strategy}-{case}")
    for name, parameter in AutoModelForCausalLM.from_pretrained(folder).named_parameters():
        assert torch.equal(parameter, saved[name])


def test_every_rank_holds_its_part(ranks: Launch, strategy: str) -> None:
    found = ranks.of("inspect")
    assert [each["rank"] for each in found] == [0, 1]
    assert {each["device"] for each in found} == {"cpu"}
    mine, others = (each["scored_tokens"] for each in found)
    assert len(mine) == len(others) == 2
    assert sum(mine) != sum(others)
    is_sharded = strategy == "fsdp"
    for each in found:
        for moment in ("start", "gradient", "step", "validation"):
            assert set(each[moment]["parameters_sharded"]) == {is_sharded}, moment
            assert each[moment]["own_share"] == (0.5 if is_sharded else 1.0)
        assert set(each["step"]["moments_sharded"]) == {is_sharded}
        assert len(each["step"]["moments_sharded"]) == 2 * len(each["step"]["parameters_sharded"])


def test_bad_input_is_the_same_error_on_every_rank(ranks: Launch) -> None:
    for case, text in (("taken", "is another run's directory"), ("uneven", "2 processes cannot share evenly")):
        for each in ranks.of(case):
            assert (each["code"], each["error"]) == (2, "ConfigError"), each
            assert text in each["message"]


def test_only_the_first_rank_prints_and_nobody_warns(ranks: Launch) -> None:
    assert "done: the student is in" in ranks.outputs[0]
    # That a random teacher is no better than a random student is said, and true.
    told = [line for line in ranks.outputs[0].splitlines() if "warning: teacher-no-better" not in line]
    assert "arning" not in "\n".join(told)
    assert ranks.outputs[1] == ""
