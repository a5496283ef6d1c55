"""The eight answers of a page about runs, read from its HTML; the runs are folders written by hand."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.config import Recipe
from limbeck.reporting.runs import report
from page_kit import Told, answers_of

HOSTILE = "</script><img src=x onerror=alert(1)>"
COUNTS = {"read": 40, "kept": 40, "dropped_prompts": 0, "cut_prompts": 0, "cut_responses": 0, "boundary_merges": 0,
          "control_tokens": 0, "cut_rows": 0, "dropped_ids": [], "cut_ids": []}  # fmt: skip
IDS = [f"v{n}" for n in range(30)]


def _step(step: int, **more: Any) -> dict[str, Any]:
    row = {"kind": "step", "step": step, "loss": 1.0, "terms": {"token": 1.0}, "tokens": {"token": 100},
           "gradient_norm": 1.0, "origin": {"reference": 1.0}, "response_tokens": 9.0,
           "time": {"seconds": 3.0, "draw": 0.0, "revise": 0.0, "learn": 3.0, "tokens_per_second": 33.0}}  # fmt: skip
    return row | more


def _validation(step: int, rouge: float, *, is_best: bool) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "loss": 1.5, "terms": {}, "cross_entropy": 2.0, "rouge_l": rouge,
            "metric": "rouge-l", "is_best": is_best}  # fmt: skip


def _hard(id: str) -> float:
    return random.Random(id).uniform(0.1, 0.5)


def save_run(
    folder: Path,
    *,
    base: str = "mgsr",
    level: float = 0.0,
    noise: float = 0.0,
    metrics: Sequence[Mapping[str, Any]] = (),
    evaluated: Sequence[str] = (),
    text: str = "said",
    counted: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A finished run of ten steps with validations at 5 and 10, and evaluations of two decoding seeds."""
    rng = random.Random(f"{folder.name}")
    scores = {id: _hard(id) + level + rng.uniform(-noise, noise) for id in IDS}
    means = {step: sum(each - drop for each in scores.values()) / len(IDS) for step, drop in ((5, 0.05), (10, 0.0))}
    (folder / "validation").mkdir(parents=True)
    values = {
        "method": {"base": base},
        "models": {"teacher": None if base == "sft" else "the-teacher", "student": "the-student"},
        "data": {"corpus": "dolly", "max_prompt": 64, "max_length": 96},
        "sampling": {"temperature": 1.0},
        "train": {"steps": 10, "batch_rows": 8, "seed": 0},
        "watch": {"every": 50, "rows": 8, "repetition": 0.5, "clip_collapsed": 0.9},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**values, **settings}))
    rows = metrics or [_step(step) for step in range(1, 11)]
    rows = [*rows, _validation(5, means[5], is_best=True), _validation(10, means[10], is_best=True)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, drop in ((5, 0.05), (10, 0.0)):
        lines = [_answer("validation", id, 10, scores[id] - drop, text) for id in IDS]
        (folder / "validation" / f"step-{step:06d}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    for corpus in evaluated:
        for seed in (10, 20):
            header = {"corpus": corpus, "seed": seed, "examples": len(IDS), "decoding": {"temperature": 1},
                      "content": "c", "max_prompt": 64}  # fmt: skip
            lines = [header, *(_answer(corpus, id, seed, scores[id], text) for id in IDS)]
            path = folder / "answers" / "plain" / f"{corpus}-answers-seed{seed}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    told = {"max_prompt": 64, "max_length": 96, "train": COUNTS, "validation": {**COUNTS, "read": 30}}
    (folder / "rows.json").write_text(json.dumps(told if counted is None else counted))
    (folder / "environment.json").write_text('{"device": "cpu", "threads": 2, "versions": {"limbeck": "9.9"}}')
    (folder / "finished.json").write_text('{"step": 10}')
    return folder


def _answer(corpus: str, id: str, seed: int, score: float, text: str) -> dict[str, Any]:
    return {"corpus": corpus, "seed": seed, "id": id, "text": text, "tokens": [1], "num_tokens": 1, "stopped": True,
            "references": ["right"], "category": "", "question": f"asked of {id}",
            "scores": {"rouge_l": score}}  # fmt: skip


def _told(runs: Sequence[Path], out: Path) -> dict[str, Told]:
    return answers_of(report(runs, out / "page.html"))


def test_one_run_has_all_eight_and_claims_no_best(tmp_path: Path) -> None:
    run = save_run(tmp_path / "mine")
    told = _told([run], tmp_path)
    assert "holds one run, mine (mgsr), so that no arm can be called the best" in told["best"].text
    assert told["best"].command == f"limbeck report {run} OTHER_RUN"
    assert "no SFT run here" in told["sft"].text
    assert told["sft"].command.splitlines() == [
        f"limbeck train {run}/recipe.yaml method.base=sft models.teacher=null run={run}-sft",
        f"limbeck report {run} {run}-sft",
    ]
    assert "The student of step 10 is kept: of 2 validations it has the highest ROUGE-L" in told["checkpoint"].text
    assert "the runner-up is step 5" in told["checkpoint"].text
    assert "5.0 [5.0, 5.0] points behind on the same 30 rows (95 % paired bootstrap)" in told["checkpoint"].text
    assert told["rows"].text == (
        "None of 40 training rows was dropped or cut; none of 30 validation rows was dropped or cut."
    )
    assert told["drawn"].text == (
        "0.0 % of the rows of 10 steps were drawn by the student; the others are the corpus's (100.0 %). "
        "Nothing was revised."
    )
    assert told["watch"].text == "No failure signature showed in 10 steps."
    assert "10 steps took 30 s (learning 100 %) on cpu with 2 threads; 1,000 response tokens" in told["cost"].text
    assert told["repeat"].command == f"limbeck train {run}/recipe.yaml run={run}-again"
    assert "limbeck 9.9" in told["repeat"].text


def test_the_command_for_an_sft_run_is_one_that_train_takes(tmp_path: Path) -> None:
    values = {"method": {"base": "kd"}, "models": {"teacher": "t", "student": "s"}, "data": {"corpus": "dolly"},
              "train": {"epochs": 2}, "watch": {"rows": 0}, "cache": {"kind": "memory"}, "run": "r"}  # fmt: skip
    run = save_run(tmp_path / "mine")
    (run / "recipe.yaml").write_text(Recipe.load(values).dump())
    words = shlex.split(_told([run], tmp_path)["sft"].command.splitlines()[0])
    assert words[:2] == ["limbeck", "train"]
    loaded = Recipe.load(Path(words[2]), words[3:])
    assert (loaded.method["base"], loaded.run, loaded.models.student) == ("sft", f"{run}-sft", "s")


def test_the_best_of_several_runs_leads_with_a_paired_interval_and_sft_is_held_against_each(tmp_path: Path) -> None:
    runs = [
        save_run(tmp_path / "sft", base="sft"),
        save_run(tmp_path / "mgsr", level=0.06, noise=0.01),
        save_run(tmp_path / "gkd", base="gkd", level=0.0, noise=0.05),
    ]
    told = _told(runs, tmp_path)
    assert told["best"].text.startswith("mgsr has the highest ROUGE-L on the validation rows")
    assert "on the same 30 examples (95 % paired bootstrap" in told["best"].text
    assert "more than chance" in told["best"].text
    assert told["best"].links == ["#results", "#scores"]
    better, same, seeds = told["sft"].lines
    assert better.startswith("mgsr − sft: +6.")
    assert "after Holm over 2 comparisons); yes, it is better." in better
    assert same.startswith("gkd − sft: ")
    assert "not shown: it could be chance" in same
    assert "differ" not in better
    assert "One training seed" in seeds
    assert told["rows"].text.startswith("sft, mgsr, gkd: none of 40")


def test_equal_runs_are_not_told_apart(tmp_path: Path) -> None:
    told = _told([save_run(tmp_path / name, noise=0.04) for name in ("a", "b")], tmp_path)
    assert "not told apart from chance" in told["best"].text
    assert "no SFT run" in told["sft"].text


def test_a_worse_method_is_said_to_be_worse_and_what_else_differs_is_named(tmp_path: Path) -> None:
    sft = save_run(tmp_path / "sft", base="sft", train={"steps": 20, "batch_rows": 8, "seed": 0})
    told = _told([sft, save_run(tmp_path / "kd", base="kd", level=-0.1, noise=0.01)], tmp_path)
    assert told["best"].text.startswith("sft has the highest")
    assert "yes, and it is worse. The two differ in train.steps too" in told["sft"].text


def test_an_evaluation_is_preferred_to_validation_rows(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / name, base=name, evaluated=["dolly", "vicuna"]) for name in ("sft", "kd")]
    told = _told(runs, tmp_path)
    assert "ROUGE-L on dolly, vicuna (evaluation: plain)" in told["best"].text
    assert "the same 60 examples" in told["best"].text
    assert told["best"].links == ["#evaluation-plain", "#rows-plain"]


def test_answers_that_were_drawn_otherwise_are_not_compared(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / name, base=name, evaluated=["dolly"]) for name in ("sft", "kd")]
    for path in runs[1].glob("answers/plain/*.jsonl"):
        path.write_text(path.read_text().replace('"temperature": 1', '"temperature": 0.5'))
    for path in runs[1].glob("validation/*.jsonl"):
        path.write_text(path.read_text().replace('"right"', '"other"'))
    told = _told(runs, tmp_path)
    assert "0.0000" not in told["best"].text
    assert "cross-entropy on the validation references" in told["best"].text
    assert "no interval can be given" in told["best"].text
    assert "did not answer the same examples" in told["sft"].text


def test_of_an_evaluation_that_is_still_going_the_finished_seeds_are_shown(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / name, base=name, evaluated=["dolly", "vicuna"]) for name in ("sft", "kd")]
    whole = _told(runs, tmp_path)["best"].text
    going = runs[1] / "answers" / "plain" / "vicuna-answers-seed20.jsonl"
    lines = going.read_text().splitlines()
    going.write_text("\n".join(lines[:12]) + '\n{"corpus": "vicuna", "se')
    assert _told(runs, tmp_path)["best"].text == whole, "both seeds of these hand-made runs have the same scores"
    page = (tmp_path / "page.html").read_text()
    assert f"kd, vicuna: seed 20 has 11 of {len(IDS)} answers and is left out." in page


def test_rows_that_were_dropped_and_cut_are_counted_and_named(tmp_path: Path) -> None:
    train = {**COUNTS, "kept": 38, "dropped_prompts": 2, "cut_responses": 3, "dropped_ids": ["long-1", "long-2"],
             "cut_ids": ["cut-1", "cut-2", "cut-3"]}  # fmt: skip
    counted = {"max_prompt": 64, "max_length": 96, "train": train, "validation": {**COUNTS, "read": 0}}
    page = report([save_run(tmp_path / "mine", counted=counted)], tmp_path / "page.html")
    told = answers_of(page)["rows"]
    assert told.text == (
        "Of 40 training rows 2 were dropped, their prompts longer than data.max_prompt = 64 (data.long_prompt=cut "
        "keeps them) and 3 had the response cut at data.max_length = 96, and teach no end of turn."
    )
    assert told.links == ["#rows"]
    assert "long-1, long-2, cut-1, cut-2, cut-3" in page.read_text()


def test_a_run_that_recorded_nothing_of_its_rows_says_so(tmp_path: Path) -> None:
    run = save_run(tmp_path / "old")
    (run / "rows.json").unlink()
    told = _told([run], tmp_path)["rows"]
    assert told.text.startswith("Not recorded: the run has no rows.json")
    assert told.links == []


def test_what_was_drawn_and_revised_is_a_mean_over_steps(tmp_path: Path) -> None:
    revised = {"origin": {"revised": 0.5, "student": 0.25, "reference": 0.25},
               "revision": {"revised_rows": 2 / 3, "place": 0.5}}  # fmt: skip
    plain = {"origin": {"replayed": 1.0}}
    metrics = [_step(1, **revised), _step(2, **plain)]
    told = _told([save_run(tmp_path / "mine", metrics=metrics)], tmp_path)["drawn"].text
    assert told == (
        "37.5 % of the rows of 2 steps were drawn by the student; the others are replayed from its earlier responses "
        "(50.0 %), the corpus's (12.5 %). Revised were 25.0 % of all rows, 66.7 % of the drawn ones, on average at "
        "0.50 of the response (0 its first token, 1 its last)."
    )


def _sign(name: str, step: int, message: str, advice: str) -> dict[str, Any]:
    return {"kind": "watch", "step": step, "name": name, "value": 1.0, "threshold": 0.9, "message": message,
            "advice": advice}  # fmt: skip


@pytest.mark.parametrize("name", ["clip-collapsed", "revision-harm", "span-dominates"])
def test_a_signature_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    metrics = [_step(1), _step(2), _sign(name, 2, "the thing <broke>", "Mend it.")]
    told = _told([save_run(tmp_path / "sick", metrics=metrics)], tmp_path)["watch"]
    assert told.text == f"Yes, after step 2: {name}. The thing <broke>. Mend it."
    assert told.links == ["#signatures", "#training"]


def test_a_run_too_short_to_be_judged_and_one_that_watched_nothing(tmp_path: Path) -> None:
    short = save_run(tmp_path / "short", metrics=[_step(1)])
    assert "there were fewer steps" in _told([short], tmp_path)["watch"].text
    blind = save_run(tmp_path / "blind", watch={"every": 50, "rows": 8, "repetition": None})
    assert "nothing is known" in _told([blind], tmp_path)["watch"].text
    old = save_run(tmp_path / "old", watch={})
    assert "nothing here says whether a rule was on" in _told([old], tmp_path)["watch"].text


def test_what_no_command_repeats_is_said(tmp_path: Path) -> None:
    rows = save_run(tmp_path / "rows", data={"corpus": None})
    own = save_run(tmp_path / "own", method={"base": "gkd", "token": {"divergence": {"kind": "mine:Own"}}})
    told = _told([rows, own], tmp_path)["repeat"]
    assert "rows: no command repeats it: its rows were handed over in Python" in told.text
    assert "own: its parts mine:Own are your own" in told.text
    assert told.command == ""


def test_a_run_that_goes_on_says_so_far_and_one_without_validation_keeps_the_last(tmp_path: Path) -> None:
    run = save_run(tmp_path / "young")
    (run / "finished.json").unlink()
    assert _told([run], tmp_path)["checkpoint"].text.startswith("So far, for the run is not finished: the student of")
    (run / "metrics.jsonl").write_text(json.dumps(_step(1)) + "\n")
    assert "the student of the last step, 1," in _told([run], tmp_path)["checkpoint"].text
    (run / "metrics.jsonl").write_text("")
    told = _told([run], tmp_path)
    assert "no share is known" in told["drawn"].text


def test_hostile_answers_stay_text_and_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [
        save_run(tmp_path / "sft", base="sft", text="a red cat", evaluated=["dolly"]),
        save_run(tmp_path / "mgsr", text=f"a cat {HOSTILE}", evaluated=["dolly"]),
    ]
    html = report(runs, tmp_path / "page.html").read_text()
    assert HOSTILE not in html
    assert "<img" not in html
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html
    assert "Word by word: sft to mgsr" in html
    assert "<del>red </del>" in html
    assert "asked of v0" in html
    assert 'href="#answers-0"' in html
    assert 'id="answers-plain-0"' in html
    # The contents lead to each section, and not to an element above it that bears its name.
    assert len(idents := re.findall(r'\bid="([^"]+)"', html)) == len(set(idents))
    assert '<a href="#answers">' in html
