"""docs/run-directory.md describes every file that a run and an evaluation write, and every field of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import limbeck
from limbeck.evaluation import Decoding
from limbeck.sequences import TeacherWritten
from limbeck.sequences.answer_cache import Answer, AnswerCache
from limbeck.sequences.answering import Author
from limbeck.studies.budget import Plan
from limbeck.studies.scoring_arms import ScoredArm
from limbeck.testing import ScriptedModel, random_script, save_tiny, save_toy, scripted_rollouts

_PARTS = ("time", "terms", "tokens", "origin", "measures", "revision", "own", "collection", "replay")
PAGE = Path(__file__).parents[2] / "docs" / "run-directory.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    rows = str(save_toy(folder / "toy.jsonl", 40))
    teacher = str(save_tiny(folder / "teacher", seed=1, layers=3))
    recipe = {
        # The method that writes the most: until its buffer is full, rows are drawn and revised in every step.
        "method": {"base": "mgsr:off-policy", "sequences": {"schedule": {"kind": "constant", "share": 1.0}}},
        "models": {"teacher": teacher, "student": str(save_tiny(folder / "student", seed=2))},
        "data": {"corpus": rows, "max_prompt": 48, "max_length": 64},
        "sampling": {"max_new_tokens": 6},
        "train": {"steps": 2, "batch_rows": 4},
        "validate": {"every": 1, "rows": 2},
        "cache": {"kind": "memory"},
        # A lead that no teacher has: the signature shows at the first validation.
        "watch": {"teacher_no_better": 1e6},
        "run": str(folder / "run"),
    }
    done = limbeck.train(recipe)
    limbeck.evaluate(
        done,
        "starter",
        teacher=teacher,
        decoding=Decoding(max_new_tokens=6),
        seeds=(10,),
        max_rows=2,
        max_prompt=64,
        out=done.directory / "answers" / "plain",
    )
    return done.directory


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose source remembers tensors."""
    folder = tmp_path_factory.mktemp("collected")
    recipe = {
        "method": {"base": "minillm", "sequences": {"rows": 4, "epochs": 2}},
        "models": {
            "teacher": str(save_tiny(folder / "teacher", seed=1, layers=3)),
            "student": str(save_tiny(folder / "student", seed=2)),
        },
        "data": {"corpus": str(save_toy(folder / "toy.jsonl", 8)), "max_prompt": 48, "max_length": 64},
        "sampling": {"max_new_tokens": 3},
        "train": {"steps": 1, "batch_rows": 4},
        "validate": {"every": None},
        "run": str(folder / "run"),
    }
    return limbeck.train(recipe).directory


def _section(heading: str) -> str:
    """The text below the heading that holds these words, up to the next heading."""
    found = re.search(rf"^#+ [^\n]*{re.escape(heading)}[^\n]*\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.M | re.S)
    assert found is not None, f"no heading of {PAGE.name} holds {heading}"
    return found.group(1)


def _tables(section: str) -> list[set[str]]:
    """For each table: what stands in backquotes in its first column."""
    tables: list[set[str]] = []
    for line in section.splitlines():
        if re.match(r"\|-", line):
            tables.append(set())
        elif line.startswith("|") and tables:
            tables[-1] |= set(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return tables


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _keys(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {key for row in rows for key in row}


def test_every_file_is_described(run: Path, collected: Path) -> None:
    page = PAGE.read_text()
    for path in (*run.rglob("*"), *collected.rglob("*")):
        name = str(path.relative_to(run if path.is_relative_to(run) else collected))
        if path.is_dir() or name.startswith("answers/"):
            continue
        described = re.sub(r"\d{6}", "NNNNNN", name)
        assert f"`{described}`" in page, described
    evaluated = {re.sub(r"seed\d+", "seedN", each.name) for each in (run / "answers" / "plain").iterdir()}
    assert evaluated == {"starter-answers-seedN.jsonl", "starter-references.jsonl", "starter-own.jsonl"}
    assert all(f"`{name.replace('starter', 'CORPUS')}`" in page for name in evaluated)


def test_every_field_of_the_metrics_is_described_and_no_other(run: Path, collected: Path) -> None:
    section = _section("metrics.jsonl")
    rows = [row for each in (run, collected) for row in _rows(each / "metrics.jsonl")]
    step, validation, watch = _tables(section)
    assert step == _keys(row for row in rows if row["kind"] == "step")
    assert validation == _keys(row for row in rows if row["kind"] == "validation")
    assert watch == _keys(row for row in rows if row["kind"] == "watch")
    inside = {key for row in rows for part in _PARTS for key in row.get(part, ())}
    assert {key for key in inside if f"`{key}`" not in section} == set()


def test_every_count_of_the_rows_is_described_and_no_other(run: Path) -> None:
    found = json.loads((run / "rows.json").read_text())
    assert _tables(_section("rows.json")) == [set(found), set(found["train"])]
    assert set(found["train"]) == set(found["validation"])
    assert found["train"]["read"] + found["validation"]["read"] == 40
    assert set(found["sources"][0]) == {"source", "format", "rows"}


@pytest.mark.parametrize("name", ["environment.json", "auto.json", "student/limbeck.json"])
def test_every_field_of_a_json_file_is_described_and_no_other(run: Path, name: str) -> None:
    (table,) = _tables(_section(Path(name).name))
    assert table == set(json.loads((run / name).read_text()))


def test_every_field_of_a_checkpoint_is_described_and_no_other(run: Path, collected: Path) -> None:
    (file,) = run.glob("checkpoints/step-*/state.json")
    (other,) = collected.glob("checkpoints/step-*/state.json")
    body = json.loads(file.read_text())
    state = body.pop("state")
    section = _section("state.json")
    assert _tables(section) == [{*body, *(f"state.{key}" for key in state)}]
    kept = {key for key, value in state["teacher_cache"]["0"].items() if not isinstance(value, dict)}
    inside = {*state["position"], *state["source"], *kept, *json.loads(other.read_text())["state"]["source"]}
    assert {key for key in inside if f"`{key}`" not in section} == set()
    tensors = {name for each in (file, other) for name in load_file(each.with_name("source.safetensors"))}
    tensors = {re.sub(r"teacher_cache/\d+/", "", name.removeprefix("source/")) for name in tensors}
    named = {re.sub("experience/.*", "experience/*", name) for name in tensors}
    assert {name for name in named if f"`{name}`" not in PAGE.read_text()} == set()


def test_every_field_of_a_row_is_described_and_no_other(run: Path) -> None:
    (answer,) = _tables(_section("validation/step-NNNNNN.jsonl"))
    for file in run.glob("validation/*.jsonl"):
        assert _keys(_rows(file)) == answer
    header, *answers = _rows(run / "answers" / "plain" / "starter-answers-seed10.jsonl")
    section = _section("CORPUS-answers-seedN.jsonl")
    assert _tables(section) == [set(header)]
    assert {key for key in header["decoding"] if f"`{key}`" not in section} == set()
    assert _keys(answers) == answer
    assert {key for row in answers for key in row["scores"] if f"`{key}`" not in section} == set()
    section = _section("CORPUS-references.jsonl")
    for measure in ("references", "own"):
        rows = _rows(run / "answers" / "plain" / f"starter-{measure}.jsonl")
        assert _tables(section) == [_keys(rows)]
        assert {key for row in rows for key in row["scores"] if f"`{key}`" not in section} == set()
    samples = _rows(run / "samples.jsonl")
    section = _section("samples.jsonl")
    assert _tables(section) == [_keys(samples)]
    corrections = [each for row in samples for each in row.get("corrections", ())]
    assert {key for key in _keys(corrections) if f"`{key}`" not in section} == set()


def test_every_field_of_a_token_is_described_and_no_other(run: Path) -> None:
    rows = _rows(run / "tokens.jsonl")
    tokens = [token for row in rows for token in row["tokens"]]
    distributions = [token["distribution"] for token in tokens if "distribution" in token]
    assert _tables(_section("tokens.jsonl")) == [_keys(rows), _keys(tokens), _keys(distributions)]


def test_every_field_of_a_teachers_answers_is_described_and_no_other(tmp_path: Path) -> None:
    source = TeacherWritten()
    rollouts = scripted_rollouts(ScriptedModel(random_script(1, vocab_size=5), vocab_size=5), max_new_tokens=2)
    author = Author(rollouts=rollouts, reading=_Plain(), identity={"name": "", "weights": "", "dtype": ""})
    cache = AnswerCache(tmp_path, author.asked(source))
    cache.add([Answer(prompt="", text="", tokens=(), stopped=False)])
    header, row = _rows(cache.path)
    section = _section("teacher-written/HASH.jsonl")
    assert _tables(section) == [set(header), set(row)]
    inside = {*header["teacher"], *header["sampling"]}
    assert {key for key in inside if f"`{key}`" not in section} == set()


class _Plain:
    name = ""

    def prompt(self, row: Any) -> tuple[int, ...]:
        return tuple(row.prompt)

    def text(self, tokens: Any) -> str:
        return ""

    def learned(self, row: Any, answer: Answer) -> Any:
        return row


def test_the_quickstarts_own_files_are_described() -> None:
    assert _tables(_section("plan.json")) == [{each.name for each in dataclasses.fields(Plan)}]
    numbers = {each.name for each in dataclasses.fields(ScoredArm)} - {"name", "results"}
    assert _tables(_section("scored.json")) == [numbers]
