"""Every extractor trains; what is learned is kept with the run and never learned again."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from limbeck.config import Recipe
from limbeck.data.loader import Mix
from limbeck.errors import CheckpointError, ConfigError, UnknownName
from limbeck.inspection import explain
from limbeck.inspection.extractors import EXTRACTED
from limbeck.inspection.formulas import formulas_of
from limbeck.losses import Correlation
from limbeck.losses.objective import Objective
from limbeck.methods import METHODS, from_config, to_config
from limbeck.models import Pair
from limbeck.records import EncodedRow
from limbeck.spans import EXTRACTORS, Collocations, Learned, SpanFinder
from limbeck.testing import byte_tokenizer
from limbeck.training import loop
from limbeck.training.rundir import EXTRACTOR, RunDirectory
from limbeck.training.spanning import learned_state, open_finder, pairs_of
from limbeck.training.world import World
from limbeck.types import pack_rows
from training_kit import Killed, Models, assert_same_run, contents, opened, recipe, start, start_and_kill

LEARNED = {"kind": "learned", "threshold": 0.2, "min_count": 3, "max_tokens": 4}
EOS = 258
PAGE = Path(__file__).parents[3] / "docs" / "run-directory.md"


def settings(models: Models, extractor: Any, **sections: Any) -> dict[str, Any]:
    method = {
        "sequences": {"kind": "mixture", "first": "student", "second": "fixed", "share": 0.5},
        "span": {"kind": "correlation", "extractor": extractor},
        "weights": {"supervised": 0, "span": 1},
    }
    return recipe(models, "gkd", method=method, **sections)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models.save(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def learned(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with learned spans that nobody stopped."""
    return start(settings(models, LEARNED), tmp_path_factory.mktemp("runs") / "learned").directory


class Blank:
    """A stand-in for spaCy whose every word is a noun."""

    pipe_names = ("tagger", "parser")

    def __call__(self, text: str) -> Any:
        words = [
            type("Word", (), {"text": found[0], "idx": found.start(), "pos_": "NOUN", "dep_": ""})
            for found in re.finditer(r"\w+", text)
        ]
        chunk = type("Span", (), {"start": 0, "end": len(words)})
        members = {"__iter__": lambda _: iter(words), "has_annotation": lambda _, mark: True, "noun_chunks": [chunk]}
        return type("Doc", (), members)()

    def pipe(self, texts: list[str]) -> Any:
        return map(self, texts)


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_every_extractor_trains(kind: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("spacy")
    module.load = lambda name: Blank()
    monkeypatch.setitem(sys.modules, "spacy", module)
    extractor = LEARNED if kind == "learned" else {"kind": kind}
    run = start(settings(models, extractor, train={"steps": 2}), tmp_path / "run")
    steps = [row for row in run.metrics() if row["kind"] == "step"]
    assert any(row["spans"] > 0 and row["terms"]["span"] > 0 for row in steps)
    assert (run.directory / EXTRACTOR).exists() == (kind == "learned")


def test_killed_and_resumed_is_never_killed(models: Models, learned: Path, tmp_path: Path) -> None:
    start_and_kill(settings(models, LEARNED), tmp_path / "killed", call=5)
    before = (tmp_path / "killed" / EXTRACTOR).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learned, "fit", lambda *_: pytest.fail("a resumed run learned again"))
        start(settings(models, LEARNED), tmp_path / "killed", resume=True)
    assert_same_run(learned, tmp_path / "killed")
    assert (tmp_path / "killed" / EXTRACTOR).read_bytes() == before == (learned / EXTRACTOR).read_bytes()


def test_killed_before_its_first_step(models: Models, learned: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "run", _killed)
        with pytest.raises(Killed):
            start(settings(models, LEARNED), run)
    assert (run / EXTRACTOR).exists(), "a folder with a recipe is a run, and has all that it cannot make again"
    start(settings(models, LEARNED), run, resume=True)
    assert_same_run(learned, run)


def _killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_resumed_run_uses_the_file(models: Models, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_and_kill(settings(models, LEARNED), run, call=5)
    directory = RunDirectory.existing(run)
    session = opened(settings(models, LEARNED), run)
    assert session.finder is not None
    assert session.finder.extractor.state() == directory.extractor()


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "other"])
def test_a_damaged_file_is_refused_and_nothing_changes(damage: str, models: Models, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_and_kill(settings(models, LEARNED), run, call=5)
    path = run / EXTRACTOR
    text = path.read_text()
    body = json.loads(text)
    if damage == "gone":
        path.unlink()
    elif damage == "changed":
        body["collocations"] = body["collocations"][1:]
        path.write_text(json.dumps(body))
    else:
        path.write_text({"cut": text[: len(text) // 2], "other": "[1, 2]"}[damage])
    before = contents(run)
    with pytest.raises(CheckpointError, match=r"extractor\.json(.|\n)*Put the file back"):
        start(settings(models, LEARNED), run, resume=True)
    assert contents(run) == before


def test_the_file_of_a_run_that_never_began_is_in_nobodys_way(models: Models, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / EXTRACTOR).write_text("{}")
    start(settings(models, "window", train={"steps": 1}), run)
    assert not (run / EXTRACTOR).exists()


def test_every_field_of_the_file_is_described_and_no_other(learned: Path) -> None:
    section = PAGE.read_text().partition("## `extractor.json`\n")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", section, re.M))
    body = json.loads((learned / EXTRACTOR).read_text())
    assert described == set(body)
    assert all(len(entry) == 3 for entry in body["collocations"])


def test_what_is_learned_is_of_the_references_alone(models: Models, learned: Path) -> None:
    pairs = {(first, second) for first, second, _ in json.loads((learned / EXTRACTOR).read_text())["collocations"]}
    assert (ord("l"), ord("a")) in pairs, "every response says la"
    assert not any({ord("s"), ord("y"), *range(256, 264)} & {*pair} for pair in pairs), "prompts say it, no response"


def objective(extractor: Any) -> Objective:
    return dataclasses.replace(METHODS["mgsr"](), span=Correlation(extractor)).objective()


ALONE = World(rank=0, size=1, device=torch.device("cpu"), strategy="none")


def row(prompt: bytes, response: list[int]) -> EncodedRow:
    tokens = (*prompt, *response)
    return EncodedRow(
        id="r", prompt=tuple(prompt), tokens=tokens, is_response=tuple(i >= len(prompt) for i in range(len(tokens)))
    )


def test_prompts_and_special_tokens_teach_nothing_and_each_row_counts_once() -> None:
    rows = [row(b"xyxyxy", [*b"ab", EOS]), row(b"xy", [*b"ab", EOS, *b"cd"]), row(b"xyxy", [*b"ac"]), row(b"q", [])]
    learn = Learned(min_count=1, threshold=-0.99)
    for given in (rows, Mix((rows[:1], rows[1:]), (5.0, 1.0))):
        finder = open_finder(objective(learn), tokenizer=byte_tokenizer(), rows=given, world=ALONE, resumed=None)
        assert finder is not None
        assert isinstance(finder.extractor, Collocations)
        assert finder.extractor == learn.fit([[*b"ab"], [*b"ab"], [*b"cd"], [*b"ac"]])
        assert learned_state(finder) == finder.extractor.state()


def test_every_rank_has_what_the_main_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Learned(min_count=1).fit([[1, 2], [3, 4]])

    def gather(world: World, given: list[Any]) -> list[Any]:
        return given or [main.state()]

    monkeypatch.setattr(World, "gather", gather)
    rows = [row(b"p", [*b"ab"]), row(b"p", [*b"cd"])]
    found = [
        open_finder(
            objective(Learned(min_count=1)),
            tokenizer=byte_tokenizer(),
            rows=rows,
            world=dataclasses.replace(ALONE, rank=rank, size=2),
            resumed=None,
        )
        for rank in (0, 1)
    ]
    pairs = [set(each.extractor.npmi) for each in found]
    assert pairs == [{(97, 98), (99, 100)}, {(1, 2), (3, 4)}]


def test_no_pair_leaves_its_row_or_its_response() -> None:
    batch = pack_rows(
        [[*b"pp", *b"abc", EOS], [*b"p", *b"d", EOS], [*b"ppp"], [*b"p", *b"efgh"]],
        [[False] * 2 + [True] * 4, [False] + [True] * 2, [False] * 3, [False] + [True] * 4],
        origin=["reference"] * 4,
        keys=[(0, i) for i in range(4)],
        pad_id=256,
    )
    for extractor in (EXTRACTORS["whole"](), EXTRACTORS["window"](size=8), Collocations(npmi=_All(), max_tokens=9)):
        finder = SpanFinder.of(extractor, special=frozenset(range(256, 264)), pieces=_never)
        pairs = pairs_of(batch, finder)
        # Scored tokens in order: a b c EOS d EOS e f g h.
        assert pairs.first.tolist() == [0, 1, 6, 7, 8]
        assert (pairs.num_spans, pairs.num_rows) == (2, 2)


class _All(dict):
    """Every pair is a collocation."""

    def __contains__(self, _: object) -> bool:
        return True


def _never() -> Any:
    raise AssertionError("the bytes of tokens were asked for")


# What is not installed is said before models are loaded.


def test_a_missing_library_is_said_before_models_are_loaded(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setattr(Pair, "load", lambda **_: pytest.fail("models were loaded"))
    with pytest.raises(ConfigError, match="pip install spacy"):
        start(settings(models, {"kind": "spacy", "pipeline": "xx_no_such_pipeline"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_collocation_at_all_is_an_error_before_anything_is_written(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Lower extractor\.threshold"):
        start(settings(models, {"kind": "learned", "min_count": 10_000}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Recipes and explanations.


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_recipes_are_read_dumped_and_read_back(kind: str, tmp_path: Path) -> None:
    plain = {"method": {"base": "mgsr", "span": {"kind": "correlation", "extractor": kind}}, "run": "runs/x"}
    loaded = Recipe.load({**plain, "models": {"teacher": "big", "student": "small"}})
    assert loaded.built_method().span == Correlation(EXTRACTORS[kind]())
    (tmp_path / "recipe.yaml").write_text(loaded.dump())
    assert Recipe.load(tmp_path / "recipe.yaml") == loaded
    method = loaded.built_method()
    assert from_config({"base": "mgsr", **to_config(method)}, allow_import=False) == method


@pytest.mark.parametrize(
    ("extractor", "error", "says"),
    [
        ({"kind": "window", "sise": 4}, UnknownName, "Did you mean 'size'"),
        ({"kind": "whole", "size": 4}, UnknownName, "field of 'whole'"),
        ({"kind": "window", "size": 1}, ConfigError, "greater than or equal to 2"),
        ({"kind": "learned", "threshold": 2}, ConfigError, "less than or equal to 1"),
        ({"kind": "spacy", "pipeline": "/tmp/mine"}, ConfigError, "pipeline"),
        ("sentence", UnknownName, "Did you mean 'sentences'"),
    ],
)
def test_what_is_no_extractor_is_refused(extractor: Any, error: type[ConfigError], says: str) -> None:
    method = {"base": "mgsr", "span": {"kind": "correlation", "extractor": extractor}}
    with pytest.raises(error, match=says):
        Recipe.load({"method": method, "models": {"teacher": "big", "student": "small"}})


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_every_extractor_is_explained(kind: str) -> None:
    made = EXTRACTORS[kind]()
    assert formulas_of(made)
    assert type(made) in EXTRACTED[Correlation, "extractor"]
    assert all((type(made), field.name) in EXTRACTED for field in dataclasses.fields(made))
    text = explain(dataclasses.replace(METHODS["mgsr"](), span=Correlation(made))).text()
    assert f"extractor: {kind}" in text
