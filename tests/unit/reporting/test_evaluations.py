"""Which evaluations of a run count: those that answered every example, by the student that the run has now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from limbeck.reporting.contest import find_contest
from limbeck.reporting.run_logs import RunLogs, read_evaluations
from limbeck.reporting.runs import report
from page_kit import answers_of

NOW, BEFORE = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"


def save_run(folder: Path, *, weights: str | None = NOW) -> Path:
    """A run of one step, its student with a digest of its weights or without one."""
    (folder / "student").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("method: {base: kd}\n")
    step = {"kind": "step", "step": 1, "loss": 1.0, "terms": {}, "tokens": {"token": 1},
            "gradient_norm": 1.0, "origin": {}, "time": {"seconds": 1.0}}  # fmt: skip
    (folder / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    (folder / "student" / "limbeck.json").write_text(json.dumps({} if weights is None else {"weights": weights}))
    return folder


def answer(
    run: Path,
    *,
    corpus: str = "dolly",
    seeds: Sequence[int] = (10, 20),
    there: int = 40,
    asked: int = 40,
    kind: str = "plain",
    **header: Any,
) -> None:
    """Files of answers, the first `there` of `asked` examples each, and what was measured on the references."""
    folder = run / "answers" / kind
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"corpus": corpus, "id": f"d{n}", "text": "said", "references": ["right"], "category": "", "question": "asked",
         "scores": {"rouge_l": n / 100}}
        for n in range(there)
    ]  # fmt: skip
    for seed in seeds:
        about = {"corpus": corpus, "seed": seed, "examples": asked, "dtype": "float32", "weights": NOW, **header}
        _write(folder / f"{corpus}-answers-seed{seed}.jsonl", [about, *({**row, "seed": seed} for row in rows)])
    beside = [{"measure": "references", "corpus": corpus, "seed": seeds[0], "id": "d0", "scores": {"kl": 1.0}}]
    _write(folder / f"{corpus}-references.jsonl", beside)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("there", [0, 8, 39])
def test_seeds_that_were_stopped_together_are_told_and_count_nowhere(tmp_path: Path, there: int) -> None:
    runs = [save_run(tmp_path / name) for name in ("whole", "stopped")]
    answer(runs[0])
    answer(runs[1], there=there)
    found = read_evaluations(runs[1])["plain"]
    assert found.answers == found.beside == ()
    assert found.unfinished == tuple(
        f"dolly: seed {seed} has {there} of 40 answers and is left out" for seed in (10, 20)
    )
    assert find_contest([RunLogs.read(run, run.name) for run in runs]) is None
    page = report(runs, tmp_path / "page.html")
    told = answers_of(page)["best"].text
    assert "No two of these runs answered the same examples" in told
    html = page.read_text()
    assert f"stopped, dolly: seed 10 has {there} of 40 answers and is left out." in html
    assert "goes on when the same limbeck evaluate is given again" in html
    # Alone it has a section too, which has no number.
    alone = report(runs[1:], tmp_path / "alone.html")
    answers_of(alone)
    assert "Evaluation: plain" in alone.read_text()
    assert "seed 20 has" in alone.read_text()


def test_a_corpus_that_is_whole_counts_beside_one_that_is_not(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    answer(run)
    answer(run, corpus="vicuna", there=8, seeds=(10,))
    found = read_evaluations(run)["plain"]
    assert {row["corpus"] for row in found.answers} == {row["corpus"] for row in found.beside} == {"dolly"}
    assert len(found.answers) == 80
    assert found.unfinished == ("vicuna: seed 10 has 8 of 40 answers and is left out",)


def test_a_seed_that_was_asked_less_than_another_is_left_out(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    answer(run, seeds=(10,), there=5, asked=5)
    answer(run, seeds=(20,))
    found = read_evaluations(run)["plain"]
    assert {row["seed"] for row in found.answers} == {20}
    assert found.unfinished == ("dolly: seed 10 has 5 of 40 answers and is left out",)


def test_answers_of_the_student_before_are_told_with_what_to_do_and_count_nowhere(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / name) for name in ("one", "longer")]
    answer(runs[0])
    answer(runs[1], weights=BEFORE)
    found = read_evaluations(runs[1])["plain"]
    assert found.answers == found.beside == found.unfinished == ()
    page = report(runs, tmp_path / "page.html")
    assert (
        "longer, dolly: answered by another student than the one that the run keeps now, and left out; evaluate again "
        f"with another --out, or first remove {runs[1] / 'answers' / 'plain'}."
    ) in page.read_text()
    assert "No two of these runs answered the same examples" in answers_of(page)["best"].text
    answer(runs[1], kind="again")
    assert len(read_evaluations(runs[1])["again"].answers) == 80


@pytest.mark.parametrize(("weights", "dtype"), [(None, "float32"), (NOW, "bfloat16")])
def test_where_it_cannot_be_told_which_student_answered_the_answers_count(
    tmp_path: Path, weights: str | None, dtype: str
) -> None:
    run = save_run(tmp_path / "run", weights=weights)
    answer(run, weights=BEFORE, dtype=dtype)
    found = read_evaluations(run)["plain"]
    assert (len(found.answers), found.outdated) == (80, ())


def test_a_teachers_answers_beside_the_students_are_no_evaluation(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    answer(run, seeds=(10,))
    plain = run / "answers" / "plain"
    theirs = (plain / "dolly-answers-seed10.jsonl").read_text().replace(NOW, BEFORE)
    (plain / "dolly-teacher-answers-seed10.jsonl").write_text(theirs)
    found = read_evaluations(run)["plain"]
    assert (len(found.answers), found.outdated) == (40, ())
