"""The scores of a model card: validation, every evaluation with its intervals, and who loses most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import DataError
from limbeck.evaluation.results import Results
from limbeck.files import read_rows
from limbeck.reporting.reduce import by_example, mean_interval
from limbeck.reporting.run_logs import DRAW_AGAIN

_INTERVALS = "In brackets: 95 % bootstrap intervals over examples. ROUGE-L in %, KL in nats a token."


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
    evaluations = _evaluations(run, public)
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


def model_index(run: Path, name: str, *, public: Callable[[str], str]) -> list[dict[str, Any]]:
    """ROUGE-L in %, by corpus and decoding, as the hub's metadata hold scores; empty without a whole evaluation.

    The bounds of each number stand in the card itself.
    """
    results = []
    for decoding, found in _evaluations(run, public).items():
        try:
            corpora = found.values("answers", "rouge_l")
        except DataError:
            continue
        for corpus, values in corpora.items():
            dataset = {"name": corpus, "type": corpus}
            value = round(100 * mean_interval(values, seed=0).mean, 2)
            metric = {"type": "rouge", "name": f"ROUGE-L ({decoding})", "value": value}
            results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]})
    return [{"name": name, "results": results}] if results else []


def _evaluations(run: Path, public: Callable[[str], str]) -> dict[str, Results]:
    """By decoding; those without a row are left out."""
    found = {}
    for folder in sorted((run / "answers").glob("*")):
        rows = list(_evaluated(folder)) if folder.is_dir() else []
        if rows:
            names = _called(dict.fromkeys(str(row["corpus"]) for row in rows), public)
            found[folder.name] = Results(rows=[{**row, "corpus": names[str(row["corpus"])]} for row in rows])
    return found


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


def _evaluated(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of an evaluation, without the answers that a teacher gave beside the student's (`exposure`)."""
    for path in sorted(folder.glob("*.jsonl")):
        for row in read_rows(path, growing=True, remedy=DRAW_AGAIN):
            if "id" not in row or "scores" not in row:
                continue
            if "-answers-seed" not in path.name:
                yield row
            elif path.name.startswith(f"{str(row['corpus']).replace('/', '_')}-answers-seed"):
                yield {"measure": "answers", **row}


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
