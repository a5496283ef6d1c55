"""The page of a study, from its rows alone: answers, tables whose numbers lead to their rows, claims. No torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from limbeck.reporting.linking import Links
from limbeck.reporting.page import Page, Section, TableSection, TextSection, write_page
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.reporting.telling import runner_up
from limbeck.studies.measured import ROUGE, Measured
from limbeck.studies.study_answers import CONTROLS, RUNS, TABLE, study_answers
from limbeck.studies.tables import Result, result_of

_MOST_ROWS = 10_000


def write_study_page(rows: Path, study: str, page: Path, *, command: str = "") -> Path:
    """Write the page of a study; cells of its last column lead to the files of rows, relative to the page."""
    return write_page(study_page(rows, study, command=command, beside=page.parent), page)


def study_page(rows: Path, study: str, *, command: str = "", beside: Path | None = None, against: str = "") -> Page:
    """The page of a study. `beside`: the folder that it is to lie in; without one the files of rows are named and not
    linked. Raises `DataError` where there are no rows."""
    result = result_of(rows, study, against=against)
    measured = result.measured
    (title, scores), *others = result.tables
    files = None if beside is None else os.path.relpath(rows.absolute(), beside.absolute())
    sections: list[Section] = [
        TableSection(title=title, table=_leading(scores, measured, files=files), ident=TABLE),
        *_claims(result),
        *_controls(measured),
        *(TableSection(title=name, table=table) for name, table in others),
        *_runs(measured, files=files),
        *_rows(measured),
    ]
    return Page(
        title=result.title,
        summary=tuple(verdict.text() for verdict in result.verdicts),
        sections=tuple(sections),
        answers=study_answers(measured, command=command, shown=[section.ident for section in sections]),
        footer="Written by Limbeck from the rows of the study. Nothing on this page was loaded from a network.",
    )


def _leading(table: Table, measured: Measured, *, files: str | None) -> Table:
    """The table with numbers that lead to the rows of their corpus, and names of files that lead to them."""
    shown = dict(enumerate(measured.corpora))
    lines = []
    for row, arm in zip(table.rows, measured.ledger.arms, strict=True):
        cells: list[Cell] = list(row.cells)
        for place in shown:
            cell = cells[1 + place]
            if isinstance(cell, Number):
                cells[1 + place] = dataclasses.replace(cell, to=f"#rows-{place}")
        average = cells[1 + len(shown)]
        if isinstance(average, Number):
            cells[1 + len(shown)] = dataclasses.replace(average, to=f"#{RUNS}" if len(shown) > 1 else "#rows-0")
        there = measured.arms.get(arm.name)
        if files is not None and there is not None:
            names = [run.path.name for run in there.runs.values()]
            parts = [(name.removesuffix(".jsonl.gz"), f"{files}/{name}") for name in names]
            told = str(cells[-1] or "")
            rest = " ".join(word for word in told.split() if word not in {stem for stem, _ in parts})
            cells[-1] = Links(parts=(*parts, *([(rest, "")] if rest else [])))
        lines.append(dataclasses.replace(row, cells=tuple(cells)))
    return dataclasses.replace(table, rows=tuple(lines))


def _claims(result: Result) -> list[Section]:
    if not result.verdicts:
        return []
    told = tuple(
        f"{verdict.text()} All comparisons: {'; '.join(each.text() for each in verdict.compared)}."
        for verdict in result.verdicts
    )
    return [TextSection(title="What may be concluded", paragraphs=told, ident="claims")]


def _controls(measured: Measured) -> list[Section]:
    """Every trained arm against every null control."""
    controls = measured.ledger.controls
    arms = [name for name, arm in measured.arms.items() if not arm.is_stage and name not in controls]
    rows = []
    for name in arms:
        gaps = [measured.gap(name, control) for control in controls]
        cells = [None if gap is None else Number.of(gap, scale=100, digits=2, signed=True) for gap in gaps]
        if any(cells):
            rows.append(Row(cells=(measured.arms[name].arm.label, *cells)))
    if not rows:
        return []
    table = Table(columns=(Column(title="arm"), *(Column(title=f"− {name}") for name in controls)), rows=tuple(rows))
    intro = "Average ROUGE-L of an arm minus that of a control, with 95 % paired bootstrap intervals: above 0 distils."
    return [TableSection(title="Null controls", table=table, intro=intro, ident=CONTROLS)]


def _runs(measured: Measured, *, files: str | None) -> list[Section]:
    """Every trained run: what it kept, drew, left out and cost."""
    titles = ("run", "steps", "kept step", "runner-up", "dropped rows", "cut rows", "tokens", "train s", "score s",
              "signatures", "rows")  # fmt: skip
    rows = []
    for arm in measured.arms.values():
        for (seed, _), run in arm.runs.items():
            if seed == "-":
                continue
            about = run.about
            validations = about.get("validations", ())
            best = next((row for row in reversed(validations) if row.get("is_best")), None)
            second = runner_up(validations)
            counts = about.get("counted", {}).get("train")
            name = run.path.name
            cells: list[Cell] = [f"{arm.arm.label}, seed {seed}", _count(len(about.get("steps", ())))]
            cells += [None if each is None else _count(each["step"]) for each in (best, second)]
            cells += [None if counts is None else _count(counts[key]) for key in ("dropped_prompts", "cut_rows")]
            cells += [_count(about[key]) if key in about else None for key in ("tokens", "seconds", "scoring_seconds")]
            cells += [", ".join(sign["name"] for sign in about.get("signatures", ())) or None]
            cells += [Links(parts=((name, f"{files}/{name}" if files is not None else ""),))]
            rows.append(Row(cells=tuple(cells)))
    if not rows:
        return []
    table = Table(columns=tuple(Column(title=title) for title in titles), rows=tuple(rows))
    intro = "The first line of each file of rows holds the resolved recipe, the environment and every step."
    return [TableSection(title="Runs", table=table, intro=intro, ident=RUNS)]


def _count(value: int | float) -> Number:
    return Number(value=value, digits=0)


def _rows(measured: Measured) -> list[Section]:
    """Every example of a corpus with each arm's score: what the numbers of the table are means of."""
    sections: list[Section] = []
    for number, corpus in enumerate(measured.corpora):
        scores = {
            arm.arm.label: arm.values(list(arm.runs), measure=ROUGE[0], score=ROUGE[1], corpora=(corpus,))
            for arm in measured.arms.values()
        }
        places = list(dict.fromkeys(place for values in scores.values() for place in values))
        if not places:
            continue
        columns = (Column(title="example"), *(Column(title=name) for name in scores))
        lines = [Row(cells=(place[1], *_scored(place, list(scores.values())))) for place in places[:_MOST_ROWS]]
        more = f" The first {_MOST_ROWS:,} of {len(places):,} examples." if len(places) > _MOST_ROWS else ""
        sections.append(
            TableSection(
                title=f"Row by row: {corpus}",
                table=Table(columns=columns, rows=tuple(lines)),
                intro=f"ROUGE-L in % of every example, averaged over decoding and training seeds.{more}",
                folded=True,
                ident=f"rows-{number}",
            )
        )
    return sections


def _scored(place: tuple[str, str], values: Sequence[dict[tuple[str, str], float]]) -> list[Cell]:
    return [Number(value=100 * each[place]) if place in each else None for each in values]
