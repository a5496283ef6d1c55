"""`limbeck report`: one page about runs, made from the files in their folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limbeck.errors import DataError
from limbeck.reporting.contest import find_contest
from limbeck.reporting.curves import own_charts, revision_charts, time_charts, training_charts, validation_charts
from limbeck.reporting.linking import Links, slug
from limbeck.reporting.looks import look_sections
from limbeck.reporting.page import CurvesSection, Page, Section, TableSection, TextSection, write_page
from limbeck.reporting.reduce import by_example, mean_interval, summarise
from limbeck.reporting.run_answers import run_answers, thresholds_of
from limbeck.reporting.run_logs import RunLogs
from limbeck.reporting.run_rows import learned_from, left_out_section, row_sections
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.reporting.telling import capital, learned_tokens, step_seconds


def report(runs: Sequence[Path], out: Path) -> Path:
    """Write one HTML page that compares runs: eight answers, results, curves, answers, recipes; returns `out`.

    Reads recipe.yaml, metrics.jsonl, samples.jsonl, tokens.jsonl, rows.json, environment.json, student/limbeck.json,
    validation/ and answers/ of each folder, and changes none of them; a run that is still going shows what it has so
    far. Raises `DataError` for a folder that is no run.
    """
    if not runs:
        raise DataError("a report needs the folder of at least one run")
    logs = [RunLogs.read(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    sections: list[Section] = [*_warnings(logs), TableSection(title="Results", table=_results(logs), ident="results")]
    for kind in dict.fromkeys(kind for log in logs for kind in log.evaluations):
        intro = "ROUGE-L in %, with 95 % bootstrap intervals over examples; the mean with its standard error."
        table, ident = _evaluation(logs, kind), f"evaluation-{slug(kind)}"
        sections.append(TableSection(title=f"Evaluation: {kind}", table=table, intro=intro, ident=ident))
    sections += _curves(logs)
    sections += [section for log in logs for section in look_sections(log.looks, run=log.name if logs[1:] else "")]
    sections += row_sections(logs)
    sections += learned_from(logs)
    sections += left_out_section(logs)
    recipes = "\n\n".join(f"# {log.folder}/recipe.yaml\n{log.recipe}" for log in logs)
    paragraphs = ("The complete recipe of each run; the commands are at the top.",)
    sections.append(TextSection(title="How to repeat", paragraphs=paragraphs, code=recipes, ident="repeat"))
    page = Page(
        title=f"Limbeck: {logs[0].name if len(logs) == 1 else f'{len(logs)} runs'}",
        summary=tuple(map(_headline, logs)),
        sections=tuple(sections),
        answers=run_answers(logs, find_contest(logs), shown=[section.ident for section in sections]),
        footer="Written by Limbeck from the files of the runs. Nothing on this page was loaded from a network.",
    )
    return write_page(page, out)


def _names(runs: Sequence[Path]) -> list[str]:
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _headline(log: RunLogs) -> str:
    done = f"{log.name} ({log.method}): {log.last_step:,} steps"
    if not log.best:
        return f"{done}, not validated yet."
    score = f", ROUGE-L {100 * log.best['rouge_l']:.1f} %" if "rouge_l" in log.best else ""
    return f"{done}; the best student is of step {log.best['step']:,}: loss {log.best['loss']:.4f}{score}."


def _warnings(logs: Sequence[RunLogs]) -> list[Section]:
    """Which failure signatures showed in runs that looked for them, with what to do; or that none did."""
    paragraphs: list[str] = []
    for log in logs:
        signs = log.of_kind("watch")
        if not signs and any(value is not None for value in (thresholds_of(log) or {}).values()):
            paragraphs.append(f"{log.name}: no failure signature showed in {log.last_step:,} steps.")
        for sign in signs:
            after = f"{log.name}, after step {sign['step']:,}: {sign['name']}."
            paragraphs.append(f"{after} {capital(str(sign['message']))}. {sign['advice']}")
    if not paragraphs:
        return []
    return [TextSection(title="Failure signatures", paragraphs=tuple(paragraphs), ident="signatures")]


def _results(logs: Sequence[RunLogs]) -> Table:
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
    notes = (
        "Cross-entropy and ROUGE-L: validation rows, best student; intervals: 95 % bootstrap over rows. A number that "
        "is a link leads to what it is made of.",
    )
    return Table(columns=columns, rows=tuple(Row(cells=_cells(log)) for log in logs), notes=notes)


def _cells(log: RunLogs) -> tuple[Cell, ...]:
    entropy = log.best.get("cross_entropy")
    return (
        log.name,
        log.method,
        Number(value=log.last_step, digits=0),
        Number(value=log.best["step"], digits=0, to="#validation" if entropy is not None else "") if log.best else None,
        None if entropy is None else Number(value=entropy, digits=3, to="#validation"),
        _rouge(log),
        Number(value=learned_tokens(log.steps), digits=0),
        Number(value=step_seconds(log.steps), digits=0),
    )


def _rouge(log: RunLogs) -> Cell:
    scores = {str(row["id"]): float(row["scores"]["rouge_l"]) for row in log.validation_answers}
    return Number.of(mean_interval(scores, seed=0), scale=100, to="#scores") if scores else None


def _evaluation(logs: Sequence[RunLogs], kind: str) -> Table:
    corpora = sorted({str(row["corpus"]) for log in logs for row in log.answers.get(kind, ())})
    rows, to = [], f"#rows-{slug(kind)}"
    shown = f"#answers-{slug(kind)}" if corpora else ""
    for log in logs:
        answers = log.answers.get(kind, ())
        scores = by_example(answers, score="rouge_l") if answers else {}
        cells = [
            Number.of(mean_interval(scores[corpus], seed=0), scale=100, to=to) if corpus in scores else None
            for corpus in corpora
        ]
        whole = summarise(answers, score="rouge_l") if answers and set(scores) == set(corpora) else None
        mean = None if whole is None else Number(value=100 * whole.mean, error=100 * whole.error, to=to)
        rows.append(Row(cells=(Links(parts=((log.name, shown),)), *cells, mean)))
    columns = [Column(title="run"), *(Column(title=corpus, better="higher") for corpus in corpora)]
    there = [(log.name, found) for log in logs if (found := log.evaluations.get(kind)) is not None]
    notes = [f"{name}, {line}." for name, found in there for line in (*found.unfinished, *found.outdated)]
    if any(found.unfinished for _, found in there):
        notes.append("A stopped evaluation goes on when the same limbeck evaluate is given again.")
    return Table(columns=(*columns, Column(title="mean", better="higher")), rows=tuple(rows), notes=tuple(notes))


def _curves(logs: Sequence[RunLogs]) -> list[Section]:
    metrics = {log.name: log.metrics for log in logs}
    kept = "The ring is the student that was kept."
    sections = (
        CurvesSection(title="Validation", charts=validation_charts(metrics), intro=kept, ident="validation"),
        CurvesSection(title="Training", charts=training_charts(metrics), ident="training"),
        CurvesSection(title="Revision, clip and spans", charts=revision_charts(metrics), small=True, ident="revision"),
        CurvesSection(title="The student's own responses", charts=own_charts(metrics), small=True, ident="own"),
        CurvesSection(title="Time", charts=time_charts(metrics), small=True, ident="time"),
    )
    return [section for section in sections if section.charts]
