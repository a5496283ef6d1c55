"""The model card of a student, written from the files of its run: nothing in it was typed by hand."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.config import CorpusShare, Recipe
from limbeck.config.reading import scalar, to_yaml
from limbeck.data.corpora import is_path
from limbeck.errors import DataError, LimbeckError
from limbeck.evaluation.results import Results
from limbeck.inspection import explain
from limbeck.models.packaged import PACKAGED
from limbeck.reporting.reduce import by_example, mean_interval
from limbeck.training.rundir import METRICS, RunDirectory

_MIT, _APACHE, _UNKNOWN = "MIT", "Apache-2.0", "not known to Limbeck; ask where the rows come from"
_NOT_STATED = "not stated: its author has to choose one that the models and the data allow"
_INTERVALS = "In brackets: 95 % bootstrap intervals over examples. ROUGE-L in %, KL in nats a token."
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


def model_card(run: Path | str, *, licence: str | None = None) -> str:
    """The card of a run's student as Markdown with the hub's metadata above it.

    Data and licences, the method with what it is made of, scores with 95 % intervals where the run was evaluated, which
    categories lose most, warnings of the run, and limits. Folders of this machine are named by their last part alone.
    `licence` is the student's, which Limbeck cannot know; without it the card says so. Reads the run's files only, and
    loads no model. Raises `CheckpointError` for a folder that is no run.
    """
    directory = RunDirectory.existing(Path(run))
    recipe = Recipe.recorded(directory.path)
    rows = list(directory.rows(METRICS))
    sections = (
        _head(recipe, rows, licence=licence),
        _data(recipe),
        _method(recipe),
        _scores(directory.path, rows),
        _limits(recipe, rows, directory=directory, licence=licence),
        _use(recipe),
    )
    return _front_matter(recipe, licence) + "\n".join(section.strip() + "\n" for section in sections if section)


def _front_matter(recipe: Recipe, licence: str | None) -> str:
    bases = [name for name in (recipe.models.student, recipe.models.teacher) if name and _is_hub_id(name)]
    datasets = [name for name in _corpora(recipe) if _is_hub_id(name)]
    values: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "knowledge-distillation", "limbeck", str(recipe.method["base"])],
    }
    values |= {"license": licence.lower()} if licence else {}
    values |= {"base_model": bases} if bases else {}
    values |= {"datasets": datasets} if datasets else {}
    return f"---\n{to_yaml(values)}---\n\n"


def _head(recipe: Recipe, rows: Sequence[Mapping[str, Any]], *, licence: str | None) -> str:
    steps = max((int(row["step"]) for row in rows if row["kind"] == "step"), default=0)
    best = [row for row in rows if row.get("is_best")]
    kept = f"; the student kept is that of step {best[-1]['step']:,}" if best else ""
    teacher = recipe.models.teacher
    taught = f" by learning from `{_public(teacher)}`" if teacher else ""
    return (
        f"# {_public(recipe.run)}\n\n"
        f"A causal language model made from `{_public(recipe.models.student)}`{taught}, with the method "
        f"`{recipe.method['base']}` of Limbeck, in {steps:,} steps{kept}.\n\n"
        "| model | licence |\n|---|---|\n"
        + "".join(
            f"| {role}: `{_public(name)}` | {_model_licence(name)} |\n"
            for role, name in (("student before", recipe.models.student), ("teacher", teacher))
            if name
        )
        + f"| this model | {licence or _NOT_STATED} |\n"
    )


def _data(recipe: Recipe) -> str:
    corpora = _corpora(recipe)
    if not corpora:
        return "## Data\n\nRows that were passed by Python code; the run does not know where they come from.\n"
    total = sum(corpora.values())
    lines = [
        f"| `{_public(name)}` | {weight / total:.0%} | {_LICENCES.get(name, _UNKNOWN)} |"
        for name, weight in corpora.items()
    ]
    text = recipe.data.plain_text
    beside = f"\nBeside them, plain text from `{_public(text)}`; its licence is {_UNKNOWN}.\n" if text else ""
    return "## Data\n\n| corpus | share of the rows | licence |\n|---|---:|---|\n" + "\n".join(lines) + "\n" + beside


def _corpora(recipe: Recipe) -> dict[str, float]:
    """Corpus → weight."""
    corpus = recipe.data.corpus
    if corpus is None:
        return {}
    parts = (CorpusShare(corpus=corpus),) if isinstance(corpus, str) else corpus
    return {part.corpus: float(part.weight) for part in parts}


def _method(recipe: Recipe) -> str:
    public = dataclasses.replace(recipe, method=_without_folders(recipe.method))
    try:
        explained = dataclasses.replace(explain(public), title=str(recipe.method["base"])).text(100)
    except LimbeckError:
        # A part of somebody's own code, which a run's recipe never imports.
        explained = to_yaml(public.method)
    values = recipe.values()
    settings = []
    for key in _KEYS:
        section, _, name = key.partition(".")
        settings.append(f"`{key}` {scalar(values[section][name])}")
    return f"## Method\n\n```text\n{explained.strip()}\n```\n\nSettings: {', '.join(settings)}.\n"


def _scores(run: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    parts = ["## Scores", ""]
    best = [row for row in rows if row.get("is_best")]
    if best:
        kept = best[-1]
        rouge = f", ROUGE-L {100 * kept['rouge_l']:.1f} %" if "rouge_l" in kept else ""
        parts.append(
            f"Validation rows, which chose the student: cross-entropy {kept['cross_entropy']:.3f} nats a token{rouge}."
        )
    evaluations = {folder.name: _evaluated(folder) for folder in sorted((run / "answers").glob("*")) if folder.is_dir()}
    evaluations = {name: results for name, results in evaluations.items() if results.rows}
    for name, results in evaluations.items():
        try:
            found = [results.table().markdown().strip(), "", _INTERVALS, "", *_losses(results)]
        except DataError:
            # Means over different seeds would compare unequal things.
            found = ["This evaluation was stopped before its end; the same `limbeck evaluate` goes on with it.", ""]
        parts += ["", f"### Decoding `{name}`", "", *found]
    if not evaluations:
        parts += ["", "This student was not evaluated on test rows: `limbeck evaluate RUN --corpora ...` would do it."]
    return "\n".join(parts) + "\n"


def _evaluated(folder: Path) -> Results:
    """All rows of an evaluation, without the answers that a teacher gave beside the student's (`exposure`)."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for row in _lines(path):
            if "id" not in row or "scores" not in row:
                continue
            if "-answers-seed" not in path.name:
                rows.append(row)
            elif path.name.startswith(f"{str(row['corpus']).replace('/', '_')}-answers-seed"):
                rows.append({"measure": "answers", **row})
    return Results(rows=rows)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    # Split by hand: answers hold line breaks of their own (U+2028), which JSON leaves. The last line may be half a one.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        yield json.loads(line)


def _losses(results: Results) -> list[str]:
    """Which categories are worst: by the distance from the teacher where it was measured, else by ROUGE-L."""
    categories = {
        (row["corpus"], str(row["id"])): str(row["category"])
        for row in results.rows
        if row["measure"] == "answers" and row.get("category")
    }
    if len(set(categories.values())) < 2:
        return []
    distances = [
        row for row in results.rows if row["measure"] == "references" and "kl_teacher_student" in row["scores"]
    ]
    is_distance = bool(distances)
    score = "kl_teacher_student" if is_distance else "rouge_l"
    chosen = distances or [row for row in results.rows if row["measure"] == "answers"]
    groups: dict[str, dict[str, float]] = {}
    for corpus, values in by_example(chosen, score=score).items():
        for id, value in values.items():
            if (corpus, id) in categories:
                groups.setdefault(categories[corpus, id], {})[f"{corpus}/{id}"] = value
    found = {name: mean_interval(values, seed=0) for name, values in groups.items()}
    order = sorted(found, key=lambda name: found[name].mean, reverse=is_distance)
    scale, digits = (1.0, 3) if is_distance else (100.0, 1)
    title = "KL(teacher‖student) on the references" if is_distance else "ROUGE-L, %"
    lines = [
        f"Who loses most, by category (worst first; {title}):",
        "",
        "| category | examples | score |",
        "|---|---:|---:|",
    ]
    for name in order:
        each = found[name]
        bounds = f"[{each.low * scale:.{digits}f}, {each.high * scale:.{digits}f}]" if each.num_examples > 1 else ""
        lines.append(f"| {name} | {each.num_examples} | {each.mean * scale:.{digits}f} {bounds} |")
    return [*lines, ""]


def _limits(recipe: Recipe, rows: Sequence[Mapping[str, Any]], *, directory: RunDirectory, licence: str | None) -> str:
    steps = max((int(row["step"]) for row in rows if row["kind"] == "step"), default=0)
    lines = [
        f"It was trained on rows of at most {recipe.data.max_length} tokens; beyond that it was never looked at.",
        "It was not tested for harmful, false or private content. What its teacher and its data get wrong, it can too.",
        "Its scores are of the corpora above alone; other languages and tasks were not measured.",
    ]
    if steps < _FEW_STEPS:
        lines.append(f"{steps} steps are few: this is a demonstration more than a model to be used.")
    if recipe.models.teacher:
        lines.append("Some teachers' licences restrict what models that learned from them may be used for.")
    dropped = _never_trained(directory.student)
    if dropped:
        lines.append(f"{dropped:,} token ids were never trained; they are listed in `suppress_tokens`.")
    for row in rows:
        if row["kind"] == "watch":
            lines.append(f"While training, after step {row['step']:,}: {row['name']} ({row['message']}).")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _never_trained(student: Path) -> int:
    path = student / "generation_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return len(found.get("suppress_tokens") or ())


def _use(recipe: Recipe) -> str:
    name = _public(recipe.run)
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n```\n'
    )


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not is_path(name)


def _public(name: str) -> str:
    """A name that says nothing about the folders of this machine."""
    return name if _is_hub_id(name) else Path(name).name or name


def _without_folders(part: Any) -> Any:
    """A part of a recipe with each folder or file by its last name alone."""
    if isinstance(part, Mapping):
        return {key: _without_folders(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_without_folders(value) for value in part]
    return _public(part) if isinstance(part, str) and os.sep in part and is_path(part) else part


def _model_licence(name: str) -> str:
    if name in PACKAGED:
        return PACKAGED[name].licence
    return "see its page on the hub" if _is_hub_id(name) else "not known to Limbeck: a folder"
