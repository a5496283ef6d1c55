"""The scores of a model card: validation, every evaluation with its intervals, and who loses most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import DataError
from limbeck.evaluation.results import Results
from limbeck.reporting.reduce import Interval, by_example, mean_interval
from limbeck.reporting.run_logs import Evaluation, read_evaluations
from limbeck.reporting.tables import Column, Number, Row, Table

_INTERVALS = "In brackets: 95 % bootstrap intervals over examples. ROUGE-L in %, KL in nats a token."
_STOPPED = "This evaluation was stopped before its end; the same `limbeck evaluate` goes on with it."
_OUTDATED = (
    "Answers of an earlier student of this run are left out: evaluate again with another `--out`, or first remove "
    "their folder."
)


def scores_section(run: Path, rows: Sequence[Mapping[str, Any]], *, public: Callable[[str], str]) -> str:
    """What validation and every evaluation of the run found, and who loses most.

    `public` says what a corpus may be called: the name of a file is none of other people's business.
    """
    parts = ["## Scores", ""]
    best = [row for row in rows if row.get("is_best")]
    if best:
        kept = best[-1]
        rouge = f", ROUGE-L {100 * kept['rouge_l']:.1f} %" if "rouge_l" in kept else ""
        parts.append(
            f"Validation rows, which chose the student: cross-entropy {kept['cross_entropy']:.3f} nats a token{rouge}."
        )
    evaluations = read_evaluations(run)
    for name, evaluation in evaluations.items():
        parts += ["", f"### Decoding `{name}`", "", *_found(evaluation, public)]
    if not evaluations:
        parts += ["", "This student was not evaluated on test rows: `limbeck evaluate RUN --corpora ...` would do it."]
    return "\n".join(parts) + "\n"


def model_index(run: Path, name: str, *, public: Callable[[str], str]) -> list[dict[str, Any]]:
    """ROUGE-L in %, by corpus and decoding, as the hub's metadata hold scores; empty without a whole evaluation.

    The bounds of each number stand in the card itself.
    """
    results = []
    for decoding, evaluation in read_evaluations(run).items():
        try:
            found = _results(evaluation, public)
            corpora = {} if found is None else found.values("answers", "rouge_l")
        except DataError:
            continue
        for corpus, values in corpora.items():
            dataset = {"name": corpus, "type": corpus}
            value = round(100 * mean_interval(values, seed=0).mean, 2)
            metric = {"type": "rouge", "name": f"ROUGE-L ({decoding})", "value": value}
            results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]})
    return [{"name": name, "results": results}] if results else []


def _found(evaluation: Evaluation, public: Callable[[str], str]) -> list[str]:
    """What one evaluation found, or why it is not told."""
    outdated = [_OUTDATED, ""] if evaluation.outdated else []
    try:
        results = _results(evaluation, public)
        if results is None:
            return outdated
        return [results.table().markdown().strip(), "", _INTERVALS, "", *_losses(results), *outdated]
    except DataError:
        # Means over different seeds or examples would compare unequal things.
        return [_STOPPED, "", *outdated]


def _results(evaluation: Evaluation, public: Callable[[str], str]) -> Results | None:
    """The rows that count; None where there are none. Raises `DataError` for an evaluation without its end."""
    if evaluation.unfinished:
        raise DataError("; ".join(evaluation.unfinished))
    if not evaluation.answers:
        return None
    rows = [*evaluation.answers, *evaluation.beside]
    names = _called(dict.fromkeys(str(row["corpus"]) for row in rows), public)
    return Results(rows=[{**row, "corpus": names[str(row["corpus"])]} for row in rows])


def _called(corpora: Iterable[str], public: Callable[[str], str]) -> dict[str, str]:
    """A public name for each, and a number behind one that was taken already: two files may bear one name."""
    names: dict[str, str] = {}
    for corpus in corpora:
        name, count = public(corpus), 1
        while name in names.values():
            count += 1
            name = f"{public(corpus)} ({count})"
        names[corpus] = name
    return names


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
    rows = [
        Row(cells=(name, Number(value=found[name].num_examples, digits=0), _shown(found[name], scale, digits)))
        for name in order
    ]
    columns = (Column(title="category"), Column(title="examples"), Column(title="score"))
    told = f"Who loses most, by category (worst first; {title}):"
    return [told, "", Table(columns=columns, rows=tuple(rows)).markdown().strip(), ""]


def _shown(score: Interval, scale: float, digits: int) -> Number:
    """A score with its interval; one example has none."""
    if score.num_examples == 1:
        return Number(value=score.mean * scale, digits=digits)
    return Number.of(score, scale=scale, digits=digits)
