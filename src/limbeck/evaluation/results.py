"""What an evaluation found: rows, and the means and tables that are made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.evaluation.exposure import LENGTH, Exposure, exposure_bias
from limbeck.reporting.reduce import by_example, mean_interval, paired_bootstrap
from limbeck.reporting.tables import Cell, Column, Number, Row, Table

# Where a score is found, how it is called, shown and read.
_COLUMNS = {
    "rouge_l": ("answers", "ROUGE-L", 100.0, 1, "higher"),
    "rouge_1": ("answers", "ROUGE-1", 100.0, 1, "higher"),
    "rouge_2": ("answers", "ROUGE-2", 100.0, 1, "higher"),
    "exact_match": ("answers", "exact match %", 100.0, 1, "higher"),
    "distinct_1": ("answers", "distinct-1 %", 100.0, 1, None),
    "distinct_2": ("answers", "distinct-2 %", 100.0, 1, None),
    "repetition": ("answers", "repeated 4-grams %", 100.0, 1, "lower"),
    "stopped": ("answers", "ended by itself %", 100.0, 1, None),
    "self_bleu": ("across", "self-BLEU %", 100.0, 1, None),
    "kl_teacher_student": ("references", "KL(t‖s) on references", 1.0, 3, "lower"),
    "kl_student_teacher": ("own", "KL(s‖t) on own answers", 1.0, 3, "lower"),
    "top1_agreement": ("references", "top-1 agreement %", 100.0, 1, "higher"),
    "acceptance": ("references", "1 − TVD %", 100.0, 1, "higher"),
    "cross_entropy": ("references", "cross-entropy", 1.0, 3, "lower"),
}
SHOWN = ("rouge_l", "kl_teacher_student", "kl_student_teacher", "top1_agreement", "acceptance", "cross_entropy")
"""The scores of a table, unless others are asked for."""


_TEACHERS = ("kl_teacher_student", "kl_student_teacher", "top1_agreement", "acceptance")


def check_scores(names: Sequence[str], *, has_teacher: bool = True, num_seeds: int = 2) -> None:
    """Raises `UnknownName` for a name that no evaluation takes as a score, `ConfigError` where a teacher or a second
    seed lacks."""
    for name in names:
        if name not in _COLUMNS:
            raise UnknownName.among("score", name, _COLUMNS)
        if name in _TEACHERS and not has_teacher:
            raise ConfigError(f"the score {name} compares with a teacher, and none is named; give --teacher MODEL")
        if _COLUMNS[name][0] == "across" and num_seeds < 2:
            raise ConfigError(f"the score {name} compares the answers of several seeds; give --seeds two or more")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation found. `rows` holds a dictionary a line on disk: `measure` says which kind of row it is.

    `measure` is "answers" (one a corpus, seed and example), "across" (one a corpus and example, over its seeds),
    "references" (one a corpus and example, on the corpus's own responses), "own" (one an answer of the first seed, on
    what the model wrote itself) or "exposure" (two an example: on its own answer and on the teacher's). `notes` stand
    below the table: how a corpus differs from the papers', how many prompts were cut.
    """

    rows: list[dict[str, Any]]
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def values(self, measure: str, score: str) -> dict[str, dict[str, float]]:
        """Corpus → example → score, averaged over decoding seeds."""
        chosen = [row for row in self.rows if row["measure"] == measure and score in row.get("scores", ())]
        return by_example(chosen, score=score) if chosen else {}

    def mean(self, score: str = "rouge_l", *, measure: str = "answers") -> float:
        """The mean over seeds, then examples, then corpora. Raises `DataError` if nothing was measured."""
        corpora = self.values(measure, score)
        if not corpora:
            others = sorted({str(row["measure"]) for row in self.rows if score in row.get("scores", ())})
            advice = (
                f"take measure={' or '.join(map(repr, others))}" if others else "give a teacher for agreement scores"
            )
            raise DataError(f"no row has '{score}' under '{measure}'; {advice}")
        means = [sum(values.values()) / len(values) for values in corpora.values()]
        return sum(means) / len(means)

    def perplexity(self) -> dict[str, float]:
        """Corpus → e to the mean cross-entropy of its references' tokens: every token weighs the same."""
        sums: dict[str, tuple[float, int]] = {}
        for row in self.rows:
            if row["measure"] == "references" and row["num_tokens"]:
                total, count = sums.get(row["corpus"], (0.0, 0))
                added = row["num_tokens"]
                sums[row["corpus"]] = (total + added * row["scores"]["cross_entropy"], count + added)
        return {corpus: math.exp(total / count) for corpus, (total, count) in sums.items()}

    def exposure(self, *, length: int = LENGTH) -> dict[str, Exposure]:
        """Corpus → exposure bias at a length; empty where it was not measured."""
        corpora: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            if row["measure"] == "exposure":
                corpora.setdefault(row["corpus"], []).append(row)
        return {corpus: exposure_bias(rows, length=length) for corpus, rows in corpora.items()}

    def table(self, scores: Sequence[str] = SHOWN) -> Table:
        """One row a corpus, with 95 % bootstrap intervals over examples; scores that were not taken are left out.

        Raises `UnknownName` for a score that no row has and no evaluation takes.
        """
        places = [self._place(score) for score in scores]
        found = [place for place in places if self.values(*place[:2])]
        corpora = list(dict.fromkeys(row["corpus"] for row in self.rows))
        columns = (Column(title="corpus"), Column(title="n"), *(Column(title=title) for _, _, title, _, _ in found))
        rows = [
            Row(cells=(corpus, Number(value=self._count(corpus), digits=0), *self._cells(corpus, found)))
            for corpus in corpora
        ]
        return Table(columns=columns, rows=tuple(rows), notes=self.notes)

    def categories(self, score: str = "rouge_l", *, against: Results | None = None) -> Table:
        """One row a corpus and category: the mean of a score and, with `against` (a teacher's results on the same
        examples), the paired difference with its 95 % bootstrap interval; the largest loss first.

        Raises `DataError` where the examples differ, `UnknownName` as `table` does.
        """
        measure, name, title, scale, digits = self._place(score)
        mine = self.values(measure, name)
        theirs = {} if against is None else against.values(measure, name)
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row["measure"] == "answers":
                groups.setdefault((row["corpus"], row["category"] or "–"), []).append(str(row["id"]))
        lines: list[tuple[float, Row]] = []
        for (corpus, category), ids in groups.items():
            if corpus not in mine:
                raise DataError(
                    f"no row on {corpus} has the score {name}; a teacher's scores need --teacher, self_bleu two seeds"
                )
            own = {id: mine[corpus][id] for id in dict.fromkeys(ids)}
            cells: list[Cell] = [
                corpus,
                category,
                Number(value=len(own), digits=0),
                Number.of(mean_interval(own, seed=0), scale=scale, digits=digits),
            ]
            order = 0.0
            if against is not None:
                other = {id: value for id, value in theirs.get(corpus, {}).items() if id in own}
                gap = paired_bootstrap(own, other, seed=0)
                cells.append(Number.of(gap, scale=scale, digits=digits, signed=True))
                order = gap.mean
            lines.append((order, Row(cells=tuple(cells))))
        titles = ["corpus", "category", "n", title, *(["against the other"] if against is not None else [])]
        rows = [row for _, row in sorted(lines, key=lambda line: line[0])]
        return Table(columns=tuple(Column(title=each) for each in titles), rows=tuple(rows))

    def _place(self, score: str) -> tuple[str, str, str, float, int]:
        """Measure, score, title, scale and digits."""
        if score in _COLUMNS:
            measure, title, scale, digits, _ = _COLUMNS[score]
            return measure, score, title, scale, digits
        taken = sorted({name for row in self.rows if row["measure"] == "answers" for name in row["scores"]})
        if score not in taken:
            raise UnknownName.among("score", score, dict.fromkeys([*_COLUMNS, *taken]))
        return "answers", score, score, 1.0, 3

    def _count(self, corpus: str) -> int:
        return len({row["id"] for row in self.rows if row["corpus"] == corpus})

    def _cells(self, corpus: str, found: list[tuple[str, str, str, float, int]]) -> Iterator[Number | None]:
        for measure, score, _, scale, digits in found:
            values = self.values(measure, score).get(corpus)
            yield None if values is None else Number.of(mean_interval(values, seed=0), scale=scale, digits=digits)
