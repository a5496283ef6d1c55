"""The tables and verdicts of benchmarks/undo_runs.py, from files that are written here: no run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ASKED = [f"test:{number}" for number in range(40)]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import undo_claims
    import undo_tables

    yield undo_tables, undo_claims
    for name in ("undo_tables", "undo_claims"):
        sys.modules.pop(name, None)


def attempts(right: Sequence[bool]) -> list[dict[str, Any]]:
    return [
        {
            "item_id": id,
            "correct": each,
            "strict": each,
            "error": "" if each else "arithmetic_slip",
            "num_tokens": 7,
            "text": "a secret text",
        }
        for id, each in zip(ASKED, right, strict=True)
    ]


def keep(tables: Any, folder: Path, arm: str, seed: int, rights: Sequence[int], *, task: str = "arithmetic") -> Any:
    """Rounds in which the first so many of 40 questions are right; the best is the last."""
    kept = tables.Kept(folder)
    rounds = []
    for number, right in enumerate(rights, start=0 if arm in ("one-shot", "transfer") else 1):
        rows = attempts([place < right for place in range(40)])
        kept.check_questions(task, "test", [row["item_id"] for row in rows])
        summary = {
            "refined": 5,
            "accepted": 4,
            "rejected": {},
            "flow": None,
            "row_tokens": {"mean": 30.0},
            "train": {"tokens": 1000, "loss": 0.5},
            "accuracy": {"stop": {"mean": 0.5}},
            "rationale_nll": {"before": None, "after": 0.25},
        }
        rounds.append({"round": number, "summary": summary, "parts": {"test": tables.marked(rows)}})
    best = rounds[-1]["round"]
    found = {"task": task, "arm": arm, "seed": seed, "best": best, "reason": "done", "seconds": 61, "rounds": rounds}
    kept.write(found)
    return kept


def test_what_is_kept_has_no_text_and_says_what_was_right(programs: Any, tmp_path: Path) -> None:
    tables, _ = programs
    kept = keep(tables, tmp_path, "one-shot", 0, [10])
    assert "secret" not in "".join(path.read_text() for path in tmp_path.iterdir())
    right = kept.right("arithmetic", "one-shot", 0)
    assert right == {id: float(place < 10) for place, id in enumerate(ASKED)}
    assert set(kept.read("arithmetic", "one-shot", 0)["rounds"][0]["parts"]["test"]["marks"]) == {".", "b"}
    assert (kept.has("arithmetic", "one-shot", 0), kept.has("arithmetic", "one-shot", 1)) == (True, False)
    with pytest.raises(ValueError, match="the questions of test are not those"):
        kept.check_questions("arithmetic", "test", ASKED[::-1])


def test_an_arm_whose_best_round_is_the_start_has_the_starts_answers(programs: Any, tmp_path: Path) -> None:
    tables, _ = programs
    keep(tables, tmp_path, "one-shot", 0, [10])
    kept = keep(tables, tmp_path, "blind", 0, [4, 6])
    kept.write({**kept.read("arithmetic", "blind", 0), "best": 0})
    assert sum(kept.right("arithmetic", "blind", 0).values()) == 10
    assert sum(kept.right("arithmetic", "blind", 0, -1).values()) == 6


def test_the_wide_interval_is_the_formula(programs: Any, tmp_path: Path) -> None:
    tables, _ = programs
    keep(tables, tmp_path, "one-shot", 0, [10])
    keep(tables, tmp_path, "one-shot", 1, [14])
    keep(tables, tmp_path, "undo-v1", 0, [20, 22])
    kept = keep(tables, tmp_path, "undo-v1", 1, [20, 30])
    retraining = tables.Retraining.of(kept, "arithmetic")
    assert retraining.pairs == 3
    assert retraining.variance == pytest.approx((0.1**2 / 2 + 0.0 + 0.2**2 / 2) / 3)
    ours, theirs = (kept.mean("arithmetic", arm, [0, 1]) for arm in ("undo-v1", "one-shot"))
    found = tables.gap(ours, theirs, seeds=2, retraining=retraining)
    differences = [ours[id] - theirs[id] for id in ASKED]
    mean = sum(differences) / 40
    error = sum((each - mean) ** 2 for each in differences) / 39 / 40
    reach = 3.18 * math.sqrt(error + 2 * retraining.variance / 2)
    assert mean == pytest.approx(0.35)
    assert (found.low, found.high) == (pytest.approx(mean - reach, abs=0.01), pytest.approx(mean + reach, abs=0.01))
    assert found.low < found.questions.low < found.questions.high < found.high
    alone = tables.gap(ours, theirs, seeds=2, retraining=tables.Retraining(variance=math.nan, pairs=0))
    assert (alone.low, alone.high) == (alone.questions.low, alone.questions.high)


@pytest.mark.parametrize(("freedom", "point"), [(3, 3.182), (4, 2.776), (8, 2.306), (16, 2.120), (60, 2.000)])
def test_students_t(freedom: int, point: float, programs: Any) -> None:
    assert programs[0]._t(freedom) == pytest.approx(point, abs=0.05)


def test_verdicts(programs: Any, tmp_path: Path) -> None:
    tables, claims = programs
    for seed in (0, 1):
        keep(tables, tmp_path, "one-shot", seed, [10])
        keep(tables, tmp_path, "one-shot-long", seed, [39])
        keep(tables, tmp_path, "blind", seed, [30, 30])
        keep(tables, tmp_path, "undo-v1", seed, [20, 30])
        kept = keep(tables, tmp_path, "transfer", seed, [5, 5])
    found = claims._claims(kept)
    verdicts = {claim: each["arithmetic"][1] for claim, each in found.items()}
    assert verdicts == {
        "better than one-shot": "holds",
        "up to 20 % (points)": "holds",
        "up to 20 % (of the baseline)": "holds",
        "better than one-shot for as many tokens": "does not",
        "better because its mistakes are seen (against blind)": "cannot be told",
        "refined data help another student": "cannot be told",
    }
    shown = claims.claims_table(kept)
    assert "| up to 20 % (of the baseline) | arithmetic | +200 % of 25.0 |" in shown
    assert "- better than one-shot: holds on 1 of 1 tasks" in shown
    arms = tables.arms_table(kept, "arithmetic")
    assert "| undo-v1 | 2 | 2, 2 | 75.0 [" in arms
    assert "| one-shot | 2 | 0, 0 | 25.0 [" in arms
    assert "+50.0 [" in arms


def test_the_page_has_a_place_for_every_table_and_is_filled_again(programs: Any, tmp_path: Path) -> None:
    tables, claims = programs
    page = tmp_path / "undo.md"
    shutil.copy(ROOT / "docs/results/undo.md", page)
    claims.write_page(page, tables.Kept(tmp_path / "none"))
    assert "Not measured yet." in page.read_text()
    for seed in (0, 1):
        keep(tables, tmp_path / "kept", "one-shot", seed, [10])
        kept = keep(tables, tmp_path / "kept", "undo-v1", seed, [20, 30])
    claims.write_page(page, kept)
    once = page.read_text()
    assert "+50.0 [" in once
    claims.write_page(page, kept)
    assert page.read_text() == once
    page.write_text("# Nothing\n")
    with pytest.raises(ValueError, match="has no place for 'claims'"):
        claims.write_page(page, kept)


def test_every_kept_file_that_is_there_can_be_read(programs: Any) -> None:
    tables, claims = programs
    kept = tables.Kept(ROOT / "docs/results/undo")
    for path in kept.folder.glob("*-seed*.json"):
        found = json.loads(path.read_text())
        # A run that ended before its first student has no rounds, and says why.
        assert found["rounds"] or (found["best"] == 0 and found["reason"]), path
    assert set(claims.tables(kept)) >= {"claims", "transfer", "http"}
