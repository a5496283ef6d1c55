"""What each part of MGSR adds, on a real pair and real rows: trains the arms that are missing, then prints the table.

    python benchmarks/mgsr_parts.py --data DOLLY_FOLDER                # train.jsonl and valid.jsonl of the folder
    python benchmarks/mgsr_parts.py --table                            # the table of what is there, nothing trained
    python benchmarks/mgsr_parts.py --data DOLLY_FOLDER --quick        # tiny sizes in a temporary folder

Teacher SmolLM2-135M-Instruct as published, student 15 of its layers after a warm start of 24 steps of SFT; then every
arm from that start, with the same rows: prompts of at most 128 tokens, rows of 192, 24 steps of 16 rows, 48 new tokens,
training seeds 0, 1 and 2; matrix products and the teacher's weights in bfloat16, all else in float32. Every model
answers the same 96 validation rows at temperature 1 with one decoding seed, in float32. The last step is what is
scored. An arm that was measured is not run again; a stopped one goes on. Two processes may share a folder, each with
its own --seeds. What is kept of an arm, without text, is one file in `docs/results/mgsr/`.

Differences are paired by row, the mean over the training seeds first; intervals are 95 % bootstrap over rows.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import limbeck
from limbeck.data.corpora import load_corpus
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import fetch
from limbeck.models.saving import save_student
from limbeck.models.shrinking import measured_layers, shrink
from limbeck.reporting.reduce import Interval, mean_interval, paired_bootstrap
from limbeck.studies.scoring_arms import ScoredArm, score_arm
from limbeck.training.rundir import Run

NAME = "smollm2-135m-instruct"
SEEDS = (0, 1, 2)
BASE: dict[str, Any] = {"base": "gkd", "weights": {"supervised": 1}}
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"base": "sft"},
    "kd": {"base": "kd"},
    "gkd": {"base": "gkd"},
    "base": BASE,
    "base+scrg": {**BASE, "revision": {"kind": "scrg"}},
    "base+dac": {**BASE, "token": {"kind": "dac-kl"}},
    "base+span": {**BASE, "span": {"kind": "correlation"}},
    "mgsr": {"base": "mgsr"},
}
# What the first arms' profile suggested. The clip keeps nearly all mass: is forward KL all that DAC-KL adds to base?
# The references have most of the gradient: revision without them, and all of MGSR with them at a tenth.
TRIED: dict[str, dict[str, Any]] = {
    "base, forward KL": {**BASE, "token": {"kind": "match", "divergence": {"kind": "forward-kl"}}},
    "gkd+scrg": {"base": "gkd", "revision": {"kind": "scrg"}},
    "mgsr, supervised 0.1": {"base": "mgsr", "weights": {"supervised": 0.1}},
}
# What is kept of a step's line of metrics.
_KEPT = ("loss", "terms", "measures", "revision", "origin", "spans", "gradient_shares", "response_tokens", "time")
# Against what a part is judged.
RIVALS = {
    "kd": "sft",
    "gkd": "sft",
    "base": "gkd",
    **dict.fromkeys(("base+scrg", "base+dac", "base+span", "mgsr"), "base"),
    "base, forward KL": "base+dac",
    "gkd+scrg": "gkd",
    "mgsr, supervised 0.1": "mgsr",
}
SCORES = {
    "ROUGE-L": ("answers", "rouge_l", 100.0, 1, +1),
    "KL(t‖s) refs": ("references", "kl_teacher_student", 1.0, 3, -1),
    "KL(s‖t) own": ("own", "kl_student_teacher", 1.0, 3, -1),
}


class Study:
    """Where things lie, and how large they are."""

    def __init__(self, *, work: Path, results: Path, data: Path | None, quick: bool) -> None:
        self.work, self.results, self.data = work, results, data
        self.steps, self.rows, self.held_out, self.tokens = (2, 4, 8, 8) if quick else (24, 16, 96, 48)

    def recipe(self, method: Mapping[str, Any], *, student: Path, seed: int, run: Path, rate: float) -> dict[str, Any]:
        assert self.data is not None, "--data names the folder of train.jsonl and valid.jsonl"
        has_teacher = method["base"] != "sft"
        draws = method["base"] not in ("sft", "kd")
        return {
            "method": dict(method),
            "models": {
                "student": str(student),
                **({"teacher": str(fetch(NAME)), "teacher_dtype": "bf16"} if has_teacher else {}),
            },
            "data": {
                "corpus": str(self.data / "train.jsonl"),
                "valid": str(self.data / "valid.jsonl"),
                "max_prompt": 128,
                "max_length": 192,
                "long_prompt": "cut",
            },
            **({"sampling": {"max_new_tokens": self.tokens}} if draws else {}),
            "train": {
                "steps": self.steps,
                "batch_rows": self.rows,
                "learning_rate": rate,
                "seed": seed,
                "precision": "bf16-mixed",
            },
            "validate": {"every": None},
            "run": str(run),
        }

    def trained(self, name: str, method: Mapping[str, Any], *, student: Path, seed: int, rate: float) -> Path:
        run = self.work / name
        limbeck.train(
            self.recipe(method, student=student, seed=seed, run=run, rate=rate),
            resume=(run / "recipe.yaml").is_file(),
        )
        return run

    def score(self, name: str, folder: Path, run: Path | None) -> ScoredArm:
        assert self.data is not None
        examples = load_corpus(str(self.data / "valid.jsonl"), max_rows=self.held_out).examples
        return score_arm(
            name,
            folder,
            examples,
            teacher=None if name == "teacher" else str(fetch(NAME)),
            max_prompt=128,
            new_tokens=self.tokens,
            out=self.work / "scored" / name,
            run=run,
        )

    def keep(self, name: str, arm: ScoredArm, run: Path | None) -> None:
        """Scores by row, and what the run's metrics say on average; no text."""
        rows = {} if run is None else [row for row in Run(run).metrics() if row["kind"] == "step"]
        found = {
            "scores": {
                title: {id: round(value, 6) for id, value in sorted(arm.values(measure, score).items())}
                for title, (measure, score, *_) in SCORES.items()
            },
            "steps": [{key: row[key] for key in _KEPT if key in row} for row in rows],
        }
        self.results.mkdir(parents=True, exist_ok=True)
        draft = self.results / f".{name}.draft"
        draft.write_text(json.dumps(found, ensure_ascii=False) + "\n")
        os.replace(draft, self.results / f"{name}.json")
        print(f"kept {name}", flush=True)

    def run(self, seeds: tuple[int, ...], arms: list[str]) -> None:
        shrunk = self.work / "shrunk"
        if not (shrunk / "config.json").is_file():
            small = shrink(load_model(str(fetch(NAME)), device="cpu"), layers=measured_layers(NAME, 15))
            save_student(small, load_tokenizer(str(fetch(NAME))), shrunk)
        if not self.is_kept("teacher"):
            self.keep("teacher", self.score("teacher", fetch(NAME), None), None)
        warm = self.trained("warm-start", {"base": "sft"}, student=shrunk, seed=100, rate=5e-4)
        if not self.is_kept("warm-start"):
            self.keep("warm-start", self.score("warm-start", warm / "student", warm), warm)
        for seed in seeds:
            for arm in arms:
                name = _name(arm, seed)
                if not self.is_kept(name):
                    run = self.trained(name, (ARMS | TRIED)[arm], student=warm / "student", seed=seed, rate=3e-4)
                    self.keep(name, self.score(name, run / "student", run), run)

    def is_kept(self, name: str) -> bool:
        return (self.results / f"{name}.json").is_file()

    def found(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.results / f"{name}.json").read_text()))

    def seeds(self, arm: str) -> list[int]:
        """The training seeds of an arm that are there."""
        return [seed for seed in SEEDS if self.is_kept(_name(arm, seed))]

    def values(self, arm: str, title: str, seeds: list[int] | None = None) -> dict[str, float]:
        """Score by row, the mean over these training seeds, by default over those that are there."""
        chosen = self.seeds(arm) if seeds is None else seeds
        names = [name for name in [arm, *(_name(arm, seed) for seed in chosen)] if self.is_kept(name)]
        parts = [self.found(name)["scores"][title] for name in names]
        return {id: sum(part[id] for part in parts) / len(parts) for id in parts[0]} if parts and parts[0] else {}


def _name(arm: str, seed: int) -> str:
    return f"{arm.replace(', ', '-').replace(' ', '-')}-seed{seed}"


def table(study: Study) -> str:
    """Markdown: every arm's means, and the difference from its rival with interval and verdict."""
    lines = [
        "| arm | seeds | " + " | ".join(SCORES) + " |",
        "| --- | ---: |" + " ---: |" * len(SCORES),
    ]
    arms = [arm for arm in ("teacher", "warm-start", *ARMS, *TRIED) if study.values(arm, "ROUGE-L")]
    for arm in arms:
        cells = []
        for title, (_, _, scale, digits, _) in SCORES.items():
            values = study.values(arm, title)
            cells.append(_shown(mean_interval(values, seed=0), scale, digits) if values else "–")
        lines.append(f"| {arm} | {len(study.seeds(arm)) or 1} | " + " | ".join(cells) + " |")
    lines += ["", "| part | against | seeds | " + " | ".join(SCORES) + " |"]
    lines += ["| --- | --- | ---: |" + " --- |" * len(SCORES)]
    for arm, rival in RIVALS.items():
        if arm not in arms or rival not in arms:
            continue
        both = [seed for seed in study.seeds(arm) if seed in study.seeds(rival)]
        if not both:
            continue
        cells = []
        for title, (_, _, scale, digits, sign) in SCORES.items():
            gap = paired_bootstrap(study.values(arm, title, both), study.values(rival, title, both), seed=0)
            verdict = "cannot be told"
            if gap.excludes_zero:
                verdict = "helps" if sign * gap.mean > 0 else "does harm"
            cells.append(f"{_shown(gap, scale, digits, signed=True)} {verdict}")
        lines.append(f"| {arm} | {rival} | {len(both)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def profile(study: Study) -> str:
    """Markdown: what the parts did in their steps, averaged over steps and seeds."""
    columns = {
        "rows revised %": ("revision", "revised_rows", 100.0),
        "tokens unlike the teacher's %": ("revision", "mismatches", 100.0),
        "KL(s‖t) there": ("revision", "kl_corrected", 1.0),
        "place of j (0 first, 1 last)": ("revision", "place", 1.0),
        "kept mass %": ("measures", "token/kept_mass", 100.0),
        "kept classes": ("measures", "token/kept_classes", 1.0),
        "only the target %": ("measures", "token/only_target", 100.0),
        "token term's share of gradients %": ("gradient_shares", "token", 100.0),
        "references' share %": ("gradient_shares", "supervised", 100.0),
        "span term": ("terms", "span", 1.0),
        "span's share %": ("gradient_shares", "span", 100.0),
    }
    lines = ["| arm | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for arm in (*ARMS, *TRIED):
        steps = [row for seed in study.seeds(arm) for row in study.found(_name(arm, seed))["steps"]]
        cells = []
        for part, name, scale in columns.values():
            values = [row[part][name] for row in steps if name in row.get(part, {})]
            cells.append(f"{scale * sum(values) / len(values):.3g}" if values else "–")
        if any(cell != "–" for cell in cells):
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(interval: Interval, scale: float, digits: int, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with train.jsonl and valid.jsonl")
    parser.add_argument("--work", type=Path, default=Path("runs/mgsr-parts"), help="where runs and answers lie")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent.parent / "docs/results/mgsr")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--arms", default=";".join(ARMS), help="with semicolons between")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work, results = (Path(scratch), Path(scratch) / "results") if given.quick else (given.work, given.results)
        study = Study(work=work, results=results, data=given.data, quick=given.quick)
        if not given.table:
            seeds = (0,) if given.quick else tuple(int(seed) for seed in given.seeds.split(","))
            study.run(seeds, given.arms.split(";"))
        print(table(study), profile(study), sep="\n\n")


if __name__ == "__main__":
    main()
