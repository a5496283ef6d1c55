"""What was found where errors had been put: rows, and the table that is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import DataError
from limbeck.files import read_rows
from limbeck.reporting.reduce import mean_interval
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.studies.error_kinds import ERROR_KINDS

EVERY_KIND = "all"
SOURCES = {"references": "the corpus's references", "student": "the student's own responses"}
_ROWS = "injected"
_SPARED = "not-applicable"


def _gain(score: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: row["scores"]["corrected"][score] - row["scores"]["injected"][score]


_NUMBERS: dict[str, tuple[Callable[[Mapping[str, Any]], float | None], float, int, bool]] = {
    "right %": (lambda row: float(row["right"]), 100.0, 1, False),
    "among three %": (lambda row: float(row["among_three"]), 100.0, 1, False),
    "inside %": (lambda row: float(row["inside"]), 100.0, 1, False),
    "distance": (lambda row: row["distance"], 1.0, 1, False),
    "Δ teacher log p": (_gain("teacher_logp"), 1.0, 3, True),
    "Δ ROUGE-L": (_gain("rouge_l"), 100.0, 1, True),
}
_NOTES = (
    "[95 % bootstrap interval over rows]; under all kinds, a row counts with the mean of its kinds.",
    "right: the detector's first guess is the first wrong token. among three: one of its first three is. inside: the"
    " first is any token of the error. distance: tokens between the first guess and the first wrong token, where there"
    " is a guess.",
    "Δ: after the first guess was corrected and the rest drawn anew, minus before. log p: the teacher's mean"
    " log-probability of the response's tokens, in nats.",
)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Every row of a study of injected errors. `measure` says which kind of row it is.

    "injected": one error of one kind in one response, and one detector (`detecting.judged` has the fields).
    "not-applicable": a response that has nothing which an error of this kind could spoil; it counts in no average.
    """

    rows: list[dict[str, Any]]
    folder: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Detections:
        """The rows that a study, finished or not, has left in a folder. Raises `DataError` where there are none."""
        path = folder / "rows.jsonl"
        if not path.is_file():
            raise DataError(
                f"there are no rows of injected errors in {folder}\n  run it: limbeck study injected-errors"
            )
        rows = read_rows(path, growing=True, remedy="remove that file, and the study begins again")
        return cls(rows=[row for row in rows if row.get("measure") in (_ROWS, _SPARED)], folder=folder)

    def values(self, source: str, kind: str, detector: str, column: str) -> dict[str, float]:
        """The number of a column by row id; "all" for `kind` takes each row's mean over its kinds.

        What is not finite, or not there, is left out: a distance without a guess.
        """
        number = _NUMBERS[column][0]
        found: dict[str, list[float]] = {}
        for row in self._injected(source):
            if row["detector"] == detector and kind in (row["kind"], EVERY_KIND):
                value = number(row)
                if value is not None and math.isfinite(value):
                    found.setdefault(str(row["id"]), []).append(value)
        return {id: math.fsum(values) / len(values) for id, values in found.items()}

    def table(self, source: str) -> Table:
        """One line a kind and detector, for errors in the responses of one source ("references" or "student").

        Raises `DataError` where no error could be put into any of them.
        """
        injected = self._injected(source)
        if not injected:
            raise DataError(f"no error could be put into {SOURCES.get(source, source)}; take more rows, or longer ones")
        detectors = list(dict.fromkeys(str(row["detector"]) for row in injected))
        kinds = self._kinds(source)
        lines = []
        for kind in [*kinds, *([EVERY_KIND] if len(kinds) > 1 else [])]:
            for detector in detectors:
                counted = self.values(source, kind, detector, "right %")
                if counted:
                    cells = [self._cell(source, kind, detector, column) for column in _NUMBERS]
                    lines.append(Row(cells=(kind, detector, str(len(counted)), *cells)))
        titles = ("error", "detector", "rows", *_NUMBERS)
        return Table(
            columns=tuple(Column(title=title) for title in titles),
            rows=tuple(lines),
            notes=(*_NOTES, *self._spared(source, kinds)),
        )

    def tables(self) -> tuple[tuple[str, Table], ...]:
        """Heading and table of each source of which there are errors."""
        return tuple(
            (f"Errors in {what}", self.table(source)) for source, what in SOURCES.items() if self._injected(source)
        )

    def markdown(self) -> str:
        """The tables of all sources, each under a heading."""
        parts = []
        for source, what in SOURCES.items():
            if self._injected(source):
                parts.append(f"## Errors in {what}\n\n{self.table(source).markdown()}")
            elif spared := self._spared(source, self._kinds(source)):
                parts.append(f"## Errors in {what}\n\n" + "".join(f"{line}\n" for line in spared))
        return "\n".join(parts) or "No response to put an error into.\n"

    def _injected(self, source: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["measure"] == _ROWS and row["source"] == source]

    def _kinds(self, source: str) -> list[str]:
        """Those that were tried, in the order in which they are listed."""
        found = dict.fromkeys(str(row["kind"]) for row in self.rows if row.get("source") == source)
        return sorted(found, key=lambda kind: list(ERROR_KINDS).index(kind))

    def _spared(self, source: str, kinds: Sequence[str]) -> tuple[str, ...]:
        lines = []
        for kind in kinds:
            of_kind = [row for row in self.rows if row.get("source") == source and row["kind"] == kind]
            spared = {str(row["id"]) for row in of_kind if row["measure"] == _SPARED}
            if spared:
                every = {str(row["id"]) for row in of_kind}
                lines.append(f"{kind}: {len(spared)} of {len(every)} responses have nothing for it to spoil.")
        return tuple(lines)

    def _cell(self, source: str, kind: str, detector: str, column: str) -> Cell:
        values = self.values(source, kind, detector, column)
        _, scale, digits, signed = _NUMBERS[column]
        if not values:
            return None
        return Number.of(mean_interval(values, seed=0), scale=scale, digits=digits, signed=signed)


def spared_row(*, id: str, source: str, kind: str) -> dict[str, Any]:
    """The row of a response that an error of this kind could not be put into."""
    return {"measure": _SPARED, "id": id, "source": source, "kind": kind}
