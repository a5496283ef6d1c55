"""The rows behind a page's numbers: every example with its score, its answers side by side, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.reporting.cases import Answer, Case
from limbeck.reporting.linking import Links, slug
from limbeck.reporting.page import CasesSection, Section, TableSection
from limbeck.reporting.run_logs import RunLogs
from limbeck.reporting.tables import Cell, Column, Number, Row, Table
from limbeck.reporting.tokens import named

_MOST_CASES = 40
# A page of them stays below 15 MB.
_MOST_ROWS = 10_000
_MOST_NAMED = 20

# Run → its answer rows.
Answered = Mapping[str, Sequence[Mapping[str, Any]]]


def row_sections(logs: Sequence[RunLogs]) -> list[Section]:
    """Scores and answers of every example: of the validation of each run's kept student, then of each evaluation."""
    asked = {str(look["id"]): str(look["prompt"]) for log in logs for look in log.looks}
    validation = {log.name: log.validation_answers for log in logs if log.validation_answers}
    intro = "What the kept student of each run says to validation rows, drawn with the run's decoding seed."
    sections = _both(validation, asked, names=("scores", "answers"), of="", intro=intro)
    for kind in dict.fromkeys(kind for log in logs for kind in log.answers):
        answered = {log.name: log.answers[kind] for log in logs if kind in log.answers}
        names = (f"rows-{slug(kind)}", f"answers-{slug(kind)}")
        intro = "What each run's student says, with the first decoding seed; scores in the table are over all seeds."
        sections += _both(answered, {}, names=names, of=f": {kind}", intro=intro)
    return sections


def learned_from(logs: Sequence[RunLogs]) -> list[Section]:
    """Rows that were learned from, as they were sampled along a run, with their corrections."""
    samples = tuple(
        Case(
            title=f"step {row['step']}" + (f", {log.name}" if len(logs) > 1 else ""),
            instruction=str(row["prompt"]),
            answers=(Answer(arm=f"response ({row['origin']})", text=str(row["response"]), scores=_corrections(row)),),
        )
        for log in logs
        for row in log.samples[-max(1, _MOST_CASES // len(logs)) :]
    )
    if not samples:
        return []
    intro = "Rows that the student learned from: its own response, or the corpus's."
    return [CasesSection(title="What was learned from", cases=samples, intro=intro, open_first=0, ident="learned-from")]


def left_out_section(logs: Sequence[RunLogs]) -> list[Section]:
    """How many rows were read, kept, dropped and cut, from rows.json; nothing for runs without it."""
    rows = [
        Row(cells=_counts(f"{log.name}: {part}" if len(logs) > 1 else part, log.counted[part]))
        for log in logs
        for part in ("train", "validation")
        if log.counted.get(part, {}).get("read")
    ]
    if not rows:
        return []
    titles = ("rows", "read", "kept", "dropped", "prompt cut", "response cut", "border kept", "spells a control token",
              "which")  # fmt: skip
    notes = (
        "Dropped: the prompt is longer than data.max_prompt. Border kept: one encoding of prompt and response would "
        "have joined a token across it. Which: ids of rows that were dropped, then of those cut; rows.json has all.",
    )
    table = Table(columns=tuple(Column(title=title) for title in titles), rows=tuple(rows), notes=notes)
    return [TableSection(title="Rows left out or cut", table=table, ident="rows")]


def _counts(name: str, counts: Mapping[str, Any]) -> tuple[Cell, ...]:
    keys = ("read", "kept", "dropped_prompts", "cut_prompts", "cut_responses", "boundary_merges", "control_tokens")
    ids = [*counts["dropped_ids"], *counts["cut_ids"]]
    more = f" and {len(ids) - _MOST_NAMED:,} more" if len(ids) > _MOST_NAMED else ""
    return (
        name,
        *(Number(value=counts[key], digits=0) for key in keys),
        ", ".join(map(str, ids[:_MOST_NAMED])) + more or None,
    )


def _both(
    answered: Answered, asked: Mapping[str, str], *, names: tuple[str, str], of: str, intro: str
) -> list[Section]:
    if not answered:
        return []
    rows = _by_row(answered)
    cases, ids = _cases(rows, list(answered), asked, ident=names[1]), {}
    for place, key in enumerate(list(rows)[: len(cases)]):
        ids[key] = f"#{names[1]}-{place}"
    table = _scores(rows, list(answered), ids)
    told = "ROUGE-L in % of every row, averaged over decoding seeds; a name that is a link opens the answers."
    more = f" The first {_MOST_ROWS:,} of {len(rows):,} rows." if len(rows) > _MOST_ROWS else ""
    title = "Answers" + of
    return [
        CasesSection(title=title, cases=cases, intro=intro, ident=names[1]),
        TableSection(title=f"Row by row{of}", table=table, intro=told + more, folded=True, ident=names[0]),
    ]


def _by_row(answered: Answered) -> dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]]:
    """(corpus, id) → run → its answers by seed; those that all runs answered come first."""
    found: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for run, rows in answered.items():
        for row in rows:
            found.setdefault((str(row["corpus"]), str(row["id"])), {}).setdefault(run, []).append(row)
    return dict(sorted(found.items(), key=lambda each: -len(each[1])))


def _scores(
    rows: Mapping[tuple[str, str], Mapping[str, Sequence[Mapping[str, Any]]]],
    runs: Sequence[str],
    places: Mapping[tuple[str, str], str],
) -> Table:
    is_one = len({corpus for corpus, _ in rows}) == 1
    lines = []
    for key in list(rows)[:_MOST_ROWS]:
        corpus, id = key
        cells: list[Cell] = [Links(parts=((id if is_one else f"{corpus} {id}", places.get(key, "")),))]
        for run in runs:
            scores = [float(row["scores"]["rouge_l"]) for row in rows[key].get(run, ())]
            cells.append(Number(value=100 * sum(scores) / len(scores)) if scores else None)
        lines.append(Row(cells=tuple(cells)))
    columns = (Column(title="row"), *(Column(title=run) for run in runs))
    return Table(columns=columns, rows=tuple(lines))


def _cases(
    rows: Mapping[tuple[str, str], Mapping[str, Sequence[Mapping[str, Any]]]],
    runs: Sequence[str],
    asked: Mapping[str, str],
    *,
    ident: str,
) -> tuple[Case, ...]:
    """One instruction, every run's answer, and the words that differ from the first run's."""
    cases = []
    for place, ((_, id), given) in enumerate(list(rows.items())[:_MOST_CASES]):
        said = {run: min(given[run], key=lambda row: int(row["seed"])) for run in runs if run in given}
        first, *others = said
        row = said[first]
        answers = tuple(
            Answer(
                arm=run,
                text=str(each["text"]),
                scores=tuple((score, f"{value:.3f}") for score, value in each["scores"].items()),
            )
            for run, each in said.items()
        )
        cases.append(
            Case(
                title=id,
                instruction=str(row.get("question") or asked.get(id) or f"row {id} (its question was not recorded)"),
                answers=answers,
                references=tuple(map(str, row["references"])),
                category=str(row["category"]),
                compare=tuple((first, other) for other in others),
                ident=f"{ident}-{place}",
            )
        )
    return tuple(cases)


def _corrections(sample: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"corrected at {each['place'] + 1}", f"{named(each['drawn'])} → {named(each['teacher'])}, KL {each['kl']:.3g}")
        for each in sample.get("corrections", ())
    )
