from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from limbeck.config import Recipe
from limbeck.errors import ConfigError, UnknownName
from limbeck.inspection import Explanation, explain
from limbeck.losses import DACKL, JSD, Match, ReverseKL
from limbeck.losses.clip_networks import FixedBounds
from limbeck.methods import PRESETS, Method, mgsr
from limbeck.revision import DETECTORS, SCRG, Heuristic
from limbeck.sequences import Student


@dataclass(frozen=True)
class Mine:
    """A divergence of one's own.

    And more about it.
    """

    def __call__(self, *, target_logp: Any, student_logp: Any) -> Any:
        return (target_logp - student_logp).abs().sum(-1)


def _parts(explanation: Explanation) -> Iterator[Any]:
    left = list(explanation.parts)
    while left:
        part = left.pop(0)
        yield part
        left += part.parts


def _entries(explanation: Explanation) -> dict[str, Any]:
    """Every entry by its key; of a part that has the key of its weight, the weight."""
    found = {part.entry.key: part.entry for part in _parts(explanation)}
    found |= {entry.key: entry for part in _parts(explanation) for entry in part.fields}
    return found | {entry.key: entry for entry in explanation.settings}


def _beside(explanation: Explanation) -> dict[str, str]:
    return {reading.about: reading.standing for part in _parts(explanation) for reading in part.beside}


def _changed(explanation: Explanation) -> dict[str, Any]:
    return {key: entry.was for key, entry in _entries(explanation).items() if entry.is_changed}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_text_fits_a_narrow_terminal_and_a_pipe(name: str, width: int) -> None:
    text = explain(name).text(width)
    assert max(len(line) for line in text.splitlines()) <= min(width, 100)
    assert all(sign == "\n" or sign.isprintable() for sign in text)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert text.endswith("\n")


def test_the_same_words_at_every_width() -> None:
    assert explain("mgsr").text(45).split() == explain("mgsr").text(90).split()


def test_the_parts_of_mgsr_with_their_equations() -> None:
    explanation = explain("mgsr")
    assert [(part.entry.name, part.entry.value) for part in explanation.parts] == [
        ("sequences", "mixture"),
        ("revision", "scrg"),
        ("token", "dac-kl"),
        ("span", "correlation"),
        ("supervised", "likelihood of the reference"),
        ("plain_text", None),
        ("reduction", "token"),
    ]
    text = explanation.text(60)
    assert [number for number in (2, 3, 4, 6, 7, 8, 9, 10, 11) if f"(Eq. {number})" not in text] == []
    assert "loss = 1 · supervised + 1 · token + 1 · span   (Eq. 11)" in text


def test_how_mgsrs_fields_stand_to_the_paper() -> None:
    explanation = explain("mgsr")
    standings = {key: each.reading.standing for key, each in _entries(explanation).items() if each.reading is not None}
    expected = {
        "method.sequences.share": "open",
        "method.revision.detector.direction": "printed",
        "method.revision.rounds": "open",
        "method.revision.greedy": "open",
        "method.token.features": "differs",
        "method.token.top": "differs",
        "method.token.coordinate": "open",
        "method.token.normalise": "open",
        "method.token.softness": "differs",
        "method.token.clip": "printed",
        "method.token.clip.hidden": "open",
        "method.token.clip.learning_rate": "open",
        "method.span.extractor": "differs",
        "method.span.extractor.attach_prepositions": "open",
        "method.span.extractor.max_words": "open",
        "method.weights.supervised": "printed",
        "method.weights.span": "printed",
        "method.reduction": "differs",
        "train.learning_rate": "printed",
        "train.schedule": "open",
        "train.epochs": "differs",
    }
    assert {key: standings.get(key) for key in expected} == expected
    assert _beside(explanation) == {
        "fixed rows": "open",
        "positions": "open",
        "edges": "open",
        "target class": "open",
        "student": "open",
        "inputs": "open",
        "bounds": "open",
        "distributions": "open",
        "weight of a pair": "printed",
        "norm": "open",
        "short spans": "open",
        "where": "open",
        "supervised rows": "open",
    }


def test_a_value_has_its_own_reading() -> None:
    literal, plain = _entries(explain("mgsr:literal")), _entries(explain("mgsr"))
    key = "method.token.features"
    assert (literal[key].reading.standing, plain[key].reading.standing) == ("printed", "differs")
    assert literal["method.token.coordinate"].reading.paper != plain["method.token.coordinate"].reading.paper


def test_formulas_are_those_of_the_values() -> None:
    plain, literal = explain("mgsr").text(100), explain("mgsr:literal").text(100)
    assert "p̃_v = m_v·p_v / Σ m·p" in plain
    assert "Σ_v m_v·p_v · log(p_v / q_v)" in literal
    assert "p̃" not in literal
    fixed = explain(mgsr(clip=DACKL(clip=FixedBounds()))).text(100)
    assert "f_sub(" in plain
    assert "f_sub(" not in fixed
    assert explain(Method(sequences=Student(), token=Match(JSD()), reduction="sequence")).parts[-1].formulas != (
        explain(Method(sequences=Student(), token=Match(JSD()))).parts[-1].formulas
    )


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_has_its_formula_and_its_reading(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"method: {{base: mgsr, revision: {{detector: {kind}}}}}\n")
    explanation = explain(path)
    (part,) = (each for each in _parts(explanation) if each.entry.key == "method.revision.detector")
    assert part.entry.value == kind
    assert part.formulas
    assert part.entry.reading is not None
    assert part.entry.reading.standing == ("printed" if kind == "kld-argmax" else "differs")
    assert part.entry.reading.reason or kind == "kld-argmax"
    assert max(len(line) for line in explanation.text(60).splitlines()) <= 60


def test_rules_that_are_off_have_no_formula() -> None:
    def text(**fields: Any) -> str:
        return explain(Method(sequences=Student(), token=Match(JSD()), revision=SCRG(Heuristic(**fields)))).text(100)

    assert all(rule in text() for rule in ("y_{i+3} stood in y before", "> 2", "≥ 0.95"))
    assert "stood" not in text(loop_tokens=None)
    assert "μ" not in text(rise=None)
    assert "R_i" not in text(top_p=None)


def test_a_preset_is_marked_against_its_method() -> None:
    assert _changed(explain("gkd:distillm")) == {"method.token.divergence.beta": 0.5}
    changes = {"method.token.features": "topk", "method.token.coordinate": "mass", "method.token.normalise": "teacher"}
    assert _changed(explain("mgsr:literal")) == changes
    assert _changed(explain("mgsr")) == {}
    assert "beta = 0.1 [changed: 0.5 in gkd] [open]" in explain("gkd:distillm").text()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method:\n"
        "  base: mgsr\n"
        "  sequences: {share: 0.25}\n"
        "  revision: {rounds: 2}\n"
        "  token: {clip: {kind: fixed, upper: 0.5}}\n"
        "  span: null\n"
        "  weights: {supervised: 0}\n"
        "  reduction: sequence\n"
        "models: {teacher: big, student: small}\n"
        "train: {schedule: constant}\n"
    )
    return path


def test_what_a_recipe_changes_is_marked(recipe: Path) -> None:
    explanation = explain(recipe)
    assert _changed(explanation) == {
        "method.sequences.share": 0.5,
        "method.revision.rounds": 1,
        "method.token.clip": "mlp",
        "method.span": "correlation",
        "method.weights.supervised": 1.0,
        "method.reduction": "token",
    }
    text = explanation.text(60)
    for line in ("  rounds = 2 [changed: 1 in mgsr] [differs]", "span: none [changed: correlation in mgsr] [differs]",
                 "supervised: none", "  weight = 0.0 [changed: 1.0 in mgsr] [differs]",
                 "reduction: sequence [changed: token in mgsr]", "loss = 1 · token", "base: mgsr"):  # fmt: skip
        assert line in text.splitlines()


def test_settings_are_those_of_the_recipe_or_the_defaults(recipe: Path) -> None:
    settings = {entry.key: entry.value for entry in explain(recipe).settings}
    assert settings["train.schedule"] == "constant"
    assert settings["models.student"] == "small"
    assert settings["train.epochs"] == 1
    (student,) = (entry for entry in explain("mgsr").settings if entry.key == "models.student")
    assert not student.is_given
    assert "  models.student [open]" in explain("mgsr").text().splitlines()


def test_a_recipe_is_explained_alike_however_it_is_given(recipe: Path) -> None:
    by_path, by_name, loaded = explain(recipe), explain(str(recipe)), explain(Recipe.load(recipe))
    assert by_path == by_name
    assert (loaded.parts, loaded.settings, loaded.base) == (by_path.parts, by_path.settings, "mgsr")
    folder = recipe.parent / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(Recipe.load(recipe).dump())
    assert explain(folder).parts == by_path.parts


def test_a_recipe_needs_nothing_but_its_method(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("method: {base: kd}\n")
    assert explain(path).parts == explain("kd").parts


def test_a_method_of_ones_own_is_explained_without_a_paper(tmp_path: Path) -> None:
    mine = Method(sequences=Student(), token=Match(ReverseKL()))
    explanation = explain(mine)
    assert (explanation.title, explanation.base, explanation.paper) == ("a method of one's own", "", "")
    assert not any(entry.reading for entry in _entries(explanation).values())
    assert "[differs]" not in explanation.text()
    assert explain(PRESETS["mgsr:full"]()) == explain("mgsr:full")
    custom = tmp_path / "custom.yaml"
    custom.write_text("method: {base: custom, sequences: fixed, token: likelihood}\n")
    assert (explain(custom).base, _changed(explain(custom))) == ("", {})


def test_a_class_of_ones_own_shows_its_first_line_and_is_not_imported_from_a_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"method: {{base: gkd, token: {{divergence: {{kind: '{__name__}:Mine'}}}}}}\n")
    entry = _entries(explain(path))["method.token.divergence"]
    assert (entry.value, entry.was) == (f"{__name__}:Mine", "jsd")
    assert "    A divergence of one's own.\n" in explain(path).text()
    path.write_text(f"# Written by Limbeck: the complete recipe of a run, every default included.\n{path.read_text()}")
    with pytest.raises(ConfigError, match="hand-written recipes only"):
        explain(path)


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'mgsr'") as error:
        explain("mgrs")
    assert "a recipe is named by its file" in str(error.value)
    with pytest.raises(ConfigError, match="does not exist"):
        explain("nothing.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        explain("runs/nothing")


def test_what_is_wrong_in_a_recipe_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("method:\n  base: mgsr\n  revision: {ronds: 2}\n")
    with pytest.raises(UnknownName, match=r"Did you mean 'rounds'(?s:.*)line 3"):
        explain(path)
    path.write_text("models: {student: s}\n")
    with pytest.raises(ConfigError, match=r"method\.base is missing"):
        explain(path)


@pytest.mark.parametrize("name", PRESETS)
def test_values_are_plain_and_complete(name: str) -> None:
    explanation = explain(name)
    values = explanation.values()
    assert json.loads(json.dumps(values)) == values
    assert set(values) == {"title", "base", "paper", "meaning", "loss", "parts", "settings"}
    assert [part["entry"]["value"] for part in values["parts"]] == [part.entry.value for part in explanation.parts]
