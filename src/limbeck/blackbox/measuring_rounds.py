"""The numbers of a round, from its rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from limbeck.blackbox.artefacts import read_json, read_rows


@runtime_checkable
class OnDisk(Protocol):
    """A round's number and folder."""

    @property
    def number(self) -> int:
        """0 is the common start."""
        ...

    @property
    def folder(self) -> Path:
        """Where its rows are."""
        ...


def mean_nll(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean over all tokens of rows with `nll` and `num_tokens` (probe_nll.jsonl); None without any.

    >>> mean_nll([{"nll": 1.0, "num_tokens": 1}, {"nll": 2.0, "num_tokens": 3}])
    1.75
    """
    tokens = sum(row["num_tokens"] for row in rows)
    return sum(row["nll"] * row["num_tokens"] for row in rows) / tokens if tokens else None


def accuracy(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Right answers over questions with the standard error √(p(1−p)/n); `strict` without fallbacks.

    >>> accuracy([{"correct": True, "strict": True}, {"correct": False, "strict": False}])["error"]
    0.3535533905932738
    """
    count = len(rows)
    mean = sum(row["correct"] for row in rows) / count
    return {
        "mean": mean,
        "error": math.sqrt(mean * (1 - mean) / count),
        "strict": sum(row["strict"] for row in rows) / count,
        "questions": count,
    }


def flow(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of the same questions were solved newly, lost, kept, and missed again.

    >>> right, wrong = {"item_id": "1", "correct": True}, {"item_id": "1", "correct": False}
    >>> flow([wrong], [right])
    {'gained': 1, 'lost': 0, 'kept': 0, 'missed': 0}
    """
    then = {row["item_id"]: row["correct"] for row in before}
    pairs = Counter((then[row["item_id"]], row["correct"]) for row in now)
    return {
        "gained": pairs[False, True],
        "lost": pairs[True, False],
        "kept": pairs[True, True],
        "missed": pairs[False, False],
    }


def round_metrics(round_: OnDisk, *, arm: str, before: OnDisk | None, cost: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json of a round holds. Nothing in it depends on the clock."""
    folder = round_.folder
    train, student = read_rows(folder / "train.jsonl"), read_json(folder / "student.json")
    asking = read_json(folder / "asking.json") if (folder / "asking.json").is_file() else None
    written = read_rows(folder / "rationales.jsonl") if asking else []
    attempts = {
        path.name.removesuffix("_attempts.jsonl"): read_rows(path)
        for path in sorted(folder.glob("*_attempts.jsonl"))
        if path.name.split("_")[0] not in ("train", "probe")
    }
    weighed = read_rows(folder / "probe_nll.jsonl") if (folder / "probe_nll.jsonl").is_file() else []
    refined = asking["refined"] if asking else 0
    lengths = [row["num_tokens"] for row in train]
    return {
        "arm": arm,
        "round": round_.number,
        "refined": refined,
        "accepted": len(written),
        "accepted_share": len(written) / refined if refined else None,
        "asked": asking["asked"] if asking else 0,
        "rejected": asking["reasons"] if asking else {},
        "hints": dict(sorted(Counter(row["hint"] for row in written).items())),
        "rows": len(train),
        "kinds": dict(sorted(Counter(row["kind"] for row in train).items())),
        "row_tokens": {"mean": sum(lengths) / len(lengths), "longest": max(lengths)},
        "rationale_nll": {
            when: mean_nll([row for row in weighed if row["when"] == when]) for when in ("before", "after")
        },
        "distinct_texts": len({row["completion"] for row in train}) / len(train),
        "train": {key: student[key] for key in ("steps", "tokens", "loss")},
        "accuracy": {part: accuracy(rows) for part, rows in attempts.items()},
        "errors": dict(sorted(Counter(row["error"] for row in attempts["stop"] if not row["correct"]).items())),
        "answer_tokens": sum(row["num_tokens"] for row in attempts["stop"]) / len(attempts["stop"]),
        "flow": None if before is None else flow(read_rows(before.folder / "stop_attempts.jsonl"), attempts["stop"]),
        "cost": dict(cost),
    }
