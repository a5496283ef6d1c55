from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.config import Difference, Recipe, resumable_difference
from limbeck.config.reading import RECORDED, read_recipe, to_yaml
from limbeck.config.sections import SECTIONS, keys_of
from limbeck.errors import ConfigError, UnknownName
from limbeck.losses import ReverseKL
from limbeck.losses.match import Match
from limbeck.methods import METHODS, gkd, kd, sft

_BASE = "method: {base: gkd}\nmodels: {teacher: big, student: small}\n"
_SFT = "method: {base: sft}\nmodels: {student: small}\n"


@dataclasses.dataclass(frozen=True)
class Mine:
    share: float = 0.5


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def refused(write):
    """The message of the error that a recipe gets."""

    def refused(text: str, *overrides: str, error: type[Exception] = ConfigError) -> str:
        with pytest.raises(error) as caught:
            Recipe.load(write(text), overrides)
        return str(caught.value)

    return refused


def test_a_short_recipe_gets_every_default(write):
    recipe = Recipe.load(write(_BASE, "first.yaml"))
    assert (recipe.run, recipe.train.learning_rate, recipe.watch.every) == ("runs/first", 5e-4, 50)
    assert recipe.built_method() == gkd()


def test_design_recipe_loads(write):
    text = """
method:   {base: gkd, weights: {supervised: 1, token: 1}}
models:   {teacher: X, student: Y, teacher_dtype: auto, device: auto, teacher_device: auto, lora: null, dropout: false,
           attention: auto, allow_bin: false}
data:     {corpus: dolly, root: null, split: train, valid: auto, columns: {}, template: auto, train_on: last,
           max_prompt: 256, max_length: 512, long_prompt: drop}
sampling: {temperature: 1, top_p: 1, top_k: 0, max_new_tokens: 256}
train:    {epochs: 1, steps: null, batch_rows: 32, micro_rows: auto, learning_rate: 5e-4, schedule: cosine, warmup: 0,
           clip_norm: 1.0, weight_decay: 0.01, precision: auto, checkpoint_minutes: 5, seed: 0}
validate: {every: epoch, rows: 200, metric: rouge-l}
run: runs/NAME
"""
    recipe = Recipe.load(write(text))
    assert recipe.train.learning_rate == 5e-4
    assert recipe.built_method().weights.supervised == 1.0
    assert recipe.run == "runs/NAME"


@pytest.mark.parametrize("base", sorted(METHODS))
def test_dump_loads_back_equal(write, base):
    teacher = [] if base == "sft" else ["models.teacher=big"]
    recipe = Recipe.load({"method": {"base": base}, "models": {"student": "s"}}, [*teacher, "train.learning_rate=3e-5"])
    assert Recipe.load(write(recipe.dump())) == recipe
    assert Recipe.load(recipe) == recipe


def test_overrides_beat_the_file(write):
    path = write(_BASE + "train: {epochs: 2}\n")
    overrides = ["train.epochs=3", "train.learning_rate=1e-4", "method.token.divergence.beta=0.1", "models.lora.rank=4"]
    recipe = Recipe.load(path, [*overrides, "sampling={top_k: 5}", "data.columns={prompt: q}"])
    assert (recipe.train.epochs, recipe.train.learning_rate) == (3, 1e-4)
    assert recipe.built_method() == gkd(beta=0.1)
    assert recipe.models.lora is not None
    assert (recipe.models.lora.rank, recipe.models.lora.alpha) == (4, 32.0)
    assert (recipe.sampling.top_k, recipe.data.columns) == (5, {"prompt": "q"})


def test_a_section_override_keeps_the_other_keys(write):
    recipe = Recipe.load(write(_BASE + "train: {epochs: 2, seed: 7}\n"), ["train={epochs: 5}"])
    assert (recipe.train.epochs, recipe.train.seed) == (5, 7)


def test_a_new_kind_drops_the_fields_of_the_old_one(write):
    recipe = Recipe.load(Recipe.load(write(_BASE)), ["method.token.divergence.kind=reverse-kl"])
    assert recipe.method["token"]["divergence"] == {"kind": "reverse-kl"}
    assert Recipe.load(write(_BASE), ["method.token.divergence=reverse-kl"]) == dataclasses.replace(recipe)


def test_a_new_base_replaces_a_resolved_method(write):
    resolved = Recipe.load(write(_BASE))
    assert Recipe.load(resolved, ["method.base=kd"]).built_method() == kd()
    assert Recipe.load(resolved, ["models.teacher=null", "method.base=sft"]).built_method() == sft()


def test_python_values(tmp_path):
    values = {"method": gkd(beta=0.3), "models": {"teacher": tmp_path, "student": "s"}, "train": {"betas": (0.8, 0.9)}}
    recipe = Recipe.load(values)
    assert recipe.built_method() == gkd(beta=0.3)
    assert recipe.models.teacher == str(tmp_path)
    assert recipe.train.betas == (0.8, 0.9)
    part = Recipe.load({**values, "method": {"base": "kd", "token": Match(ReverseKL())}})
    assert part.method["token"]["divergence"] == {"kind": "reverse-kl"}
    with pytest.raises(ConfigError, match=r"models\.student is a object; a recipe holds"):
        Recipe.load({**values, "models": {"student": object()}})


def test_unknown_keys_say_where_and_what_is_near(refused):
    said = refused(_BASE + "train:\n  lerning_rate: 1\n", error=UnknownName)
    assert "'lerning_rate'. Did you mean 'learning_rate'?" in said
    assert "set at train.lerning_rate, " in said
    assert said.endswith("recipe.yaml line 4")
    said = refused(_BASE, "train.lerning_rate=1", error=UnknownName)
    assert said.endswith("set on the command line: train.lerning_rate=1")
    assert "'train'?" in refused(_BASE + "trian: {}\n", error=UnknownName)
    assert "belongs elsewhere: train.learning_rate" in refused(_BASE + "learning_rate: 1\n", error=UnknownName)
    assert "'rank'?" in refused(_BASE, "models.lora={rnk: 1}", error=UnknownName)
    assert "line 3" in refused(_BASE + "data: {corpus: [{corpus: a, weigth: 2}]}\n", error=UnknownName)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 0}", "train.epochs is 0; allowed: a whole number of at least 1"),
        ("train: {epochs: true}", "train.epochs is True; allowed"),
        ("train: {epochs: '3'}", "train.epochs is '3'; allowed"),
        ("train: {learning_rate: fast}", "train.learning_rate is 'fast'; allowed: a number above 0"),
        ("train: {learning_rate: .nan}", "train.learning_rate is nan"),
        ("train: {warmup: 1.5}", "a whole number of steps, or a fraction below 1"),
        ("train: {micro_rows: many}", "train.micro_rows is 'many'; allowed: auto, or a whole number of at least 1"),
        ("train: {schedule: cosinus}", "allowed: cosine, constant, linear"),
        ("train: {betas: [0.9]}", "train.betas is [0.9]; allowed: two numbers"),
        ("train: {precision: fp16}", "half precision overflows"),
        ("data: {valid: 1.5}", "data.valid is 1.5"),
        ("data: {corpus: [a]}", "data.corpus.0 is 'a'; allowed: {corpus, weight}"),
        ("data: {corpus: [{weight: 1}]}", "data.corpus.0.corpus is missing"),
        ("data: {columns: [a]}", "data.columns is ['a']; allowed: a mapping"),
        ("train: 5", "train is 5; a section of keys is expected, e.g. train: {epochs: ...}"),
        ("train: [1]", "train is [1]; a section of keys is expected"),
        ("train:", "train is None; a section of keys is expected"),
        ("run: 5", "run is 5; allowed: the folder of the run"),
        ("train: {a: [}", "broken YAML"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "train is set twice"),
        ("train: &a [*a]", "broken YAML"),
        ("train: !!python/object:os.system {}", "is not taken in recipes"),
        ("? [a]\n: 1", "a key must be one word"),
    ],
)
def test_wrong_values_name_key_value_and_line(refused, text, expected):
    said = refused(_BASE + text + "\n")
    assert expected in said
    assert "recipe.yaml" in said


def test_several_wrong_values_come_at_once(refused):
    said = refused(_BASE + "train: {epochs: 0, seed: -1}\nvalidate: {rows: none}\n")
    assert all(name in said for name in ("train.epochs", "train.seed", "validate.rows"))


def test_missing_parts(refused, tmp_path):
    assert "models.student is missing" in refused("method: {base: sft}\n")
    assert "method.base is missing" in refused("models: {student: s}\n")
    assert "method is 'gkd'; a section" in refused("method: gkd\nmodels: {student: s}\n")
    assert "is empty" in refused("")
    assert "holds a list" in refused("- a\n")
    with pytest.raises(ConfigError, match=r"nothing\.yaml does not exist"):
        Recipe.load(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"run: caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Recipe.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("override", ["foo", "=3", "train..epochs=1", "train.epochs=["])
def test_broken_overrides(refused, override):
    assert override in refused(_BASE, override)


def test_an_override_cannot_go_below_a_value(refused):
    assert "which has no key 'a'" in refused(_BASE + "train: {epochs: 1}\n", "train.epochs.a=2")


def test_method_errors_say_where(refused):
    assert "Did you mean 'gkd'?" in refused("method:\n  base: gdk\nmodels: {student: s}\n", error=UnknownName)
    assert refused("method:\n  base: gdk\nmodels: {student: s}\n").endswith("recipe.yaml line 2")
    assert refused(_BASE, "method.token.divergence.beta=3").endswith("command line: method.token.divergence.beta=3")
    assert "method.weights is 3" in refused(_BASE, "method.weights=3")


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (_SFT, ["models.teacher=big"], "models.teacher is 'big', which nothing reads"),
        (_SFT, ["models.teacher_dtype=bf16"], "there is no teacher"),
        (_SFT, ["watch.rows=2"], "watch.rows is '2', which nothing reads"),
        (_BASE, ["models.teacher=null"], "models.teacher is missing"),
        (_BASE, ["method.weights.token=0"], "every weight of gkd is 0"),
        (_BASE, ["data.train_on=all"], "data.train_on is 'all', but gkd draws"),
        (
            _SFT,
            ["sampling.temperature=0.7", "validate.metric=loss"],
            "sampling.temperature is 0.7, which nothing reads",
        ),
        (_BASE, ["sampling.temperature=0", "sampling.top_k=4"], "greedy"),
        (_BASE, ["data.max_prompt=512"], "no room for a response"),
        (_BASE, ["train.micro_rows=64"], "more than the 32 of train.batch_rows"),
        (_BASE, ["train.epochs=2", "train.steps=10"], "only one can say how long"),
        (_BASE, ["train.schedule=constant", "train.final_learning_rate=1e-5"], "a constant schedule never reaches"),
        (_BASE, ["train.stop_after=2", "validate.every=null"], "nothing is ever validated"),
        (_BASE, ["data.template=paper", "models.chat_template_kwargs={a: 1}"], "has no arguments"),
        (_BASE, ["data.template=plain", "models.chat_template_kwargs={a: 1}"], "'plain', which has no arguments"),
        (_BASE, ["train.steps=10", "train.warmup=10"], "the run ends before train.schedule begins"),
        (_BASE, ["data.valid=mine.jsonl", "validate.every=null"], "data.valid is 'mine.jsonl', which nothing reads"),
        (_BASE, ["validate.seed=3", "validate.every=null"], "validate.seed is 3, which nothing reads: validate.every"),
        (_BASE, ["validate.seed=3", "validate.metric=loss"], "validate.metric is loss, which draws nothing"),
        (
            _BASE,
            ["method.weights={token: 0, supervised: 1}"],
            "method.weights.token is 0, so that no term of gkd learns from the responses of method.sequences",
        ),
        (
            _BASE,
            ["method.token={kind: match, divergence: forward-kl, target: other-row}", "method.span=correlation"],
            "method.token.target is other-row",
        ),
    ],
)
def test_unused_and_contradicting_settings_are_refused(refused, text, overrides, expected):
    said = refused(text, *overrides)
    assert expected in said
    assert "set " in said.splitlines()[-1]


def test_what_is_used_is_taken(write):
    assert Recipe.load(write(_SFT), ["data.train_on=all"]).data.train_on == "all"
    assert Recipe.load(write(_SFT), ["sampling.temperature=0.7"]).sampling.temperature == 0.7  # the validation draws
    assert Recipe.load(write(_BASE), ["method.sequences=fixed", "data.train_on=all"]).data.train_on == "all"
    assert Recipe.load(write(_BASE), ["validate.seed=3"]).validate.seed == 3
    assert Recipe.load(write(_BASE), ["train.steps=10", "train.warmup=9"]).train.warmup == 9
    only_references = ["method.sequences=fixed", "method.weights={token: 0, supervised: 1}", "models.teacher=null"]
    assert Recipe.load(write(_BASE), only_references).built_method().weights.supervised == 1
    only_spans = ["method.weights.token=0", "method.span=correlation"]
    assert Recipe.load(write(_BASE), only_spans).built_method().objective().names == ("span",)


def test_difference_and_resumable_difference(write):
    old = Recipe.load(write(_BASE))
    new = Recipe.load(old, ["train.epochs=3", "validate.rows=5", "watch.every=2", "run=elsewhere"])
    assert old.difference(old) == []
    assert Difference("train.epochs", 1, 3) in old.difference(new)
    assert resumable_difference(old, new) == []
    changed = Recipe.load(new, ["train.learning_rate=1e-3", "models.lora={}"])
    said = resumable_difference(old, changed)
    assert "train.learning_rate: 0.0005 -> 0.001" in said
    assert "models.lora.rank: None -> 16" in said


def test_a_runs_own_recipe_imports_nothing(write, tmp_path):
    text = _BASE.replace("{base: gkd}", "{base: gkd, sequences: {kind: 'limbeck.sequences.fixed:Fixed'}}")
    by_hand = Recipe.load(write(text))
    assert by_hand.method["sequences"] == {"kind": "fixed"}
    outside = by_hand.dump().replace("kind: fixed", "kind: test_config:Mine")
    write(outside)
    with pytest.raises(ConfigError, match="hand-written"):
        Recipe.load(tmp_path)
    assert Recipe.recorded(tmp_path).method["sequences"] == {"kind": "test_config:Mine"}
    with pytest.raises(ConfigError, match="hand-written"):
        Recipe.load(write(text.replace("limbeck.sequences.fixed:Fixed", "test_config:Mine")), allow_import=False)


def test_a_part_of_ones_own_may_call_a_text_as_a_slot_is_called(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    lines = ["from dataclasses import dataclass", "@dataclass(frozen=True)", "class Mine:", "    weight: str = 'x'"]
    call = "    def __call__(self, *, target_logp, student_logp): return target_logp.sum(-1)"
    write("\n".join([*lines, call]), "texted.py")
    token = "{base: gkd, token: {divergence: {kind: 'texted:Mine', weight: y}}}"
    recipe = Recipe.load(write(_BASE.replace("{base: gkd}", token)))
    assert recipe.built_method().token.divergence.weight == "y"


@pytest.mark.parametrize("first", ["", "# Mine.\n", "\ufeff" + RECORDED, RECORDED.replace("\n", "\r\n")])
def test_a_runs_folder_imports_nothing_whatever_its_first_line_is(write, tmp_path, first, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write("raise AssertionError('imported')\n", "evil.py")
    body = Recipe.load(write(_BASE)).dump().removeprefix(RECORDED).replace("kind: student", "kind: evil:Mine")
    write("").write_bytes((first + body).encode())
    with pytest.raises(ConfigError, match="hand-written"):
        Recipe.load(tmp_path)


@pytest.mark.parametrize("first", ["\ufeff" + RECORDED, RECORDED.replace("\n", "\r\n"), RECORDED])
def test_a_runs_recipe_is_known_by_its_first_line_however_an_editor_saved_it(write, first):
    path = write("")
    path.write_bytes((first + _BASE.replace("gkd", "gkd, sequences: {kind: 'evil:Mine'}")).encode())
    with pytest.raises(ConfigError, match="hand-written"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("os:getcwd", "which is no dataclass"),
        ("pathlib:Path", "which is no dataclass"),
        (":x", "cannot be imported: Empty module name"),
        ("os:", "cannot be imported"),
        ("nowhere:Mine", "cannot be imported: No module named 'nowhere'"),
    ],
)
def test_a_part_of_ones_own_that_is_none_is_told_with_its_key(refused, kind, why):
    said = refused(_BASE, f"method.sequences.kind={kind!r}")
    assert f"method.sequences.kind is '{kind}', {why}" in said.replace("which cannot", "cannot")
    assert "set on the command line" in said


def test_a_run_below_the_home_folder(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Recipe.load(write(_BASE), ["run=~/runs/x"]).run == str(tmp_path / "runs" / "x")
    assert Recipe.load(write(_BASE), ["run=./runs/~x"]).run == "./runs/~x"


def test_names_that_are_no_utf8_are_told_with_their_key(tmp_path):
    values = {"method": {"base": "sft"}, "models": {"student": "s"}}
    for key, section in (("data.corpus", {"data": {"corpus": "caf\udce9.jsonl"}}), ("run", {"run": "caf\udce9"})):
        with pytest.raises(ConfigError, match=rf"{key} is 'caf\\udce9.*', which is no UTF-8 text"):
            Recipe.load({**values, **section})
    shares = {"data": {"corpus": [{"corpus": "a"}, {"corpus": "\udce9"}]}}
    with pytest.raises(ConfigError, match=r"data\.corpus\.1\.corpus is"):
        Recipe.load({**values, **shares})
    with pytest.raises(ConfigError, match=r"data\.columns is"):
        Recipe.load({**values, "data": {"columns": {"\udce9": "a"}}})


def test_the_folder_of_a_run_is_a_recipe(write, tmp_path):
    write(Recipe.load(write(_BASE), ["run=somewhere/else"]).dump())
    assert Recipe.load(tmp_path).run == str(tmp_path)


def test_recipes_are_frozen_and_every_key_is_explained(write):
    recipe = Recipe.load(write(_BASE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.run = "x"  # type: ignore[misc]
    for section in SECTIONS.values():
        assert all(key.meaning and key.allowed for key in keys_of(section).values())


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.dictionaries(st.text(min_size=1, max_size=8), _PLAIN, max_size=4))
def test_yaml_round_trip(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_bytes(to_yaml(values).encode("utf-8", errors="surrogatepass"))
    assert read_recipe(path).values == values


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-4", 5e-4), ("1E5", 1e5), ("yes", "yes"), ("010", "010"), ("2024-01-01", "2024-01-01"), ("1_000", 1000)],
)
def test_scalars_mean_what_they_look_like(write, text, value):
    assert read_recipe(write(f"a: {text}\n")).values == {"a": value}
