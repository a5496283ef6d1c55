"""`limbeck report`: one page about runs, made from the files in their folders alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import DataError
from limbeck.reporting.cases import Answer, Case
from limbeck.reporting.curves import revision_charts, training_charts, validation_charts
from limbeck.reporting.looks import look_sections
from limbeck.reporting.page import CasesSection, CurvesSection, Page, Section, TableSection, TextSection, write_page
from limbeck.reporting.reduce import by_example, mean_interval, summarise
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.reporting.tokens import named

_MOST_CASES = 40


@dataclass(frozen=True, kw_only=True)
class _Logs:
    """What the folder of one run holds.

    `best` is the validation row of the student that was kept; `answers` are by the folder below answers/ ("plain").
    """

    name: str
    recipe: str
    settings: Mapping[str, Any]
    metrics: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    looks: tuple[dict[str, Any], ...]
    best: Mapping[str, Any]
    validation_answers: tuple[dict[str, Any], ...]
    answers: Mapping[str, tuple[dict[str, Any], ...]]

    @property
    def method(self) -> str:
        return str(self.settings.get("method", {}).get("base", "?"))

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [row for row in self.metrics if row["kind"] == "step"]


def report(runs: Sequence[Path], out: Path) -> Path:
    """Write one HTML page that compares runs: failure signatures, results, curves, answers, recipes; returns `out`.

    Reads recipe.yaml, metrics.jsonl, samples.jsonl, tokens.jsonl, validation/ and answers/ of each folder, and changes
    none of them; a run that is still going shows what it has so far. Raises `DataError` for a folder that is no run.
    """
    if not runs:
        raise DataError("a report needs the folder of at least one run")
    logs = [_read(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    sections: list[Section] = [*_warnings(logs), TableSection(title="Results", table=_results(logs))]
    for kind in dict.fromkeys(kind for log in logs for kind in log.answers):
        intro = "ROUGE-L in %, with 95 % bootstrap intervals over examples; the mean with its standard error."
        sections.append(TableSection(title=f"Evaluation: {kind}", table=_evaluation(logs, kind), intro=intro))
    sections += _curves(logs)
    sections += _looks(logs)
    sections += _answers(logs)
    commands = "\n\n".join(f"# limbeck train {log.name}.yaml\n{log.recipe}" for log in logs)
    sections.append(TextSection(title="How to repeat", paragraphs=("The complete recipe of each run:",), code=commands))
    title = logs[0].name if len(logs) == 1 else f"{len(logs)} runs"
    page = Page(title=f"Limbeck: {title}", summary=tuple(map(_headline, logs)), sections=tuple(sections))
    return write_page(page, out)


def _names(runs: Sequence[Path]) -> list[str]:
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _read(run: Path, name: str) -> _Logs:
    if not (run / "recipe.yaml").is_file() or not (run / "metrics.jsonl").is_file():
        raise DataError(f"'{run}' is not the folder of a run: it needs recipe.yaml and metrics.jsonl")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    metrics = tuple(_rows(run / "metrics.jsonl"))
    best: dict[str, Any] = next((row for row in reversed(metrics) if row.get("is_best")), {})
    drawn = run / "validation" / f"step-{int(best.get('step', 0)):06d}.jsonl"
    return _Logs(
        name=name,
        recipe=recipe,
        settings=yaml.safe_load(recipe) or {},
        metrics=metrics,
        samples=tuple(_rows(run / "samples.jsonl")),
        looks=tuple(_rows(run / "tokens.jsonl")),
        best=best,
        validation_answers=tuple(_rows(drawn)),
        answers=_evaluated(run / "answers"),
    )


def _evaluated(folder: Path) -> dict[str, tuple[dict[str, Any], ...]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        rows = [row for row in _rows(path) if "rouge_l" in row.get("scores", {})]
        found.setdefault(str(path.parent.relative_to(folder)), []).extend(rows)
    return {kind: tuple(rows) for kind, rows in found.items() if rows}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log; none where it is missing. The line that a running process is writing is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"broken JSON: {error.msg}.\n  in {path} line {number}") from error


def _headline(log: _Logs) -> str:
    done = f"{log.name} ({log.method}): {_last_step(log):,} steps"
    if not log.best:
        return f"{done}, not validated yet."
    score = f", ROUGE-L {100 * log.best['rouge_l']:.1f} %" if "rouge_l" in log.best else ""
    return f"{done}; the best student is of step {log.best['step']:,}: loss {log.best['loss']:.4f}{score}."


def _last_step(log: _Logs) -> int:
    return int(log.steps[-1]["step"]) if log.steps else 0


def _warnings(logs: Sequence[_Logs]) -> list[Section]:
    """Which failure signatures showed in runs that looked for them, with what to do; or that none did."""
    paragraphs: list[str] = []
    for log in logs:
        signs = [row for row in log.metrics if row["kind"] == "watch"]
        thresholds = {
            key: value for key, value in log.settings.get("watch", {}).items() if key not in ("every", "rows")
        }
        if not signs and any(value is not None for value in thresholds.values()):
            paragraphs.append(f"{log.name}: no failure signature showed in {_last_step(log):,} steps.")
        for sign in signs:
            after = f"{log.name}, after step {sign['step']:,}: {sign['name']}."
            paragraphs.append(f"{after} {_capital(str(sign['message']))}. {sign['advice']}")
    return [TextSection(title="Failure signatures", paragraphs=tuple(paragraphs))] if paragraphs else []


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _results(logs: Sequence[_Logs]) -> Table:
    columns = (
        Column(title="run"),
        Column(title="method"),
        Column(title="steps"),
        Column(title="best step"),
        Column(title="cross-entropy", better="lower"),
        Column(title="ROUGE-L, %", better="higher"),
        Column(title="tokens"),
        Column(title="seconds"),
    )
    notes = ("Cross-entropy and ROUGE-L: validation rows, best student; intervals: 95 % bootstrap over rows.",)
    return Table(columns=columns, rows=tuple(Row(cells=_cells(log)) for log in logs), notes=notes)


def _cells(log: _Logs) -> tuple[Cell, ...]:
    tokens = sum(max(row["tokens"].values(), default=0) for row in log.steps)
    seconds = sum(row["time"]["seconds"] for row in log.steps)
    entropy = log.best.get("cross_entropy")
    return (
        log.name,
        log.method,
        Number(value=_last_step(log), digits=0),
        Number(value=log.best["step"], digits=0) if log.best else None,
        None if entropy is None else Number(value=entropy, digits=3),
        _rouge(log),
        Number(value=tokens, digits=0),
        Number(value=seconds, digits=0),
    )


def _rouge(log: _Logs) -> Cell:
    scores = {str(row["id"]): float(row["scores"]["rouge_l"]) for row in log.validation_answers}
    return Number.of(mean_interval(scores, seed=0), scale=100) if scores else None


def _evaluation(logs: Sequence[_Logs], kind: str) -> Table:
    corpora = sorted({str(row["corpus"]) for log in logs for row in log.answers.get(kind, ())})
    rows = []
    for log in logs:
        answers = log.answers.get(kind, ())
        scores = by_example(answers, score="rouge_l") if answers else {}
        cells = [
            Number.of(mean_interval(scores[corpus], seed=0), scale=100) if corpus in scores else None
            for corpus in corpora
        ]
        whole = summarise(answers, score="rouge_l") if set(scores) == set(corpora) else None
        mean = None if whole is None else Number(value=100 * whole.mean, error=100 * whole.error)
        rows.append(Row(cells=(log.name, *cells, mean)))
    columns = [Column(title="run"), *(Column(title=corpus, better="higher") for corpus in corpora)]
    return Table(columns=(*columns, Column(title="mean", better="higher")), rows=tuple(rows))


def _curves(logs: Sequence[_Logs]) -> list[Section]:
    metrics = {log.name: log.metrics for log in logs}
    sections = (
        CurvesSection(title="Validation", charts=validation_charts(metrics)),
        CurvesSection(title="Training", charts=training_charts(metrics)),
        CurvesSection(title="Revision, clip and spans", charts=revision_charts(metrics), small=True),
    )
    return [section for section in sections if section.charts]


def _looks(logs: Sequence[_Logs]) -> list[Section]:
    return [section for log in logs for section in look_sections(log.looks, run=log.name if len(logs) > 1 else "")]


def _answers(logs: Sequence[_Logs]) -> list[Section]:
    sections: list[Section] = []
    validation = _validation_cases(logs)
    if validation:
        intro = "What the best student of each run says to validation rows, drawn with the run's decoding seed."
        sections.append(CasesSection(title="Answers", cases=validation, intro=intro))
    samples = tuple(
        Case(
            title=f"step {row['step']}" + (f", {log.name}" if len(logs) > 1 else ""),
            instruction=str(row["prompt"]),
            answers=(Answer(arm=f"response ({row['origin']})", text=str(row["response"]), scores=_corrections(row)),),
        )
        for log in logs
        for row in log.samples[-max(1, _MOST_CASES // len(logs)) :]
    )
    if samples:
        intro = "Rows that the student learned from: its own response, or the corpus's."
        sections.append(CasesSection(title="What was learned from", cases=samples, intro=intro, open_first=0))
    return sections


def _corrections(sample: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"corrected at {each['place'] + 1}", f"{named(each['drawn'])} → {named(each['teacher'])}, KL {each['kl']:.3g}")
        for each in sample.get("corrections", ())
    )


def _validation_cases(logs: Sequence[_Logs]) -> tuple[Case, ...]:
    by_id: dict[str, list[tuple[_Logs, dict[str, Any]]]] = {}
    for log in logs:
        for row in log.validation_answers:
            by_id.setdefault(str(row["id"]), []).append((log, row))
    # Rows that all runs answered come first.
    order = sorted(by_id, key=lambda name: -len(by_id[name]))
    return tuple(_case(name, by_id[name]) for name in order[:_MOST_CASES])


def _case(name: str, given: Sequence[tuple[_Logs, Mapping[str, Any]]]) -> Case:
    first = given[0][1]
    answers = tuple(
        Answer(
            arm=log.name,
            text=str(row["text"]),
            scores=tuple((score, f"{value:.3f}") for score, value in row["scores"].items()),
        )
        for log, row in given
    )
    return Case(
        title=name,
        instruction=f"row {name}",
        answers=answers,
        references=tuple(map(str, first["references"])),
        category=str(first["category"]),
    )
