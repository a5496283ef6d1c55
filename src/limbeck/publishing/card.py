"""The model card of a student, written from the files of its run: nothing in it was typed by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.config import CorpusShare, Recipe
from limbeck.config.reading import scalar, to_yaml
from limbeck.data.templates import PaperTemplate
from limbeck.errors import LimbeckError
from limbeck.files import read_json
from limbeck.inspection import explain
from limbeck.methods import from_config
from limbeck.models.packaged import PACKAGED
from limbeck.publishing.card_scores import model_index, scores_section
from limbeck.publishing.public_names import is_hub_id, public, spelled_as_places, without_folders
from limbeck.records import Message
from limbeck.reporting.durations import duration
from limbeck.training.rundir import METRICS, RunDirectory

_MIT, _APACHE, _UNKNOWN = "MIT", "Apache-2.0", "not known to Limbeck; ask where the rows come from"
_NOT_STATED = "not stated: its author has to choose one that the models and the data allow"
# Of the data sets behind the named corpora, as their authors state them.
_LICENCES = {
    "starter": _APACHE,
    "dolly": "CC-BY-SA-3.0",
    "self-instruct": _APACHE,
    "vicuna": _APACHE,
    "sni": _APACHE,
    "unnatural": _MIT,
    "databricks/databricks-dolly-15k": "CC-BY-SA-3.0",
}
_KEYS = (
    "train.batch_rows",
    "train.learning_rate",
    "train.schedule",
    "train.precision",
    "train.seed",
    "data.template",
    "data.max_prompt",
    "data.max_length",
    "sampling.temperature",
    "sampling.max_new_tokens",
    "models.lora",
)
_FEW_STEPS = 200
# Licences that the hub knows by these ids; any other one has to be called "other" there, with its name beside it.
_HUB_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "gpl-3.0",
        "agpl-3.0",
        "lgpl-3.0",
        "mpl-2.0",
        "openrail",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "gemma",
        "other",
    ]
)
_SHARE_ALIKE = "-SA-"


def model_card(
    run: Path | str, *, licence: str | None = None, name: str | None = None, is_adapter: bool = False
) -> str:
    """The card of a run's student as Markdown with the hub's metadata above it.

    Data and licences, the method with what it is made of, scores with 95 % intervals where the run was evaluated, which
    categories lose most, warnings of the run, limits, and how it is asked. Folders of this machine are named by their
    last part alone. `licence` is the student's, which Limbeck cannot know; without it the card says so. `name` is what
    the model will be called (ORG/NAME; the run's folder if not given); `is_adapter`: LoRA's weights without the model
    that they belong on. Reads the run's files only, and loads no model. Raises `CheckpointError` for a folder that is
    no run.
    """
    directory = RunDirectory.existing(Path(run))
    recipe = spelled_as_places(Recipe.recorded(directory.path), directory.path)
    rows = list(directory.rows(METRICS))
    called = name or Path(recipe.run).name or recipe.run
    sections = (
        _head(recipe, rows, licence=licence, name=called),
        _use(recipe, directory.student, name=called, is_adapter=is_adapter),
        _data(recipe, rows),
        _method(recipe),
        scores_section(directory.path, rows, public=public),
        _limits(recipe, rows, directory=directory, licence=licence),
        _made_with(directory.path, rows),
    )
    front = _front_matter(recipe, licence, is_adapter=is_adapter)
    scored = model_index(directory.path, called.rpartition("/")[2], public=public)
    front |= {"model-index": scored} if scored else {}
    return f"---\n{to_yaml(front)}---\n\n" + "\n".join(section.strip() + "\n" for section in sections if section)


def _front_matter(recipe: Recipe, licence: str | None, *, is_adapter: bool) -> dict[str, Any]:
    student = recipe.models.student
    datasets = [name for name in _corpora(recipe) if is_hub_id(name)]
    values: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "knowledge-distillation", "limbeck", str(recipe.method["base"])],
    }
    if licence:
        is_known = licence.lower() in _HUB_LICENCES
        values |= {"license": licence.lower()} if is_known else {"license": "other", "license_name": licence.lower()}
    # The teacher is none: the hub takes several bases for a merge of their weights.
    if student and is_hub_id(student):
        values |= {"base_model": student, "base_model_relation": "adapter" if is_adapter else "finetune"}
    return values | ({"datasets": datasets} if datasets else {})


def _head(recipe: Recipe, rows: Sequence[Mapping[str, Any]], *, licence: str | None, name: str) -> str:
    steps = _steps(rows)
    best = [row for row in rows if row.get("is_best")]
    kept = f"; the student kept is that of step {best[-1]['step']:,}" if best else ""
    teacher = recipe.models.teacher
    taught = f" by learning from `{public(teacher)}`" if teacher else ""
    return (
        f"# {name.rpartition('/')[2]}\n\n"
        f"A causal language model made from `{public(recipe.models.student)}`{taught}, with the method "
        f"`{recipe.method['base']}` of Limbeck, in {steps:,} steps{kept}.\n\n"
        "| model | licence |\n|---|---|\n"
        + "".join(
            f"| {role}: `{public(part)}` | {_model_licence(part)} |\n"
            for role, part in (("student before", recipe.models.student), ("teacher", teacher))
            if part
        )
        + f"| this model | {licence or _NOT_STATED} |\n"
    )


def _data(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> str:
    corpora = _corpora(recipe)
    taken = _steps(rows) * recipe.train.batch_rows
    seen = f"{_steps(rows):,} steps of {recipe.train.batch_rows:,} rows: at most {taken:,} rows were seen.\n"
    if not corpora:
        told = "Rows that were passed by Python code; the run does not know where they come from."
        return f"## Data\n\n{told} {seen}"
    total = sum(corpora.values())
    lines = [
        f"| `{public(name)}` | {weight / total:.0%} | {_LICENCES.get(name, _UNKNOWN)} |"
        for name, weight in corpora.items()
    ]
    text = recipe.data.plain_text
    beside = f"\nBeside them, plain text from `{public(text)}`; its licence is {_UNKNOWN}.\n" if text else ""
    return (
        "## Data\n\n| corpus | share of the rows | licence |\n|---|---:|---|\n"
        + "\n".join(lines)
        + f"\n\n{seen}{beside}"
    )


def _corpora(recipe: Recipe) -> dict[str, float]:
    """Corpus → weight."""
    corpus = recipe.data.corpus
    if corpus is None:
        return {}
    parts = (CorpusShare(corpus=corpus),) if isinstance(corpus, str) else corpus
    return {part.corpus: float(part.weight) for part in parts}


def _method(recipe: Recipe) -> str:
    shown = dataclasses.replace(recipe, method=without_folders(recipe.method))
    try:
        # Whoever exports a run that somebody else trained has not chosen to run its code.
        from_config(shown.method, allow_import=False)
        explained = dataclasses.replace(explain(shown), title=str(recipe.method["base"])).text(100)
    except LimbeckError:
        # A part of somebody's own code, which a run's recipe never imports.
        explained = to_yaml(shown.method)
    values = recipe.values()
    settings = []
    for key in _KEYS:
        section, _, name = key.partition(".")
        settings.append(f"`{key}` {scalar(values[section][name])}")
    # Folded on the hub: whoever wants a model to use should not scroll past its formulas.
    return (
        f"## Method\n\nSettings: {', '.join(settings)}.\n\n<details>\n<summary>Every part of <code>"
        f"{recipe.method['base']}</code> with its formula, and how it stands to its paper</summary>\n\n```text\n"
        f"{explained.strip()}\n```\n\n</details>\n"
    )


def _limits(recipe: Recipe, rows: Sequence[Mapping[str, Any]], *, directory: RunDirectory, licence: str | None) -> str:
    steps = _steps(rows)
    lines = [
        f"It was trained on rows of at most {recipe.data.max_length} tokens; beyond that it was never looked at.",
        "It was not tested for harmful, false or private content. What its teacher and its data get wrong, it can too.",
        "Its scores are of the corpora above alone; other languages and tasks were not measured.",
    ]
    if steps < _FEW_STEPS:
        lines.append(f"{steps} steps are few: this is a demonstration more than a model to be used.")
    shared = [name for name in _corpora(recipe) if _SHARE_ALIKE in _LICENCES.get(name, "")]
    if shared:
        lines.append(f"`{'`, `'.join(shared)}`: share-alike; what is derived from it may have to bear its licence.")
    if recipe.models.teacher:
        lines.append("Some teachers' licences restrict what models that learned from them may be used for.")
    dropped = _never_trained(directory.student)
    if dropped:
        lines.append(f"{dropped:,} token ids were never trained; they are listed in `suppress_tokens`.")
    for row in rows:
        if row["kind"] == "watch":
            lines.append(f"While training, after step {row['step']:,}: {row['name']} ({_sentence(row['message'])}).")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _never_trained(student: Path) -> int:
    path = student / "generation_config.json"
    found = read_json(path) if path.is_file() else {}
    return len(found.get("suppress_tokens") or ())


def _sentence(message: str) -> str:
    """The first line of a warning: the others say what whoever trains should do."""
    return message.splitlines()[0].rstrip(".:")


def _use(recipe: Recipe, student: Path, *, name: str, is_adapter: bool) -> str:
    """A program that asks the model as it was asked in training."""
    maker = "AutoPeftModelForCausalLM" if is_adapter else "AutoModelForCausalLM"
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    if is_adapter:
        imports = [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer, GenerationConfig",
        ]
    lines = [
        *imports,
        "",
        f'model = {maker}.from_pretrained("{name}")',
        # peft leaves the model with its base's: other end tokens, and ids that were never trained.
        *([f'model.generation_config = GenerationConfig.from_pretrained("{name}")'] if is_adapter else []),
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        *_asking(_settings(student).get("template", recipe.data.template)),
        f"answer = model.generate(**inputs, max_new_tokens={recipe.sampling.max_new_tokens})",
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    before = f"On top of `{public(recipe.models.student)}`, which has to be there. " if is_adapter else ""
    code = "\n".join(lines)
    return f"## Use\n\n{before}It is asked as it was in training:\n\n```python\n{code}\n```\n"


def _asking(template: object) -> list[str]:
    if template == "chat":
        return [
            'messages = [{"role": "user", "content": "Name three primary colours."}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    asked = "Name three primary colours."
    if template == "paper":
        asked = PaperTemplate().prompt_text([Message(role="user", content=asked)])
    return [f'inputs = tokenizer({json.dumps(asked, ensure_ascii=False)}, return_tensors="pt")']


def _settings(student: Path) -> dict[str, Any]:
    path = student / "limbeck.json"
    return dict(read_json(path)) if path.is_file() else {}


def _made_with(run: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Versions, device and time: what somebody needs who gets other numbers."""
    path = run / "environment.json"
    if not path.is_file():
        return ""
    found = read_json(path)
    seconds = sum(float(row["time"]["seconds"]) for row in rows if row["kind"] == "step")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"## Made with\n\n{versions}; Python {found['python']}. {duration(seconds)} of training steps on "
        f"{found['ranks']} × {found['device']}.\n"
    )


def _steps(rows: Sequence[Mapping[str, Any]]) -> int:
    return max((int(row["step"]) for row in rows if row["kind"] == "step"), default=0)


def _model_licence(name: str) -> str:
    if name in PACKAGED:
        return PACKAGED[name].licence
    return "see its page on the hub" if is_hub_id(name) else "not known to Limbeck: a folder"
