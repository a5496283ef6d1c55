"""What UNDO's rounds are worth against their controls, in real runs: trains the arms that are missing, prints tables.

    python benchmarks/undo_runs.py --data DATA --tasks arithmetic,svamp     # hours; DATA holds svamp/, gsm8k/, …
    python benchmarks/undo_runs.py --data DATA --tasks strategyqa
    python benchmarks/undo_runs.py --data DATA --tasks transfer             # of the tasks whose runs lie in --work
    python benchmarks/undo_runs.py --tasks http --url http://127.0.0.1:8000/v1 --model NAME
    python benchmarks/undo_runs.py --table                                  # tables of what is there, nothing trained
    python benchmarks/undo_runs.py --write                                  # the same, into docs/results/undo.md
    python benchmarks/undo_runs.py --data DATA --quick                      # tiny sizes in a temporary folder

`arithmetic`: 2,000 generated problems of two operations, 2,000 others as test; the solver teaches a student of random
weights. `svamp`: SVAMP's and 600 of GSM8K's training questions with the solver (for GSM8K it reads the equations of the
solutions), tested on SVAMP. `strategyqa`: 400 questions with the teacher of facts, and 15 layers of
SmolLM2-135M-Instruct; its controls are run with the first seed alone. `transfer`: the first and the last round's rows
for a student of another depth. `http`: a language model behind a real server on this machine, a few dozen calls.

An arm is the method or a control, with three rewriting rounds where it has any, whatever the stop rules would say. What
was measured is not run again; what was stopped goes on through Limbeck's own resume. Several processes may share a
folder, each with its own --tasks or --seeds. What is kept of an arm, without any text, is one file in
docs/results/undo/.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from undo_claims import tables, write_page
from undo_recipes import ROUNDS, Recipes
from undo_tables import ARMS, MAIN, TASKS, Kept, marked

from limbeck.blackbox.artefacts import EVENTS, read_json, read_rows
from limbeck.blackbox.ledger import LEDGER, Ledger
from limbeck.blackbox.loop import UndoRun, run_undo
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.scratch import scratch_model
from limbeck.blackbox.transferring import transfer
from limbeck.errors import NothingToLearn
from limbeck.models.loading import load_tokenizer
from limbeck.models.saving import save_student

SEEDS = (0, 1)
PAGE = Path(__file__).parent.parent / "docs/results/undo.md"
# What is kept of a round's metrics.json.
_SUMMARY = ("refined", "accepted", "asked", "rejected", "rows", "kinds", "row_tokens", "distinct_texts", "train")
_SUMMARY += ("accuracy", "errors", "answer_tokens", "flow", "cost", "rationale_nll")


class Study:
    """What is run, by which recipes, and where it is kept."""

    def __init__(self, recipes: Recipes, kept: Kept) -> None:
        self.recipes, self.kept, self.work = recipes, kept, recipes.work

    def run(self, task: str, seed: int, arms: Sequence[str]) -> None:
        """The arms of a task that are not kept yet: the common start and the method before any control."""
        for arm in (each for each in ARMS if each in arms):
            if self.kept.has(task, arm, seed):
                continue
            recipe = self.recipes.recipe(task, seed)
            place = Path(recipe["run"])
            is_start = arm == "one-shot" and not (place / "arms" / MAIN / "iter_01").is_dir()
            recipe["method"]["rounds"] = 0 if is_start else ROUNDS
            recipe["controls"] = [
                each
                for each in ARMS
                if each != MAIN and (each == arm or (place / "arms" / each / "outcome.json").is_file())
            ]
            run = run_undo(recipe, resume=(place / "recipe.yaml").is_file())
            self.keep(task, arm, seed, run)

    def keep(self, task: str, arm: str, seed: int, run: UndoRun) -> None:
        """One arm's rows without text; of a round that several arms share only with one-shot."""
        outcome, place = run.arms[arm], run.directory
        folders = [place / each for each in outcome["rounds"] if arm == "one-shot" or each.startswith("arms")]
        untouched = place / "arms" / "untouched"
        if arm == "one-shot" and untouched.is_dir():
            found = {"task": task, "arm": "untouched", "seed": seed, "best": 0, "reason": "no training"}
            self.kept.write({**found, "seconds": 0, "rounds": [self._round(task, place, untouched)]})
        self.kept.write(
            {
                "task": task,
                "arm": arm,
                "seed": seed,
                "best": outcome["best"],
                "reason": outcome["reason"],
                "seconds": round(sum(_seconds(place, folder) for folder in folders)),
                "threads": torch.get_num_threads(),
                "rounds": [self._round(task, place, folder) for folder in folders],
            }
        )
        for weights in (each for folder in folders for each in folder.glob("training*/student/*.safetensors")):
            # The start's student is asked by later arms; the others' have answered all that they are asked.
            if arm != "one-shot":
                weights.unlink()

    def _round(self, task: str, run: Path, folder: Path) -> dict[str, Any]:
        metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {"round": 0}
        parts = {part: read_rows(folder / f"{part}_attempts.jsonl") for part in ("stop", "test")}
        for part, rows in parts.items():
            self.kept.check_questions(task, part, [row["item_id"] for row in rows])
        return {
            "round": metrics["round"],
            "summary": _rounded({key: metrics[key] for key in _SUMMARY if key in metrics}),
            "parts": {part: marked(rows) for part, rows in parts.items()},
        }

    def transfer(self, seed: int) -> None:
        """The first and the last round's rows for a second student, of another depth."""
        for task in TASKS:
            run = self.work / f"{task}-seed{seed}"
            if self.kept.has(task, "transfer", seed) or not (run / "arms" / MAIN / "outcome.json").is_file():
                continue
            other = self.recipes.shrunk(12) if task == "strategyqa" else self._deeper(run)
            numbers = transfer(run, str(other), round=ROUNDS)
            folder = run / "transfer" / str(other).strip("/.~").replace("/", "-")
            rounds = [
                {
                    "round": number,
                    "summary": {"left_out": numbers["left_out"][kind]},
                    "parts": {
                        part: marked(read_rows(folder / kind / f"{part}_attempts.jsonl")) for part in ("stop", "test")
                    },
                }
                for number, kind in ((0, "first"), (ROUNDS, "final"))
            ]
            found = {"task": task, "arm": "transfer", "seed": seed, "best": ROUNDS, "reason": other.name}
            self.kept.write({**found, "seconds": round(_seconds(folder, folder)), "rounds": rounds})

    def _deeper(self, run: Path) -> Path:
        """A student of random weights with twice the layers, and the tokenizer of the run's own."""
        section = UndoRecipe.load(run).student.scratch
        assert section is not None, "a run whose student is made from nothing"
        folder = run.with_name(f"{run.name}-deeper")
        tokenizer = load_tokenizer(str(run / "scratch"))
        model = scratch_model(replace(section, layers=2 * section.layers), tokens=len(tokenizer))
        return save_student(model, tokenizer, folder, stop_ids=[3], pad_id=0)

    def over_http(self, url: str, model: str) -> None:
        """A language model as teacher, over HTTP: a few dozen calls on questions of one operation."""
        if self.kept.has("http", MAIN, 0):
            return
        recipe = {
            "teacher": {"kind": "http", "url": url, "model": model, "concurrency": 1, "timeout": 600, "max_tokens": 96},
            "task": {"name": "arithmetic", "steps": [1], "largest": 20, "train": 12, "probe": 2, "stop": 4, "test": 8},
            "student": self.recipes.scratch(0, width=32, layers=2, prompt=96, answer=96),
            "method": {"base": MAIN, "rounds": 1, "feedback": "hybrid", "carry": "previous_accepted"},
            "train": {"epochs": 2, "batch_rows": 2, "learning_rate": 3e-3},
            "stop": {"min_accepted": 0.0},
            "budget": {"calls": 90},
            "run": str(self.work / "http"),
        }
        # A model of this size is seldom right: it is told the answer where all else failed.
        recipe["method"] |= {"retries": 1, "hints": "answer"}
        place = self.work / "http"
        try:
            outcome = run_undo(recipe, resume=(place / "recipe.yaml").is_file()).arms[MAIN]
        except NothingToLearn as error:
            outcome = {"best": 0, "reason": str(error).split(";")[0], "rounds": []}
        rounds = [self._round("http", place, place / each) for each in outcome["rounds"]]
        with Ledger.open(place / LEDGER) as ledger:
            spent = ledger.spent()
        found = {"task": "http", "arm": MAIN, "seed": 0, "best": outcome["best"], "reason": outcome["reason"]}
        calls = {"calls": spent.calls, "attempts": spent.attempts, "prompt_tokens": spent.prompt_tokens}
        calls["completion_tokens"] = spent.completion_tokens
        self.kept.write({**found, "model": Path(model).name, "spent": calls, "rounds": rounds})


def _seconds(run: Path, folder: Path) -> float:
    """What the stages of a folder took, each in the start in which it ended."""
    where = str(folder.relative_to(run)) if folder != run else ""
    began: dict[tuple[str, str], float] = {}
    total = 0.0
    for row in read_rows(run / EVENTS):
        key = (row["folder"], row["stage"])
        if row["event"] == "begin":
            began[key] = row["at"]
        elif row["event"] == "done" and (row["folder"] == where or not where):
            total += row["at"] - began[key]
    return total


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with svamp, gsm8k and strategyqa")
    parser.add_argument("--work", type=Path, default=Path("runs/undo-runs"), help="where runs lie")
    parser.add_argument("--results", type=Path, default=PAGE.with_suffix(""))
    parser.add_argument("--tasks", default=",".join(TASKS), help="of these, transfer and http")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where students are trained and answer")
    parser.add_argument("--url", help="http: the endpoint, http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="http: what the endpoint calls its model")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--write", action="store_true", help="fill docs/results/undo.md")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        work, results = (Path(scratch), Path(scratch) / "results") if given.quick else (given.work, given.results)
        study = Study(Recipes(work=work, data=given.data, quick=given.quick, device=given.device), Kept(results))
        if not (given.table or given.write):
            seeds = (0,) if given.quick else tuple(int(seed) for seed in given.seeds.split(","))
            _train(study, given, seeds)
        if given.write:
            write_page(PAGE, study.kept)
        else:
            print("\n\n".join(tables(study.kept).values()))


def _train(study: Study, given: argparse.Namespace, seeds: Sequence[int]) -> None:
    for task in given.tasks.split(","):
        if task == "http":
            study.over_http(given.url, given.model)
            continue
        for seed in seeds:
            if task == "transfer":
                study.transfer(seed)
                continue
            arms = given.arms.split(",")
            if task == "strategyqa" and seed:
                arms = [arm for arm in arms if arm in (MAIN, "one-shot")]
            study.run(task, seed, arms)


if __name__ == "__main__":
    main()
