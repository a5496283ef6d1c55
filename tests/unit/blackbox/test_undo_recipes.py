"""The recipe of an UNDO run: defaults, presets, controls, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from limbeck.blackbox.loop import run_undo
from limbeck.blackbox.planning import plan
from limbeck.blackbox.presets import CONTROLS, PRESETS
from limbeck.blackbox.recipes import UndoRecipe, is_recorded, lasting_differences
from limbeck.blackbox.sections import BudgetSection
from limbeck.blackbox.writers import writer_of
from limbeck.errors import ConfigError, UnknownName
from undo_kit import undo_values


def values(**changes: Any) -> dict[str, Any]:
    least: dict[str, Any] = {
        "teacher": {"kind": "http", "url": "http://127.0.0.1:1/v1", "model": "m"},
        "task": {"name": "gsm8k"},
        "student": {"model": "some/student"},
    }
    for key, value in changes.items():
        least[key] = {**least[key], **value} if key in least and isinstance(value, dict) else value
    return least


def test_defaults_are_those_of_the_specification() -> None:
    recipe = UndoRecipe.load(values())
    method, stop = recipe.method, recipe.stop
    assert (method.base, method.gold_visible, method.hints, method.candidates, method.retries) == (
        "undo-v1",
        "never",
        "off",
        1,
        2,
    )
    assert (method.history, method.candidate, method.length_factor) == ("window", "first_correct", 1.5)
    assert (stop.patience, stop.min_gain, stop.ood_errors, stop.min_accepted) == (1, 0.5, 2.0, 0.2)
    assert (recipe.task.probe, recipe.task.probe_policy, recipe.run) == (20, "fixed", "runs/undo")
    assert writer_of(recipe.teacher).temperature == 0.7  # type: ignore[attr-defined]


def test_presets_as_published() -> None:
    plain = {name: dataclasses.astuple(preset) for name, preset in PRESETS.items()}
    assert plain == {
        "undo-v1": (3, "all", "validation+instance", "replace", "none", 0.0, "base", ""),
        "adaptdistill": (3, "wrong", "validation", "replace", "none", 0.5, "base", ""),
        "one-shot": (0, "all", "hybrid", "replace", "previous_accepted", 0.0, "base", ""),
    }


def test_what_the_recipe_states_holds_for_the_method_and_its_paired_controls() -> None:
    recipe = UndoRecipe.load(
        values(), ["method.base=adaptdistill", "method.rounds=2", "method.carry=previous_accepted"]
    )
    main = recipe.arm("adaptdistill")
    assert (main.rounds, main.scope, main.carry) == (2, "wrong", "previous_accepted")
    assert recipe.arm("blind") == dataclasses.replace(main, feedback="none", twist="blind")
    assert recipe.arm("shuffled") == dataclasses.replace(main, twist="shuffled")
    assert (recipe.arm("star").rounds, recipe.arm("star").scope, recipe.arm("one-shot").rounds) == (2, "none", 0)
    assert set(CONTROLS) == {"one-shot", "one-shot-long", "format-only", "blind", "shuffled", "star", "union"}


def test_a_recipe_is_read_back_equal(tmp_path: Path) -> None:
    recipe = UndoRecipe.load(values(controls=["blind"], seed=3), ["train.learning_rate=1e-4"])
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    again = UndoRecipe.load(tmp_path / "recipe.yaml")
    assert again == recipe
    assert is_recorded(tmp_path)
    assert not is_recorded(values())
    assert UndoRecipe.load(tmp_path).run == str(tmp_path)


def test_what_may_differ_on_resume() -> None:
    one = UndoRecipe.load(values())
    other = UndoRecipe.load(
        values(),
        ["budget.calls=5", "method.rounds=9", "controls=[blind]", "teacher.concurrency=9", "run=elsewhere", "seed=1"],
    )
    assert lasting_differences(one, other) == ["seed: 0 -> 1"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metod": {}}, UnknownName, "Did you mean 'method'"),
        ({"method": {"scop": "all"}}, UnknownName, "Did you mean 'scope'"),
        ({"method": {"base": "undo-v2"}}, UnknownName, "Did you mean 'undo-v1'"),
        ({"controls": ["blnd"]}, UnknownName, "Did you mean 'blind'"),
        ({"method": {"scope": "some"}}, ConfigError, r"method.scope is 'some'; allowed: null, all, wrong"),
        ({"task": {"probe": 0}}, ConfigError, r"task.probe is 0; allowed: a whole number of at least 1"),
        ({"student": {"scratch": {"widht": 4}}}, UnknownName, "Did you mean 'width'"),
        ({"student": {"scratch": {}}}, ConfigError, "student.model and student.scratch: give exactly one"),
        ({"student": {"model": None}}, ConfigError, "give exactly one"),
        ({"task": {"file": "x.jsonl"}}, ConfigError, "give exactly one of them, a named task or a file"),
        ({"task": {"test_file": "x.jsonl"}}, ConfigError, "task.test_file is set, but"),
        ({"student": {"samples": 2}}, ConfigError, "temperature 0 draws the same answer again"),
        ({"method": {"scope": "wrong_or_unstable"}}, ConfigError, "needs student.samples of at least 2"),
        (
            {"method": {"candidate": "student_likelihood"}},
            ConfigError,
            "method.candidate chooses among method.candidates",
        ),
        ({"controls": ["blind", "blind"]}, ConfigError, "names a control twice"),
        ({"method": {"scope_share": 0.3}}, ConfigError, "method.scope_share is read with method.scope: sample alone"),
        ({"method": {"history": "all", "history_tokens": 9}}, ConfigError, "method.history_tokens is read with"),
        ({"method": {"candidate": "shortest_correct"}}, ConfigError, "chooses among method.candidates"),
        ({"task": {"ood_rows": 9}}, ConfigError, "task.ood_rows is of the tasks of task.ood"),
        ({"stop": {"ood_errors": 1.0}}, ConfigError, "stop.ood_errors is of the tasks of task.ood"),
        (
            {"task": {"name": None, "file": "x.jsonl", "root": "folder"}},
            ConfigError,
            "task.root is the folder of named tasks",
        ),
        (
            {"budget": {"money": 5}},
            ConfigError,
            r"budget.money is 5.0, but .* over HTTP: no price is set[\s\S]*teacher.price_prompt",
        ),
        ({"train": {"batch_rows": 8, "micro_rows": 9}}, ConfigError, r"train.micro_rows is 9, more than the 8"),
        ({"teacher": 3}, ConfigError, "a section of keys is expected"),
        ({"run": ""}, ConfigError, "run"),
        (
            {"student": {"model": None, "scratch": {"positions": 64}}},
            ConfigError,
            r"is less than student.max_prompt \+ student.max_new_tokens = 512",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        UndoRecipe.load(values(**changes))


@pytest.mark.parametrize("limit", ["calls", "tokens", "money"])
@pytest.mark.parametrize("kind", ["solver", "facts"])
def test_a_limit_on_calls_that_are_not_counted_is_refused(kind: str, limit: str) -> None:
    stated = {**values(), "teacher": {"kind": kind}}
    with pytest.raises(ConfigError, match=rf"budget.{limit} is 3(.0)?, but the teacher is .* not counted; delete it"):
        UndoRecipe.load({**stated, "budget": {limit: 3}})
    assert UndoRecipe.load({**stated, "budget": {"minutes": 3}}).budget.minutes == 3


def test_a_limit_on_money_needs_what_costs_money() -> None:
    local = {**values(), "teacher": {"kind": "local", "model": "m"}}
    with pytest.raises(ConfigError, match=r"budget.money is 3.0, but .* costs none; delete it"):
        UndoRecipe.load({**local, "budget": {"money": 3}})
    assert UndoRecipe.load({**local, "budget": {"calls": 3, "tokens": 3}}).budget.calls == 3
    priced = values(teacher={"price_completion": 0.1}, budget={"money": 3})
    assert UndoRecipe.load(priced).budget.money == 3
    assert UndoRecipe.load(values(budget={"calls": 3, "tokens": 9})).budget.calls == 3


def test_a_limit_that_does_not_hold_is_told_with_its_line_and_leaves_a_recorded_run_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("teacher: {kind: solver}\ntask: {name: arithmetic}\nstudent: {model: x}\nbudget:\n  calls: 3\n")
    with pytest.raises(ConfigError, match=r"budget.calls is 3[\s\S]*a.yaml line 5"):
        UndoRecipe.load(path)
    whole = UndoRecipe.load(values())
    run = tmp_path / "run"
    run.mkdir()
    old = dataclasses.replace(whole, budget=BudgetSection(money=3), run=str(run))
    (run / "recipe.yaml").write_text(old.dump())
    assert UndoRecipe.load(run).budget.money == 3
    with pytest.raises(ConfigError, match=r"budget.money to null"):
        run_undo(run, resume=True)
    with pytest.raises(ConfigError, match=r"budget.money to null"):
        plan(run)


def test_a_limit_on_a_rule_of_your_own_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    stated = undo_values(tmp_path, budget={"calls": 3})
    for ask in (run_undo, plan):
        with pytest.raises(ConfigError, match=r"budget.calls is 3, but the teacher is a rule that adds.* delete it"):
            ask(stated)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_missing_or_empty_points_to_recipes_of_undo(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "run").mkdir()
    for name in ("missing/a.yaml", "empty.yaml", "run"):
        with pytest.raises(ConfigError) as raised:
            UndoRecipe.load(tmp_path / name)
        assert "limbeck init" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"it must hold sections.\n  docs/undo.md shows the smallest recipe"):
        UndoRecipe.load(tmp_path / "empty.yaml")


def test_an_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("teacher: {kind: solver}\ntask: {name: arithmetic}\nstudent: {model: x}\nmethod:\n  retries: -1\n")
    with pytest.raises(ConfigError, match=r"method.retries is -1.*\n.*a.yaml line 5"):
        UndoRecipe.load(path)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, "teacher.kind is None; name a teacher"),
        ({"kind": "htp"}, "Did you mean 'http'"),
        ({"kind": "http", "url": "u", "model": "m", "modle": "m"}, "Did you mean 'model'"),
        ({"kind": "http", "url": "u", "model": "m", "attempts": 0}, "attempts: Input should be greater than"),
        ({"kind": "nowhere:Nothing"}, "cannot be imported"),
    ],
)
def test_teachers_that_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        writer_of(stated)
