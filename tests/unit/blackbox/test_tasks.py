"""Tasks by name: from local files, from the hub's form, and generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from limbeck.blackbox import CHECKERS, read_items
from limbeck.blackbox.solutions import solution_steps
from limbeck.blackbox.tasks import TASKS, load_task
from limbeck.errors import ConfigError, DataError, UnknownName

DATA = Path(__file__).parents[4] / "shared" / "data"

HUB: dict[tuple[str, str | None], list[dict[str, Any]]] = {
    ("openai/gsm8k", "main"): [
        {
            "question": "48 clips in April, half in May?",
            "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
        },
        {"question": "Weekly?", "answer": "500 x 4 = $<<500*4=2000>>2,000\n#### 2,000"},
    ],
    ("ChilleD/SVAMP", None): [
        {"ID": "chal-1", "Body": "A pack costs 76", "Question": "Minus 25?", "Equation": "( 76.0 - 25.0 )",
         "Answer": "51.0"},
        {"ID": "chal-2", "Body": "Bad.", "Question": "How many?", "Equation": "( 4.0 - 2.0 )", "Answer": "1.0"},
    ],
    ("ChilleD/StrategyQA", None): [
        {"qid": "a1", "question": "Is it cold?", "answer": False, "facts": "Snow melts. The U.S. is big."},
        {"qid": "a2", "question": "Is it hot?", "answer": True, "facts": "Sand is dry."},
    ],
    ("tau/commonsense_qa", None): [
        {"id": "q1", "question": "Where?", "answerKey": "B", "choices": {"label": ["A", "B"], "text": ["bank", "zoo"]}}
    ],
    ("allenai/ai2_arc", "ARC-Easy"): [
        {"id": "M1", "question": "Why?", "answerKey": "2", "choices": {"label": ["1", "2"], "text": ["x", "y"]}}
    ],
}  # fmt: skip
ASKED: list[tuple[str, str | None, str]] = []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    def load_dataset(path: str, name: str | None = None, *, split: str) -> datasets.Dataset:
        ASKED.append((path, name, split))
        return datasets.Dataset.from_list(HUB[path, name])

    ASKED.clear()
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return ASKED


def write(root: Path, name: str, *rows: dict[str, Any]) -> Path:
    path = root / TASKS[name].folder / "train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_gsm8k_from_the_hub_has_its_marks_as_steps(hub: list[Any]) -> None:
    clips, weekly = load_task("gsm8k", "train")
    assert hub == [("openai/gsm8k", "main", "train")]
    assert (clips.gold, clips.steps, clips.id) == ("72", ("48/2=24", "48+24=72"), "gsm8k-train-0000")
    assert clips.rationale == "She sold 48/2 = 24 clips in May.\nIn all 48+24 = 72."
    assert [step.said for step in solution_steps(clips)] == ["48 / 2 = 24", "48 + 24 = 72"]
    assert (weekly.gold, weekly.source) == ("2000", "openai/gsm8k:main train row 2")


def test_svamp_drops_rows_that_disagree_and_says_how_many(hub: list[Any], tmp_path: Path) -> None:
    notes: list[str] = []
    (item,) = load_task("svamp", "test", note=notes.append)
    assert (item.question, item.gold, item.id) == ("A pack costs 76. Minus 25?", "51", "svamp-chal-1")
    assert [step.said for step in solution_steps(item)] == ["76 - 25 = 51"]
    assert notes == ["svamp test: 1 of 2 rows dropped, equation and answer disagree: svamp-chal-2"]
    rows = [{"question": "1+1?", "answer": "2", "equation": "1 + 1"}, {"question": "1+1?", "answer": "2"}]
    assert len(load_task("svamp", "train", write(tmp_path, "svamp", *rows), note=notes.append)) == 2
    assert len(notes) == 1


def test_strategyqa_has_facts_wherever_it_comes_from(hub: list[Any], tmp_path: Path) -> None:
    cold, hot = load_task("strategyqa", "train")
    assert (cold.gold, cold.facts) == ("no", ("Snow melts.", "The U.S. is big."))
    assert (hot.gold, hot.facts, hot.kind) == ("yes", ("Sand is dry.",), "boolean")
    row = {"question": "Is it?", "answer": "no", "rationale": "It was. It is not", "id": "s"}
    given = {"question": "Was it?", "answer": "no", "rationale": "It was. It is not", "facts": ["a", "b"], "id": "t"}
    joined, listed = load_task("strategyqa", "train", write(tmp_path, "strategyqa", row, given))
    assert (joined.facts, listed.facts) == (("It was.", "It is not"), ("a", "b"))


def test_choices_from_the_hub(hub: list[Any]) -> None:
    (item,) = load_task("commonsenseqa", "test")
    assert (item.gold, [choice.text for choice in item.choices], item.id) == ("B", ["bank", "zoo"], "q1")
    assert load_task("arc-easy", "train")[0].gold == "2"
    # The set's own test split has no answers.
    assert [split for *_, split in hub] == ["validation", "train"]


def test_generated_questions_and_files_of_ones_own(tmp_path: Path) -> None:
    assert len(load_task("arithmetic", "test", rows=3)) == 3
    assert {item.id for item in load_task("arithmetic", "train", rows=3)} == {
        f"arithmetic-train-0-{i}" for i in range(3)
    }
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1+1?", "answer": 2}\n{"question": "2+2?", "answer": 4}\n')
    assert load_task(str(path), "any split") == read_items(path)
    assert load_task(str(path), "train", rows=1) == read_items(path)[:1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("gsm9k", "train"), UnknownName, "Did you mean 'gsm8k'"),
        (("gsm8k", "dev"), DataError, "no split 'dev'\n  allowed: train, test"),
        (("arithmetic", "valid"), DataError, "no split 'valid'"),
        (("gsm8k", "train", Path("nowhere")), DataError, "no file of questions at 'nowhere/gsm8k/train.jsonl'"),
    ],
)
def test_what_cannot_be_loaded(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(*arguments)
    with pytest.raises(ConfigError, match="rows is 0"):
        load_task("arithmetic", "train", rows=0)


def test_a_hub_that_is_away_and_one_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", away)
    with pytest.raises(DataError, match=r"cannot load openai/gsm8k:main train.*\n.*offline\n.*gsm8k/train.jsonl"):
        load_task("gsm8k", "train")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"question": "x", "solution": "y"}])
    with pytest.raises(DataError, match=r"row 1: column 'answer' is missing\n  it has: question, solution"):
        load_task("gsm8k", "train")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"question": "x", "answer": "y"}])
    with pytest.raises(DataError, match="row 1: the solution has no '####'"):
        load_task("gsm8k", "train")


COUNTS = {
    "gsm8k": ("numeric", 7_473),
    "svamp": ("numeric", 699),
    "strategyqa": ("boolean", 2_060),
    "commonsenseqa": ("choice", 9_741),
    "arc-easy": ("choice", 2_248),
    "arc-challenge": ("choice", 1_118),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
@pytest.mark.parametrize("name", COUNTS)
def test_real_sets(name: str) -> None:
    items = load_task(name, "train", DATA)
    assert ({item.kind for item in items}, len(items)) == ({COUNTS[name][0]}, COUNTS[name][1])
    if name == "strategyqa":
        assert all(item.facts for item in items)
    if items[0].kind == "numeric":
        solved = [item for item in items[:100] if solution_steps(item)]
        assert len(solved) > 85
    assert CHECKERS[items[0].kind](f"#### {items[0].gold}", items[0]).strict


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "many", "kind": "numeric"}, "'kind' is 'numeric' and the answer 'many'"),
        ({"question": "a", "answer": "b", "kind": "sum"}, "'kind' is 'sum'"),
        ({"question": "a", "answer": "b", "kind": "choice"}, "choice needs 'choices'"),
        ({"question": "a", "answer": "b", "facts": "one"}, "'facts' is 'one'; it is a list of texts"),
        ({"question": "a", "answer": "b", "steps": [1]}, "'steps' is \\[1\\]"),
    ],
)
def test_bad_rows(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        read_items(path)


def test_a_row_may_say_its_kind(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "\\frac{1}{2}", "kind": "latex"},
        {"question": "a", "answer": "007", "kind": "exact"},
        {"question": "a", "answer": True},
        {"question": "a", "answer": "yes", "kind": "boolean", "facts": ["b ", " "]},
        {"question": "a", "answer": "5", "kind": "numeric", "steps": ["2+3=5"]},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = read_items(path)
    assert [item.kind for item in items] == ["latex", "exact", "boolean", "boolean", "numeric"]
    assert (items[1].gold, items[2].gold, items[3].facts, items[4].steps) == ("007", "yes", ("b",), ("2+3=5",))
