from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.config import Recipe
from limbeck.config.sections import SECTIONS, keys_of
from limbeck.errors import ConfigError, DataError
from limbeck.preflight import write_recipe
from limbeck.testing import save_tiny


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"what is {n} + {n}?", "completion": "it is " + "very " * n + str(2 * n)} for n in range(40)]
    path = tmp_path / "sums: mine #1.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_recipe_loads_as_it_is(data, tmp_path):
    said: list[str] = []
    out = write_recipe(data, out=tmp_path / "new" / "recipe.yaml", say=said.append)
    recipe = Recipe.load(out)
    assert recipe.data.corpus == str(data)
    assert recipe.method["base"] == "gkd"
    assert recipe.run == "runs/sums: mine #1"
    assert recipe.data.max_length == recipe.data.max_prompt + recipe.sampling.max_new_tokens
    assert "40 rows, format prompt-completion" in said[0]
    text = out.read_text()
    assert "format prompt-completion" in text
    for section in SECTIONS.values():
        for name in keys_of(section):
            assert any(line.startswith(f"  {name}: ") and "  # " in line for line in text.splitlines())


def test_a_student_alone_is_fine_tuned(data, tmp_path):
    recipe = Recipe.load(write_recipe(data, out=tmp_path / "r.yaml", student="mine", say=lambda line: None))
    assert (recipe.method["base"], recipe.models.teacher, recipe.models.student) == ("sft", None, "mine")
    assert recipe.run == "runs/r"


def test_lengths_are_in_tokens_where_a_tokenizer_is_at_hand(data, tmp_path):
    said: list[str] = []
    save_tiny(tmp_path / "model")
    recipe = Recipe.load(
        write_recipe(data, out=tmp_path / "r.yaml", teacher=str(tmp_path / "model"), student="s", say=said.append)
    )
    assert "tokens" in said[1]
    assert recipe.data.max_length - recipe.data.max_prompt >= 190  # 39 times "very ", one token a byte, of 256


def test_the_setting_that_the_recipe_names_can_be_set_behind_it(data, tmp_path):
    out = write_recipe(data, out=tmp_path / "r.yaml", student="mine", say=lambda line: None)
    (named,) = [
        line.split("run:")[1].split()[0] for line in out.read_text().splitlines() if line.startswith("# Change a key")
    ]
    key, _, value = named.partition("=")
    section, _, name = key.partition(".")
    assert getattr(getattr(Recipe.load(out, [named]), section), name) == float(value)


@pytest.mark.parametrize(("prompt", "response"), [(5, 3_000), (3_000, 5), (3_000, 3_000)])
def test_rows_are_never_longer_than_what_a_model_reads(tmp_path, prompt, response):
    said: list[str] = []
    save_tiny(tmp_path / "model")
    context = json.loads((tmp_path / "model" / "config.json").read_text())["max_position_embeddings"]
    rows = [{"prompt": "p" * prompt, "completion": "r" * response}, {"prompt": "p", "completion": "r" * 3_000}] * 20
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write = {"out": tmp_path / "r.yaml", "teacher": str(tmp_path / "model"), "student": "s", "say": said.append}
    recipe = Recipe.load(write_recipe(tmp_path / "long.jsonl", **write))
    assert recipe.data.max_length == context == recipe.data.max_prompt + recipe.sampling.max_new_tokens
    assert min(recipe.data.max_prompt, recipe.sampling.max_new_tokens) >= 64
    cut = 20 + 20 * (prompt < 64)
    assert any(line.startswith(f"{cut} of 40 responses looked at are cut") for line in said)


def test_nothing_is_replaced_unasked(data, tmp_path):
    out = tmp_path / "recipe.yaml"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_recipe(data, out=out, say=lambda line: None)
    assert out.read_text() == "mine"
    write_recipe(data, out=out, force=True, say=lambda line: None)
    assert Recipe.load(out).data.corpus == str(data)
    with pytest.raises(ConfigError):
        write_recipe(data, out=tmp_path, force=True, say=lambda line: None)


def test_bad_rows_write_nothing(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    with pytest.raises(DataError, match="line 2"):
        write_recipe(tmp_path / "bad.jsonl", out=tmp_path / "recipe.yaml")
    assert not (tmp_path / "recipe.yaml").exists()
