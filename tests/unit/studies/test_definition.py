"""A study's file: what it may say, what is wrong with it and where, and the arms that it makes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.errors import ConfigError, UnknownName
from limbeck.studies.builtin import STUDIES, find_study
from limbeck.studies.controls import NO_TEACHER, OWN_START, SHUFFLED
from limbeck.studies.definition import Study, read_study
from limbeck.studies.places import Places
from limbeck.studies.protocol import FIVE, small_ids
from limbeck.studies.resolving import arm_recipe, planned_runs, scoring_key
from limbeck.studies.running import _is_a_beginning
from limbeck.testing import save_tiny

RECIPE = {"method": {"base": "gkd"}, "models": {"teacher": "big", "student": "small"}, "data": {"corpus": "rows.jsonl"}}
WHOLE: dict[str, Any] = {"recipe": RECIPE, "arms": {"gkd": {}}, "evaluate": {"corpora": ["test.jsonl"]}}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    values = {key: value for key, value in {**WHOLE, **changes}.items() if value is not ...}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def study(folder: Path, **changes: Any) -> Study:
    return read_study(written(folder, **{"controls": False, **changes}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": ...}, "has no recipe"),
        ({"evaluate": ...}, "has no evaluate"),
        ({"arms": ...}, "has no arms, or grid"),
        ({"arm": {}}, "no key of a study is called 'arm'. Did you mean 'arms'?"),
        ({"arms": {"a": 3}}, "the arm 'a' is 3"),
        ({"arms": {"../a": {}}}, "cannot name an arm"),
        ({"arms": []}, "arms is []"),
        ({"grid": {"train.steps": 4}}, "write KEY: [value, value]"),
        ({"arms": {"steps=2": {}}, "grid": {"train.steps": [2]}}, "two arms are called 'steps=2'"),
        ({"seeds": 3}, "seeds is 3; allowed: different whole numbers"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]"),
        ({"seeds": [True]}, "seeds is [True]"),
        ({"arms": {"a": {}, "b": {"train.seed": 5}}}, "train.seed is nothing that arms differ in; `seeds: [0, 1, 2]`"),
        ({"arms": {"a": {}, "b": {"train": {"seed": 5}}}}, "train.seed is nothing that arms differ in"),
        ({"arms": ..., "grid": {"train.seed": [0, 1]}}, "train.seed is nothing that arms differ in"),
        ({"recipe": {**RECIPE, "train": {"seed": "x"}}}, "recipe.train.seed is ['x']"),
        ({"evaluate": {}}, "name at least one corpus"),
        ({"evaluate": {"corpora": ["a.jsonl"], "rows": 0}}, "evaluate.rows is [0]"),
        ({"evaluate": {"corpora": ["a.jsonl"], "row": 4}}, "Did you mean 'rows'?"),
        ({"evaluate": {"corpora": ["a.jsonl"], "decoding": "beam"}}, "allowed: plain, paper, greedy"),
        ({"baseline": "kdg"}, "no arm is called 'kdg'"),
        ({"controls": "yes please"}, "allowed: true, false"),
        ({"keep": "all"}, "allowed: rows, students"),
        ({"stages": {"start": {}}}, "give it a recipe, a shrink or both"),
        ({"stages": {"start": {"shrink": {"model": "x"}}}}, "write {model: NAME, layers: 12}"),
        ({"recipe": 3}, "recipe is 3"),
        ({"recipe": {**RECIPE, "train": 3}}, "recipe.train is 3; train is a section of a recipe, write train: {key"),
        ({"arms": {"a": {"method": "kd"}}}, "arms.a.method is 'kd'; method is a section"),
        ({"arms": ..., "grid": {"method": ["kd", "gkd"]}}, "grid.method is 'kd'; method is a section"),
        ({"stages": {"a": {"recipe": {"data": 3}}}}, "stages.a.recipe.data is 3; data is a section"),
        ({"arms": None}, "there is no arm"),
        ({"evaluate": {"corpora": {"x": None}}}, "evaluate.corpora.x is None; write the name of a corpus or a file"),
        (
            {"evaluate": {"corpora": ["news/test.jsonl", "other.jsonl", "law/test.jsonl"]}},
            "evaluate.corpora has 2 corpora that are called 'test'; give each a name of its own: "
            "{NAME1: news/test.jsonl, NAME2: law/test.jsonl}",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_study(written(tmp_path, **changes))


def test_a_wrong_key_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"mine\.yaml line \d+"):
        read_study(written(tmp_path, jobs=3))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"arms": {"a": {"method": "kd"}}}, 11),
        ({"recipe": {"data": {"corpus": "x"}, "train": 3}}, 4),
        ({"evaluate": {"corpora": ["a/t.jsonl", "b/t.jsonl"]}}, 12),
    ],
)
def test_a_slip_is_told_with_its_line(tmp_path: Path, changes: dict[str, Any], line: int) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.yaml line {line}$"):
        read_study(written(tmp_path, **changes))


def test_sections_with_nothing_in_them_are_as_if_they_were_not_written(tmp_path: Path) -> None:
    text = written(tmp_path, controls=False).read_text() + "stages:\ngrid:\nbaseline:\ntitle:\n"
    text = text.replace("recipe:\n", "recipe:\n  train:\n  cache:\n").replace("gkd: {}", "gkd: {train: , data: }")
    (tmp_path / "mine.yaml").write_text(text)
    found = find_study(str(tmp_path / "mine.yaml"), settings=["train.steps=2"])
    assert (found.title, found.baseline, found.stages, len(found.arms)) == ("mine", "gkd", (), 1)
    (planned,) = planned_runs(found)
    assert planned.recipe is not None
    assert planned.recipe.train.steps == 2
    assert planned.key == _key(study(tmp_path), **{"train.steps": 2})


@pytest.mark.parametrize("name", [*STUDIES, "injected-errors"])
def test_a_file_with_the_name_of_a_built_in_study_is_refused(tmp_path: Path, name: str) -> None:
    for ending in ("yaml", "yml"):
        path = written(tmp_path).rename(tmp_path / f"{name}.{ending}")
        with pytest.raises(ConfigError, match=f"a built-in study is called '{name}'.*rename the file"):
            find_study(str(path))


def test_corpora_of_one_stem_are_told_apart_by_names_of_their_own(tmp_path: Path) -> None:
    corpora = {"news": "news/test.jsonl", "law": "law/test.jsonl"}
    found = study(tmp_path, evaluate={"corpora": corpora})
    assert {each.name: each.corpus for each in found.scoring.corpora} == corpora


def test_a_wrong_setting_names_its_arm(tmp_path: Path) -> None:
    wrong = study(tmp_path, arms={"gkd": {}, "typo": {"train.step": 3}})
    with pytest.raises(ConfigError, match="in the arm 'typo' of the study mine"):
        planned_runs(wrong)
    with pytest.raises(ConfigError, match="in the arm 'typo'"):
        planned_runs(study(tmp_path, arms={"typo": {"method.base": "gdk"}}))
    with pytest.raises(
        ConfigError, match=r"method.weights is 3; a section of keys is expected[\s\S]*in the arm 'typo'"
    ):
        planned_runs(study(tmp_path, arms={"typo": {"method.weights": 3}}))


def test_a_part_of_ones_own_that_was_changed_makes_another_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    part = tmp_path / "parts_of_a_study.py"
    text = (
        "from dataclasses import dataclass\n"
        "from limbeck.losses.divergences import ForwardKL\n"
        "@dataclass(frozen=True)\nclass Mine(ForwardKL):\n    pass\n"
    )
    part.write_text(text)
    mine = {"method.token.divergence": {"kind": "parts_of_a_study:Mine"}}
    first = _key(study(tmp_path), **mine)
    assert _key(study(tmp_path), **mine) == first
    part.write_text(text + "# another formula\n")
    assert _key(study(tmp_path), **mine) != first


def test_a_models_folder_with_another_chat_template_is_another_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "student")
    named = {"models.student": str(folder)}
    first = _key(study(tmp_path), **named)
    (folder / "README.md").write_text("A card says nothing to a model.")
    assert _key(study(tmp_path), **named) == first
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert _key(study(tmp_path), **named) != first


def test_a_title_of_several_lines_is_one(tmp_path: Path) -> None:
    assert study(tmp_path, title="Losses\nof three kinds\n").title == "Losses of three kinds"


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    grid = {"train.learning_rate": [1e-4, 5e-4], "method.token.divergence.kind": ["jsd", "tvd"]}
    found = study(tmp_path, arms=..., grid=grid)
    assert [arm.name for arm in found.arms] == [
        f"learning_rate={rate},kind={kind}" for rate in ("0.0001", "0.0005") for kind in ("jsd", "tvd")
    ]
    assert found.baseline == found.arms[0].name
    recipe = arm_recipe(found, found.arms[3], seed=7)
    assert (recipe.train.learning_rate, recipe.train.seed) == (5e-4, 7)
    assert recipe.method["token"]["divergence"] == {"kind": "tvd"}


def test_the_seed_of_the_recipe_counts_where_no_seeds_are_given(tmp_path: Path) -> None:
    recipe = {**RECIPE, "train": {"seed": 7}}
    assert [run.seed for run in planned_runs(study(tmp_path, recipe=recipe))] == [7]
    assert [run.seed for run in planned_runs(study(tmp_path, recipe=recipe, seeds=[1, 2]))] == [1, 2]


def test_settings_that_an_arm_does_not_read_are_left_out_and_its_own_are_refused(tmp_path: Path) -> None:
    shared = {**RECIPE, "sampling": {"temperature": 0.7}, "watch": {"rows": 0}, "validate": {"every": None}}
    found = study(tmp_path, recipe=shared, arms={"gkd": {}, "sft": {"method.base": "sft"}})
    recipe = arm_recipe(found, found.arm("sft"), seed=0)
    assert (recipe.models.teacher, recipe.sampling.temperature) == (None, 1.0)
    assert arm_recipe(found, found.arm("gkd"), seed=0).sampling.temperature == 0.7
    own = study(tmp_path, recipe=shared, arms={"sft": {"method.base": "sft", "models.teacher": "big"}})
    with pytest.raises(ConfigError, match="sft has no teacher"):
        planned_runs(own)


def _key(found: Study, **changes: Any) -> str:
    arm = type(found.arms[0])(name="it", changes=changes)
    return planned_runs(type(found)(**{**vars(found), "arms": (arm,), "baseline": "it"}))[0].key


@pytest.mark.parametrize(
    "changes",
    [
        {"models.device": "cpu"},
        {"data.root": "elsewhere"},
        {"train.micro_rows": 2},
        {"train.chunk": 64},
        {"train.checkpoint_minutes": 1},
        {"watch.every": 7},
        {"models.attention": "eager"},
    ],
)
def test_machine_and_logging_do_not_enter_the_hash(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = study(tmp_path)
    assert _key(found, **changes) == _key(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.steps": 7},
        {"train.learning_rate": 1e-4},
        {"method.sequences.share": 0.25},
        {"sampling.max_new_tokens": 9},
        {"data.max_length": 300},
        {"validate.every": 3},
        {"models.student": "other"},
        {"train.seed": 5},
        {"train.precision": "fp32"},
    ],
)
def test_what_may_move_a_result_enters_the_hash(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = study(tmp_path)
    assert _key(found, **changes) != _key(found)


def test_a_recipe_written_in_two_ways_is_one_arm(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert _key(found, **{"method.token.divergence": {"kind": "jsd", "beta": 0.5}}) == _key(found)
    assert _key(found, method={"base": "gkd"}, **{"train.warmup": 0}) == _key(found)


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    for folder, text in (("a", "{}"), ("b", "{}"), ("c", '{"x": 1}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(text)
    found = study(tmp_path)
    keys = [_key(found, **{"data.corpus": str(tmp_path / folder / "rows.jsonl")}) for folder in "abc"]
    assert keys[0] == keys[1] != keys[2]


def test_plain_text_counts_by_its_content_and_may_lie_below_the_root(tmp_path: Path) -> None:
    found, taught = study(tmp_path), {"method.weights.plain_text": 1.0}
    keys = []
    for name, text in (("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")):
        (tmp_path / name).write_text(text)
        keys.append(_key(found, **taught, **{"data.plain_text": str(tmp_path / name)}))
    assert keys[0] == keys[1] != keys[2]
    arm = type(found.arms[0])(name="it", changes={**taught, "data.plain_text": "@data/c.txt"})
    places = Places(work=tmp_path, rows=tmp_path, root=tmp_path)
    local = places.local(found, arm_recipe(found, arm, seed=0), run=tmp_path / "run")
    assert local.data.plain_text == str(tmp_path / "c.txt")


def test_rows_that_were_compared_with_another_teacher_are_not_taken(tmp_path: Path) -> None:
    one = study(tmp_path, arms={"sft": {"method.base": "sft"}})
    models = {**RECIPE["models"], "teacher": "another"}
    other = study(tmp_path, arms={"sft": {"method.base": "sft"}}, recipe={**RECIPE, "models": models})
    assert planned_runs(one)[0].key == planned_runs(other)[0].key
    places = Places(work=tmp_path, rows=tmp_path)
    assert places.kept(one, planned_runs(one)[0]) != places.kept(other, planned_runs(other)[0])


@pytest.mark.parametrize(("every", "is_one"), [(None, True), (2, True), (4, True), (3, False), ("epoch", False)])
def test_an_arm_that_is_validated_where_a_longer_one_is_not_is_no_beginning_of_it(
    every: int | str | None, is_one: bool, tmp_path: Path
) -> None:
    shared = {**RECIPE, "validate": {"every": every}}
    steps = {"train.steps": 4, "train.schedule": "constant"}
    found = study(tmp_path, recipe=shared, arms={"half": steps})
    assert _is_a_beginning(arm_recipe(found, found.arm("half"), seed=0)) is is_one


def test_every_arm_of_every_built_in_study_is_a_recipe() -> None:
    keys: dict[str, set[str]] = {}
    for name in STUDIES:
        found = find_study(name, seeds=(0,))
        planned = planned_runs(found)
        assert {each.arm for each in planned} == {arm.name for arm in found.arms}
        assert found.arm(found.baseline)
        keys[name] = {each.key for each in planned if each.arm == "mgsr"}
    # MGSR stands in most tables, and is one run; `methods` takes more steps.
    shared = set().union(*(keys[name] for name in keys if name != "methods"))
    assert len(shared) == 1
    assert sum(bool(each) for each in keys.values()) >= 9


@pytest.mark.parametrize("study", ["table1", "table3a", "limits", "clip-ranges"])
def test_any_arms_of_a_study_can_be_named_with_commas_between(study: str) -> None:
    found = find_study(study)
    names = tuple(arm.name for arm in found.arms)
    assert found.named(",".join(names)) == found.named(", ".join(names)) == names
    assert all(found.named(name) == (name,) for name in names)


def test_an_arm_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert find_study("limits").named("gkd, 64 tokens, mgsr, gsm8k") == ("gkd, 64 tokens", "mgsr, gsm8k")
    for given, wrong in (("gkd", "gkd"), ("gkd, 64 tokens, mgrs, gsm8k", "mgrs"), ("", "")):
        with pytest.raises(UnknownName, match=f"'{wrong}'"):
            find_study("limits").named(given)


def test_the_tables_share_what_they_score() -> None:
    shared = ("table1", "table2", "table3a", "table3b", "table3c", "detectors", "clip-networks", "spans", "generation")
    assert len({scoring_key(STUDIES[name]()) for name in shared}) == 1


def test_how_many_rows_are_decoded_at_a_time_is_no_part_of_what_an_arm_is(tmp_path: Path) -> None:
    study = STUDIES["table1"]()
    slow = dataclasses.replace(study, scoring=dataclasses.replace(study.scoring, batch_rows=1))
    assert scoring_key(slow) == scoring_key(study)
    for change in ({"max_new_tokens": 49}, {"dtype": "bfloat16"}):
        other = dataclasses.replace(study, scoring=dataclasses.replace(study.scoring, **change))
        assert scoring_key(other) != scoring_key(study)


def test_controls_stand_behind_the_arms_of_every_study(tmp_path: Path) -> None:
    assert all(make().controls == (OWN_START, SHUFFLED, NO_TEACHER) for make in STUDIES.values())
    mine = read_study(written(tmp_path))
    recipes = {name: arm_recipe(mine, mine.arm(name), seed=0) for name in mine.controls}
    assert recipes[OWN_START].models.teacher == "small"
    assert recipes[SHUFFLED].method["token"]["target"] == {"kind": "other-row"}
    assert recipes[NO_TEACHER].models.teacher is None


def test_the_protocol_has_64_prompts_of_each_set() -> None:
    ids = small_ids()
    assert set(ids) == {"dolly-valid", *FIVE, "gsm8k"}
    assert all(len(chosen) == len(set(chosen)) == 64 for chosen in ids.values())


def test_settings_of_the_command_line_are_laid_over_all_arms() -> None:
    found = find_study("table2", settings=["train.steps=4", "models.device=cpu"], seeds=(0,))
    assert {each.recipe.train.steps for each in planned_runs(found) if each.recipe is not None} == {4}
    with pytest.raises(ConfigError, match="what the arms of a study differ in"):
        find_study("table2", settings=["method.base=kd"])


def test_injected_errors_needs_its_data_and_is_given_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.studies import detector_study, injected
    from limbeck.studies.places import Places

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(injected, "build_stage", lambda study, stage, places, say: tmp_path / stage.name)
    monkeypatch.setattr(detector_study, "injected_errors", lambda **given: asked.append(given))
    with pytest.raises(ConfigError, match="--root DIR"):
        injected.run_injected_errors(Places(work=tmp_path, rows=tmp_path / "rows"))
    places = Places(work=tmp_path, rows=tmp_path / "rows", root=tmp_path)
    assert injected.run_injected_errors(places, seed=3, say=lambda text: None) == tmp_path / "rows" / "injected-errors"
    (given,) = asked
    assert (given["teacher"], given["student"], given["seed"]) == (tmp_path / "teacher", tmp_path / "start", 3)
