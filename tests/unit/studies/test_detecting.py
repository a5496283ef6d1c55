"""What detectors say of injected errors, with models whose every number is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from limbeck.errors import DataError
from limbeck.revision import AttentionArgmax, Heuristic, KLDArgmax, RandomToken
from limbeck.studies import Detections
from limbeck.studies.detecting import Bench, Case, Clean, judged
from limbeck.studies.detections import spared_row
from limbeck.studies.injecting import Injection
from limbeck.testing import ScriptedModel, peaked, scripted_rollouts

V, PROMPT = 8, (0, 0)
WORDS = ["", "one", "two", "three", "four", "five", "six", ""]
STOP = 7


def decode(ids: Any) -> str:
    return " ".join(WORDS[id] for id in ids if WORDS[id])


def saying(*tokens: int, share: float = 0.9) -> ScriptedModel:
    """A model that says these tokens one after the other, whatever stands before, and then stops."""
    said = [*tokens, STOP]

    def script(prefix: tuple[int, ...]) -> list[float]:
        return peaked(said[min(len(prefix) - len(PROMPT), len(said) - 1)], share, vocab_size=V)

    return ScriptedModel(script, vocab_size=V)


def bench_of(student: ScriptedModel, teacher: ScriptedModel) -> Bench:
    rollouts = scripted_rollouts(student, max_new_tokens=6, stop_ids=frozenset({STOP}), temperature=0.0, group_rows=2)
    return Bench(student=student, teacher=teacher, rollouts=rollouts, chunk=3, decode=decode, greedy=True)


def case(response: tuple[int, ...], changed: tuple[int, ...], place: int, end: int, *, id: str = "a") -> Case:
    clean = Clean(source="references", id=id, prompt=PROMPT, response=response, references=(decode(response),))
    return Case(clean=clean, injection=Injection(kind="name", tokens=changed, place=place, end=end))


# A student that goes on as if nothing were wrong, and a teacher that wants 3 at place 2.
ERROR = case((1, 2, 3, 4, STOP), (1, 2, 6, 4, STOP), 2, 3)


def test_the_place_of_the_error_is_the_guess_where_the_models_differ_most_there() -> None:
    bench = bench_of(saying(1, 2, 6, 4), saying(1, 2, 3, 4))
    (row,) = judged([ERROR], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert (row["place"], row["end"], row["guesses"], row["eligible"]) == (2, 3, [2], True)
    assert (row["right"], row["inside"], row["among_three"], row["distance"]) == (True, True, True, 0)
    rest = 0.1 / (V - 1)
    expected = (4 * math.log(0.9) + math.log(rest)) / 5
    assert row["scores"]["clean"] == pytest.approx({"teacher_logp": math.log(0.9), "rouge_l": 1.0})
    assert row["scores"]["injected"] == pytest.approx({"teacher_logp": expected, "rouge_l": 0.75})
    # The teacher's 3 is put there and the student goes on with 4: the clean response again.
    assert row["scores"]["corrected"] == pytest.approx({"teacher_logp": math.log(0.9), "rouge_l": 1.0})
    assert row["corrected_tokens"] == 5
    assert "text" not in row


def test_a_guess_beside_the_error_is_wrong_and_its_distance_is_counted() -> None:
    # The teacher takes 6 for what belongs there, and would rather have 5 than 4 behind it.
    bench = bench_of(saying(1, 2, 6, 4), saying(1, 2, 6, 5))
    (row,) = judged([ERROR], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert (row["eligible"], row["guesses"]) == (False, [3])
    assert (row["right"], row["inside"], row["among_three"], row["distance"]) == (False, False, False, 1)
    assert row["scores"]["corrected"]["rouge_l"] == pytest.approx(0.5)


def test_an_error_of_several_tokens_is_hit_inside_without_being_hit_at_its_start() -> None:
    long = case((1, 2, 3, STOP), (1, 6, 6, 3, STOP), 1, 3)
    bench = bench_of(saying(1, 6, 6, 3), saying(1, 6, 2, 3))
    (row,) = judged([long], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert (row["right"], row["inside"], row["distance"]) == (False, True, 1)


def test_guesses_are_ranked_and_the_first_three_count() -> None:
    # Differences at 1, 2 and 3, the largest at 3: the error at 2 is the second guess.
    shares = {1: 0.5, 2: 0.8, 3: 0.95}

    def script(prefix: tuple[int, ...]) -> list[float]:
        place = len(prefix) - len(PROMPT)
        wanted = {1: 5, 2: 3, 3: 5}.get(place, [1, 2, 6, 4, STOP][min(place, 4)])
        return peaked(wanted, shares.get(place, 0.9), vocab_size=V)

    bench = bench_of(saying(1, 2, 6, 4), ScriptedModel(script, vocab_size=V))
    (row,) = judged([ERROR], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert row["guesses"] == [3, 2, 1]
    assert (row["right"], row["among_three"], row["distance"]) == (False, True, 1)


def test_without_a_guess_nothing_is_corrected_and_there_is_no_distance() -> None:
    bench = bench_of(saying(1, 2, 6, 4), saying(1, 2, 6, 4))
    (row,) = judged([ERROR], detectors={"kld-argmax": KLDArgmax()}, bench=bench)
    assert (row["guesses"], row["right"], row["among_three"], row["distance"]) == ([], False, False, None)
    assert row["scores"]["corrected"] == row["scores"]["injected"]


def test_every_detector_sees_every_case_with_the_same_evidence() -> None:
    looping = case((1, 2, 3, STOP), (1, 2, 1, 2, 1, STOP), 2, 5, id="b")
    detectors = {
        "kld-argmax": KLDArgmax(),
        "random": RandomToken(),
        "heuristic": Heuristic(loop_tokens=2, rise=None, top_p=None),
    }
    bench = bench_of(saying(1, 2, 6, 4), saying(1, 2, 3, 4))
    rows = judged([ERROR, looping], detectors=detectors, bench=bench)
    assert [(row["detector"], row["id"]) for row in rows] == [(name, id) for name in detectors for id in ("a", "b")]
    by_name = {(row["detector"], row["id"]): row for row in rows}
    assert by_name["heuristic", "b"]["guesses"] == [2, 3]
    assert by_name["heuristic", "b"]["right"]
    # One token differs from the teacher's in the first row: whatever is asked must name it, or nothing.
    assert by_name["random", "a"]["guesses"] == [2]
    assert by_name["heuristic", "a"]["guesses"] == []
    alone = judged([looping], detectors={"random": RandomToken()}, bench=bench)
    assert alone[0]["guesses"] == by_name["random", "b"]["guesses"]
    assert judged([], detectors=detectors, bench=bench) == []


def test_a_teacher_that_hides_its_attention_is_refused() -> None:
    bench = bench_of(saying(1, 2, 6, 4), saying(1, 2, 3, 4))
    with pytest.raises(ValueError, match="needs attention"):
        judged([ERROR], detectors={"attention": AttentionArgmax()}, bench=bench)


def made(
    id: str, kind: str, *, right: bool, distance: int | None, gain: float, source: str = "student"
) -> dict[str, Any]:
    scores = {"injected": {"teacher_logp": -2.0, "rouge_l": 0.5}}
    scores["corrected"] = {"teacher_logp": -2.0 + gain, "rouge_l": 0.5}
    return {
        "measure": "injected",
        "id": id,
        "source": "student",
        "kind": kind,
        "detector": "random",
        "right": right,
        "inside": right,
        "among_three": True,
        "distance": distance,
        "scores": scores,
    }


def test_averages_are_made_of_rows_and_what_did_not_apply_is_counted() -> None:
    rows = [
        made("a", "number", right=True, distance=0, gain=1.0),
        made("b", "number", right=False, distance=None, gain=0.0),
        made("a", "name", right=False, distance=4, gain=-0.5),
        spared_row(id="b", source="student", kind="name"),
        spared_row(id="b", source="references", kind="name"),
    ]
    found = Detections(rows=rows)
    assert found.values("student", "number", "random", "right %") == {"a": 1.0, "b": 0.0}
    assert found.values("student", "number", "random", "distance") == {"a": 0.0}
    assert found.values("student", "all", "random", "right %") == {"a": 0.5, "b": 0.0}
    assert found.values("student", "all", "random", "Δ teacher log p") == {"a": 0.25, "b": 0.0}
    table = found.table("student")
    assert [row.cells[:3] for row in table.rows] == [
        ("number", "random", "2"),
        ("name", "random", "1"),
        ("all", "random", "2"),
    ]
    assert table.rows[0].cells[3].value == 50.0  # type: ignore[union-attr]
    assert table.notes[-1] == "name: 1 of 2 responses have nothing for it to spoil."
    shown = found.markdown()
    assert "## Errors in the student's own responses" in shown
    assert "## Errors in the corpus's references\n\nname: 1 of 1 responses" in shown
    with pytest.raises(DataError, match="the corpus's references"):
        found.table("references")
    assert Detections(rows=[]).markdown() == "No response to put an error into.\n"


def test_a_score_that_is_no_number_is_left_out_of_its_average() -> None:
    rows = [
        made("a", "number", right=True, distance=0, gain=math.nan),
        made("b", "number", right=True, distance=0, gain=1),
    ]
    found = Detections(rows=rows)
    assert found.values("student", "number", "random", "Δ teacher log p") == {"b": 1.0}
