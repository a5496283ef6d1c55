"""What the rows of a study say: scores of arms by example, and paired differences within one start. No torch."""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limbeck.errors import DataError
from limbeck.reporting.comparing import smallest_effect
from limbeck.reporting.reduce import Interval, by_corpus, mean_over, paired_bootstrap
from limbeck.studies.rows import Ledger, LedgerArm, RunRows

ROUGE = ("answers", "rouge_l")
Start = tuple[str, str]
"""Training seed and hash of the weights that a run began with: runs of one start may be compared example by example."""

_DRAWS = 2_000


@dataclass(frozen=True)
class ArmRows:
    """The rows of an arm: its runs by start. A stage, which nothing was trained for, is a single run of seed "-"."""

    arm: LedgerArm
    runs: Mapping[Start, RunRows]

    @property
    def is_stage(self) -> bool:
        """Whether nothing was trained for it."""
        return any(seed == "-" for seed, _ in self.runs)

    @property
    def starts(self) -> set[str]:
        """The hashes of the weights that its runs began with."""
        return {start for _, start in self.runs}

    def values(
        self, of: Sequence[Start], *, measure: str, score: str, corpora: Sequence[str]
    ) -> dict[tuple[str, str], float]:
        """(corpus, id) → the score, averaged over decoding seeds and these runs; empty where a corpus has none."""
        means = [self.runs[start].values(measure, score) for start in of]
        by_corpus = {
            corpus: {
                id: math.fsum(mean[corpus][id] for mean in means) / len(means)
                for id in means[0][corpus]
                if all(id in mean.get(corpus, {}) for mean in means)
            }
            for corpus in corpora
            if means and corpus in means[0]
        }
        if len(by_corpus) < len(corpora) or not all(by_corpus.values()):
            return {}
        return {(corpus, id): value for corpus, values in by_corpus.items() for id, value in values.items()}


@dataclass(frozen=True)
class Measured:
    """A study's ledger with its rows."""

    ledger: Ledger
    folder: Path

    @classmethod
    def read(cls, rows: Path, study: str) -> Measured:
        """The ledger of a study, its rows read when they are asked for. Raises `DataError`."""
        return cls(Ledger.read(rows, study), rows)

    @cached_property
    def arms(self) -> dict[str, ArmRows]:
        """The arms that have rows, by name."""
        found = {}
        for arm in self.ledger.arms:
            runs = {}
            for seed, stem in arm.runs.items():
                path = self.folder / f"{stem}.jsonl.gz"
                if path.is_file():
                    run = _run(path)
                    runs[seed, run.start] = run
            if runs:
                found[arm.name] = ArmRows(arm, runs)
        return found

    @cached_property
    def corpora(self) -> tuple[str, ...]:
        """The corpora that are shown: the ledger's, else all that were scored."""
        if self.ledger.corpora:
            return self.ledger.corpora
        return tuple(
            dict.fromkeys(name for arm in self.arms.values() for run in arm.runs.values() for name in _of(run))
        )

    @property
    def average(self) -> tuple[str, ...]:
        """The corpora that the average is over."""
        return self.ledger.average or self.corpora

    @property
    def has_equal_runs(self) -> bool:
        """Whether all arms that were trained have runs of the same starts and seeds."""
        return len({frozenset(arm.runs) for arm in self.arms.values() if not arm.is_stage}) < 2

    @property
    def starts(self) -> set[str]:
        """The starts of everything that was trained."""
        return {start for arm in self.arms.values() if not arm.is_stage for start in arm.starts}

    def pair(self, one: str, other: str) -> tuple[list[Start], list[Start]]:
        """The runs of two arms that may be compared: those of the same start and training seed; a stage with any.

        Of several starts all: each run stands against the other arm's of its own start. Empty where none is in common.
        """
        if one not in self.arms or other not in self.arms:
            return [], []
        a, b = self.arms[one], self.arms[other]
        if a.is_stage or b.is_stage:
            return list(a.runs), list(b.runs)
        common = [start for start in a.runs if start in b.runs]
        return common, common

    def corpora_of(self, arm: str) -> set[str]:
        """What the runs of an arm learned from, as their recipes name it."""
        recipes = [run.about.get("recipe", {}) for run in self.arms[arm].runs.values()]
        return {json.dumps(recipe.get("data", {}).get("corpus"), sort_keys=True) for recipe in recipes}

    def shared(self, arms: Sequence[str]) -> list[Start]:
        """The starts that all of these arms have runs of."""
        return functools.reduce(_both, [list(self.arms[name].runs) for name in arms]) if arms else []

    def examples(
        self, arms: Sequence[str], *, measure: str = ROUGE[0], score: str = ROUGE[1], corpora: Sequence[str] = ()
    ) -> dict[tuple[str, str], float]:
        """The score by example, averaged over these arms' runs of the starts that they share."""
        of = self.shared(arms)
        each = [
            self.arms[name].values(of, measure=measure, score=score, corpora=corpora or self.average) for name in arms
        ]
        if not of or not all(each):
            return {}
        return {id: math.fsum(values[id] for values in each) / len(each) for id in each[0]}

    def gap(
        self,
        one: str,
        other: str,
        *,
        factor: float = 1.0,
        measure: str = ROUGE[0],
        score: str = ROUGE[1],
        corpora: Sequence[str] = (),
        draws: int = _DRAWS,
    ) -> Interval | None:
        """The mean of one − factor · other over the same examples with its 95 % interval; None where nothing pairs."""
        sides = self.paired(one, other, measure=measure, score=score, corpora=corpora)
        if sides is None:
            return None
        left, right = sides
        return paired_bootstrap(left, {id: factor * value for id, value in right.items()}, seed=0, draws=draws)

    def paired(
        self, one: str, other: str, *, measure: str, score: str, corpora: Sequence[str] = ()
    ) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]] | None:
        """The scores of two arms by example, of runs that may be compared; None where nothing pairs."""
        mine, theirs = self.pair(one, other)
        if not mine or not theirs:
            return None
        shown = corpora or self.average
        left = self.arms[one].values(mine, measure=measure, score=score, corpora=shown)
        right = self.arms[other].values(theirs, measure=measure, score=score, corpora=shown)
        return (left, right) if left and left.keys() == right.keys() else None

    def against_references(self, arm: str, *, factor: float, draws: int = _DRAWS) -> Interval | None:
        """The mean of distinct-2 of an arm's answers − factor · that of the references, paired by example."""
        if arm not in self.arms:
            return None
        runs = list(self.arms[arm].runs)
        answers, references = (
            self.arms[arm].values(runs, measure=measure, score="distinct_2", corpora=self.average)
            for measure in ("answers", "references")
        )
        # A reference that does not fit beside its prompt is left out.
        common = answers.keys() & references.keys()
        if not common:
            return None
        left = {id: answers[id] for id in sorted(common)}
        right = {id: factor * references[id] for id in sorted(common)}
        return paired_bootstrap(left, right, seed=0, draws=draws)

    def group_gap(self, ones: Sequence[str], others: Sequence[str], *, draws: int = _DRAWS) -> Interval | None:
        """The mean over some arms minus the mean over others, of the starts that all share; stages with any."""
        names = [*ones, *others]
        if not all(name in self.arms for name in names):
            return None
        trained = [name for name in names if not self.arms[name].is_stage]
        shared = self.shared(trained)
        sides = []
        for group in (ones, others):
            each = [
                self.arms[name].values(
                    list(self.arms[name].runs) if self.arms[name].is_stage else shared,
                    measure=ROUGE[0],
                    score=ROUGE[1],
                    corpora=self.average,
                )
                for name in group
            ]
            if not all(each):
                return None
            sides.append({id: math.fsum(values[id] for values in each) / len(each) for id in each[0]})
        return paired_bootstrap(*sides, seed=0, draws=draws) if sides[0].keys() == sides[1].keys() else None

    def correlation(self, one: tuple[str, str], other: tuple[str, str], *, least: int = 5) -> tuple[float, int] | None:
        """Pearson's r of two (measure, score) over the trained arms but the controls, each the mean of its corpora's
        means over all of its runs, and how many arms; None for fewer than `least` or where one is constant."""
        names = [name for name, arm in self.arms.items() if not arm.is_stage and name not in self.ledger.controls]
        pairs = []
        for name in names:
            arm = self.arms[name]
            of = list(arm.runs)
            sides = [arm.values(of, measure=part[0], score=part[1], corpora=self.average) for part in (one, other)]
            if all(sides):
                pairs.append([mean_over(side) for side in sides])
        if len(pairs) < least:
            return None
        try:
            return statistics.correlation(*zip(*pairs, strict=True)), len(pairs)
        except statistics.StatisticsError:
            return None

    def steps(self, arm: str, read: Callable[[dict[str, object]], float | None]) -> dict[str, float]:
        """ "SEED/STEP" → a number of that step's line of metrics, where there is one."""
        found = {}
        for (seed, _), run in self.arms[arm].runs.items() if arm in self.arms else ():
            for row in run.about.get("steps", ()):
                value = read(row)
                if value is not None:
                    found[f"{seed}/{row['step']}"] = value
        return found


def measured_effect(measured: Measured) -> str | None:
    """The smallest effect, from the differences that there are: the median over arms, in points of ROUGE-L."""
    effects = []
    for name in measured.arms:
        sides = measured.paired(name, measured.ledger.baseline, measure=ROUGE[0], score=ROUGE[1])
        if name == measured.ledger.baseline or sides is None:
            continue
        corpora = by_corpus({id: value - sides[1][id] for id, value in sides[0].items()})
        # One prompt of a corpus has no spread, and neither has an arm that scores as the baseline on every prompt.
        effect = smallest_effect(*corpora)
        if effect > 0:
            effects.append(effect)
    if not effects:
        return None
    return f"{100 * sorted(effects)[len(effects) // 2]:.1f} ROUGE-L"


def check_equal_contents(measured: Measured) -> None:
    """Raise `DataError` where two runs of a table were scored on different rows under one name."""
    seen: dict[str, tuple[str, str]] = {}
    for name, arm in measured.arms.items():
        for run in arm.runs.values():
            for corpus, about in run.about.get("corpora", {}).items():
                first, content = seen.setdefault(corpus, (name, about["content"]))
                if content != about["content"]:
                    raise DataError(
                        f"{name} and {first} were scored on different rows of {corpus}; run one of them again"
                    )


def _of(run: RunRows) -> list[str]:
    return list(run.about.get("corpora", {}))


def _both(one: list[Start], other: list[Start]) -> list[Start]:
    return [start for start in one if start in other]


@functools.lru_cache(maxsize=1024)
def _run_of(path: Path, written: int) -> RunRows:
    return RunRows(path)


def _run(path: Path) -> RunRows:
    return _run_of(path, path.stat().st_mtime_ns)
