"""What is kept of a study: scores of every answer, without text, one file a run; and a ledger of its arms. No torch.

ROWS/KEY-SCORING.jsonl.gz    a line about the run, then a line for each answer and each comparison with the teacher
ROWS/STUDY.study.json        the arms of a study, the files of their runs, and what failed
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.errors import DataError
from limbeck.files import read_json, write_whole

FORMAT = 1
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class LedgerArm:
    """An arm of a study: the files of its runs by training seed ("-" where nothing is trained), and its errors."""

    name: str
    title: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.title or self.name


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything that the table of a study is made of, beside the rows."""

    study: str
    title: str
    baseline: str
    arms: tuple[LedgerArm, ...]
    controls: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    average: tuple[str, ...] = ()

    def arm(self, name: str) -> LedgerArm | None:
        """The arm of this name, None where there is none."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def write(self, rows: Path) -> None:
        """Write it into the folder of rows; a reader sees the old ledger or the new."""
        write_whole(_ledger_path(rows, self.study), json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, rows: Path, study: str) -> Ledger:
        """The ledger of a study. Raises `DataError` where there is none."""
        path = _ledger_path(rows, study)
        if not path.is_file():
            raise DataError(
                f"{rows} holds no rows of the study {study} (no {path.name})\n"
                f"  run it: limbeck study {study} --rows {rows}, or name the folder that holds them by --rows"
            )
        plain = read_json(path, remedy=f"remove it and run the study again: limbeck study {study} --rows {rows}")
        arms = tuple(LedgerArm(**arm) for arm in plain.pop("arms"))
        plain |= {key: tuple(plain[key]) for key in ("controls", "corpora", "average")}
        return cls(**plain, arms=arms)


def _ledger_path(rows: Path, study: str) -> Path:
    return rows / f"{study}.study.json"


def rows_path(rows: Path, *, key: str, scoring: str) -> Path:
    """The file of a run's rows; a run whose file is there counts as done."""
    return rows / f"{key}-{scoring}.jsonl.gz"


def write_rows(path: Path, *, about: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a run's rows, all at once: a file that is there is whole. Equal rows make equal bytes."""
    lines = [json.dumps({"format": FORMAT, **about}, ensure_ascii=False)]
    lines += [json.dumps(_rounded(row), ensure_ascii=False) for row in rows]
    # A file's time and name would make equal rows differ.
    write_whole(path, gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    scores = {name: _short(value) for name, value in row["scores"].items()}
    return {**row, "scores": scores}


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


@dataclass(frozen=True)
class RunRows:
    """A run's rows, read back."""

    path: Path

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = gzip.decompress(self.path.read_bytes()).decode()
            # One array is parsed several times faster than its lines; a line break stands between rows only.
            lines: list[dict[str, Any]] = json.loads(f"[{text.rstrip().replace(chr(10), ',')}]")
            version = lines[0]["format"]
        except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
            raise DataError(f"{self.path} cannot be read: {error}\n  remove it, and its arm is run again") from error
        if version != FORMAT:
            raise DataError(f"{self.path} is of format {version}; this version reads {FORMAT}")
        return lines

    @property
    def about(self) -> dict[str, Any]:
        """The line about the run."""
        return self._lines[0]

    @property
    def rows(self) -> Sequence[dict[str, Any]]:
        """The lines behind it."""
        return self._lines[1:]

    @property
    def start(self) -> str:
        """The hash of the weights that the run began with."""
        return str(self.about["start"])

    def values(self, measure: str, score: str) -> dict[str, dict[str, float]]:
        """Corpus → example → the score, averaged over decoding seeds."""
        if (measure, score) not in self._means:
            found: dict[str, dict[str, list[float]]] = {}
            for row in self._of_measure.get(measure, ()):
                if score in row["scores"]:
                    found.setdefault(row["corpus"], {}).setdefault(row["id"], []).append(row["scores"][score])
            self._means[measure, score] = {
                corpus: {id: math.fsum(values) / len(values) for id, values in examples.items()}
                for corpus, examples in found.items()
            }
        return self._means[measure, score]

    @cached_property
    def _means(self) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
        return {}

    @cached_property
    def _of_measure(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(row["measure"], []).append(row)
        return found

    def structures(self) -> dict[tuple[str, str], str]:
        """(corpus, example) → what kind of response its reference is."""
        return {(row["corpus"], row["id"]): row["structure"] for row in self.rows if "structure" in row}
