"""The tables of undo_runs.py, from the files of docs/results/undo/ alone: no model, no run, no data."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.blackbox.failures import ERROR_CLASSES
from limbeck.reporting.reduce import Interval, mean_interval, paired_bootstrap

MAIN = "undo-v1"
ARMS = ("one-shot", MAIN, "shuffled", "blind", "one-shot-long", "union", "star", "format-only")
TASKS = ("arithmetic", "svamp", "strategyqa")
_RIGHT, _FALLBACK = ".", ","
_LETTERS = dict(zip(ERROR_CLASSES, "abcdefghijklmnopqrstuvwxyz", strict=False))


def marked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Answers without text, one letter each: "." right, "," right where nothing better stood, else a letter for the
    class of the error; and their lengths in tokens."""
    marks = [_mark(row) for row in rows]
    return {"marks": "".join(marks), "tokens": " ".join(str(row["num_tokens"]) for row in rows)}


def _mark(row: Mapping[str, Any]) -> str:
    if row["correct"]:
        return _RIGHT if row["strict"] else _FALLBACK
    return _LETTERS[row["error"] or "unknown"]


class Kept:
    """What was measured: a file an arm, and one a task with the ids of its questions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, task: str, arm: str, seed: int) -> Path:
        return self.folder / f"{task}-{arm}-seed{seed}.json"

    def has(self, task: str, arm: str, seed: int) -> bool:
        return self.path(task, arm, seed).is_file()

    def seeds(self, task: str, arm: str) -> list[int]:
        """The seeds of an arm that are there."""
        names = self.folder.glob(f"{task}-{arm}-seed*.json")
        return sorted(int(found[1]) for name in names if (found := re.search(r"-seed(\d+)\.json$", name.name)))

    def read(self, task: str, arm: str, seed: int) -> dict[str, Any]:
        return dict(json.loads(self.path(task, arm, seed).read_text()))

    def write(self, found: Mapping[str, Any]) -> None:
        path = self.path(found["task"], found["arm"], found["seed"])
        write_whole(path, json.dumps({"classes": _LETTERS, **found}, ensure_ascii=False) + "\n")
        print(f"kept {path.name}", flush=True)

    def check_questions(self, task: str, part: str, ids: Sequence[str]) -> None:
        """Note a part's questions, in the order of every arm's marks. Raises where another arm had others."""
        path = self.folder / f"questions-{task}.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if known.setdefault(part, list(ids)) != list(ids):
            raise ValueError(f"the questions of {part} are not those of {path}; measure in a folder of its own")
        write_whole(path, json.dumps(known) + "\n")

    def right(self, task: str, arm: str, seed: int, number: int | None = None) -> dict[str, float]:
        """1 or 0 by test question of an arm's best round, or of round `number` (-1: the last)."""
        found = self.read(task, arm, seed)
        rounds = {each["round"]: each for each in found["rounds"]}
        wanted = found["best"] if number is None else max(rounds) if number < 0 else number
        if wanted not in rounds:
            rounds = {each["round"]: each for each in self.read(task, "one-shot", seed)["rounds"]}
        ids = json.loads((self.folder / f"questions-{task}.json").read_text())["test"]
        marks = rounds[wanted]["parts"]["test"]["marks"]
        return {id: float(mark in (_RIGHT, _FALLBACK)) for id, mark in zip(ids, marks, strict=True)}

    def mean(self, task: str, arm: str, seeds: Sequence[int], number: int | None = None) -> dict[str, float]:
        """The same, the mean over seeds."""
        parts = [self.right(task, arm, seed, number) for seed in seeds]
        return {id: sum(part[id] for part in parts) / len(parts) for id in parts[0]}


def write_whole(path: Path, text: str) -> None:
    """A whole file or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How much a student's accuracy moves between seeds on the same questions: the variance of one training."""

    variance: float
    pairs: int

    @classmethod
    def of(cls, kept: Kept, task: str) -> Retraining:
        """Over all rounds that were trained with two seeds: the mean of (a − b)²/2."""
        squares = []
        for arm in ARMS:
            both = kept.seeds(task, arm)[:2]
            if len(both) < 2:
                continue
            files = [{each["round"]: each for each in kept.read(task, arm, seed)["rounds"]} for seed in both]
            for number in sorted(files[0].keys() & files[1].keys()):
                a, b = (accuracy(file[number]) for file in files)
                squares.append((a - b) ** 2 / 2)
        return cls(variance=sum(squares) / len(squares) if squares else math.nan, pairs=len(squares))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A paired difference of two arms: the interval over questions, and the one that allows for retraining too."""

    questions: Interval
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return "holds" if self.low > 0 else "does not" if self.high < 0 else "cannot be told"


def gap(a: Mapping[str, float], b: Mapping[str, float], *, seeds: int, retraining: Retraining) -> Gap:
    """Mean ± t·√(SE² + 2 v / S): SE over questions, v one training's variance, S seeds; t of v's pairs.

    Without two seeds of anything the wide interval is that over questions.
    """
    over = paired_bootstrap(a, b, seed=0)
    if not retraining.pairs:
        return Gap(questions=over, low=over.low, high=over.high)
    differences = [a[id] - b[id] for id in a]
    mean = sum(differences) / len(differences)
    error = sum((each - mean) ** 2 for each in differences) / (len(differences) - 1) / len(differences)
    reach = _t(retraining.pairs) * math.sqrt(error + 2 * retraining.variance / seeds)
    return Gap(questions=over, low=over.mean - reach, high=over.mean + reach)


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t (Cornish-Fisher; 0.04 too small at 3 degrees of freedom, exact for many)."""
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def accuracy(round_: Mapping[str, Any]) -> float:
    marks = round_["parts"]["test"]["marks"]
    return sum(mark in (_RIGHT, _FALLBACK) for mark in marks) / len(marks)


def arms_table(kept: Kept, task: str) -> str:
    lines = [
        "| arm | seeds | best round | test, % | last round, % | UNDO − arm | with retraining | tokens read | minutes |",
        "| --- | ---: | --- | --- | ---: | --- | --- | ---: | ---: |",
    ]
    retraining, main_seeds = Retraining.of(kept, task), kept.seeds(task, MAIN)
    for arm in ("untouched", *ARMS):
        seeds = kept.seeds(task, arm)
        if not seeds:
            continue
        files = [kept.read(task, arm, seed) for seed in seeds]
        means = kept.mean(task, arm, seeds)
        last = kept.mean(task, arm, seeds, -1)
        both = [seed for seed in seeds if seed in main_seeds]
        over = wide = "–"
        if arm != MAIN and both:
            found = gap(kept.mean(task, MAIN, both), kept.mean(task, arm, both), seeds=len(both), retraining=retraining)
            over, wide = shown(found.questions, signed=True), f"[{points(found.low)}, {points(found.high)}]"
        tokens = sum(each["summary"].get("train", {}).get("tokens", 0) for each in files[0]["rounds"])
        cells = [
            arm,
            str(len(seeds)),
            ", ".join(str(file["best"]) for file in files),
            shown(mean_interval(means, seed=0)),
            f"{100 * sum(last.values()) / len(last):.1f}",
            over,
            wide,
            f"{tokens:,}",
            ", ".join(f"{file['seconds'] / 60:.0f}" for file in files),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    spread = f"{100 * math.sqrt(retraining.variance):.1f}" if retraining.pairs else "unknown"
    note = f"One training's standard deviation over seeds: {spread} points ({retraining.pairs} pairs of rounds)."
    return "\n".join([*lines, "", note])


def rounds_table(kept: Kept, task: str) -> str:
    titles = (
        "arm",
        "seed",
        "round",
        "stop, %",
        "test, %",
        "rewritten",
        "accepted",
        "tokens a row",
        "loss",
        "NLL of probe",
    )
    titles += ("solved", "commonest errors on test")
    lines = [f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * (len(titles) - 2) + " --- |"]
    names = {letter: name for name, letter in _LETTERS.items()}
    for arm in ARMS:
        for seed in kept.seeds(task, arm):
            for each in kept.read(task, arm, seed)["rounds"]:
                summary, marks = each["summary"], each["parts"]["test"]["marks"]
                flow, nll = summary["flow"], summary.get("rationale_nll")
                errors = Counter(names[mark] for mark in marks if mark in names).most_common(3)
                cells = [arm, str(seed), str(each["round"])]
                cells += [f"{100 * summary['accuracy']['stop']['mean']:.1f}", f"{100 * accuracy(each):.1f}"]
                cells += [f"{summary['refined']:,}", f"{summary['accepted']:,}", f"{summary['row_tokens']['mean']:.1f}"]
                cells += [
                    f"{summary['train']['loss']:.3f}",
                    "–" if not nll or nll["after"] is None else f"{nll['after']:.3f}",
                ]
                cells += ["–" if flow is None else f"+{flow['gained']} −{flow['lost']}"]
                cells += [", ".join(f"{name} {100 * count / len(marks):.0f} %" for name, count in errors)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def transfer_table(kept: Kept) -> str:
    lines = [
        "| task | second student | seeds | round 0's rows, % | last round's rows, % | difference | with retraining |"
    ]
    lines += ["| --- | --- | ---: | ---: | ---: | --- | --- |"]
    for task in TASKS:
        found = transferred(kept, task)
        if found is None:
            continue
        seeds = kept.seeds(task, "transfer")
        means = [kept.mean(task, "transfer", seeds, number) for number in (0, -1)]
        first, last = (f"{100 * sum(each.values()) / len(each):.1f}" for each in means)
        wide = f"[{points(found.low)}, {points(found.high)}]"
        name = kept.read(task, "transfer", seeds[0])["reason"]
        name = name.replace(f"{task}-seed{seeds[0]}-deeper", "twice the layers, random weights")
        lines.append(
            f"| {task} | {name} | {len(seeds)} | {first} | {last} | {shown(found.questions, signed=True)} | {wide} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def transferred(kept: Kept, task: str) -> Gap | None:
    """The last round's rows less the first round's, for the second student."""
    seeds = kept.seeds(task, "transfer")
    if not seeds:
        return None
    last, first = (kept.mean(task, "transfer", seeds, number) for number in (-1, 0))
    return gap(last, first, seeds=len(seeds), retraining=Retraining.of(kept, task))


def http_table(kept: Kept) -> str:
    if not kept.has("http", MAIN, 0):
        return ""
    found = kept.read("http", MAIN, 0)
    lines = ["| round | calls | prompt tokens | answer tokens | asked for | accepted | rejected |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    for each in found["rounds"]:
        summary = each["summary"]
        cost, rejected = summary["cost"], summary["rejected"]
        why = ", ".join(f"{count} {name}" for name, count in rejected.items()) or "none"
        cells = [each["round"], cost["calls"], cost["prompt_tokens"], cost["completion_tokens"]]
        lines.append(f"| {' | '.join(map(str, [*cells, summary['asked'], summary['accepted'], why]))} |")
    spent = found["spent"]
    said = f"Teacher: {found['model']}; {spent['calls']} calls in {spent['attempts']} attempts, "
    said += f"{spent['prompt_tokens']:,} + {spent['completion_tokens']:,} tokens. It ended: {found['reason']}."
    return "\n".join([*lines, "", said])


def shown(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"
