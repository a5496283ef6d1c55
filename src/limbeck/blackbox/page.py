"""The report of a run of UNDO: one page, and the same numbers as JSON beside it. No torch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from limbeck.blackbox.artefacts import read_json, write_json
from limbeck.blackbox.page_answers import undo_answers
from limbeck.blackbox.page_tables import (
    accuracy_chart,
    arms_table,
    cost_table,
    errors_table,
    lead,
    percent,
    questions_table,
    rounds_table,
)
from limbeck.blackbox.reading_runs import ArmRows, RoundRows, RunRows, read_run
from limbeck.reporting.cases import Answer, Case
from limbeck.reporting.comparing import Comparison, compare_arms
from limbeck.reporting.page import CasesSection, CurvesSection, Page, Section, TableSection, TextSection, write_page

_FOLLOWED = 6


def write_report(run: Path) -> Path:
    """Write report.html and report.json of a run, finished or not; returns the page. Raises `CheckpointError`."""
    rows = read_run(run)
    comparisons = {part: _compared(rows, part) for part in ("stop", "test")}
    write_json(run / "report.json", _numbers(rows, comparisons))
    return write_page(_page(rows, comparisons), run / "report.html")


def _page(rows: RunRows, comparisons: dict[str, tuple[Comparison, ...]]) -> Page:
    parts = list(rows.main.rounds[0].metrics["accuracy"])
    questions = rows.manifest["questions"]
    followed = _followed(rows)
    sections: tuple[Section, ...] = (
        TableSection(
            title="Arms at equal student tokens",
            intro=(
                "The best round of each arm, chosen on stop alone; ± is one standard error over questions. "
                "Differences are the method minus the control on the same questions, with a 95 % bootstrap "
                "interval and a permutation test's p after Holm. Only blind and shuffled say whether seeing this "
                "student helped; one-shot only says whether going on did."
            ),
            table=arms_table(rows, comparisons),
            ident="arms",
        ),
        CurvesSection(
            title="Accuracy by round",
            charts=tuple(accuracy_chart(rows, part) for part in parts),
            intro="Round 0 is one-shot distillation. Test never decides anything.",
            ident="accuracy",
        ),
        TableSection(
            title="Rounds", table=rounds_table(rows), intro="Solved and lost are counted on stop.", ident="rounds"
        ),
        TableSection(title="Errors by round", table=errors_table(rows), intro=_ERRORS),
        TableSection(title="What the teacher cost", table=cost_table(rows), ident="cost"),
        *([CasesSection(title="Questions followed through the rounds", cases=followed)] if followed else []),
        TableSection(
            title="Question by question",
            table=questions_table(rows),
            intro="Whether the best round of each arm was right on each test question.",
            folded=True,
            ident="rows",
        ),
        TextSection(
            title="How to read this",
            paragraphs=(*_CAVEATS, *_overlap(rows)),
            code=f"limbeck undo report {rows.folder}\nlimbeck undo replay {rows.folder}",
            ident="reading",
        ),
    )
    return Page(
        title="UNDO: distillation from a black-box teacher, round by round",
        summary=_summary(rows, comparisons["test"]),
        facts=(
            ("teacher", str(rows.manifest["teacher"]["name"])),
            ("student", str(rows.manifest["student"]["name"])),
            *((part, f"{count:,} questions") for part, count in questions.items()),
        ),
        sections=sections,
        answers=undo_answers(rows, comparisons["test"], shown=[section.ident for section in sections]),
        footer="Made by limbeck undo report; the same numbers are in report.json.",
    )


_ERRORS = "Wrong answers to stop of the method's student, by the class that rules can tell."
_CAVEATS = (
    "The rewriting step has no gradient and no guarantee: that a round is better is measured, never assumed.",
    "Every round of every arm reads the same number of tokens in training; one-shot-long and union, as many as all "
    "rounds of the method together.",
    "An accuracy counts an answer that was said anywhere; strict ones, said where an answer is said, are in "
    "report.json.",
)


def _summary(rows: RunRows, comparisons: tuple[Comparison, ...]) -> tuple[str, ...]:
    best = rows.main.best.metrics["accuracy"]
    start = rows.main.rounds[0].metrics["accuracy"]
    lines = [
        f"The teacher was {rows.manifest['teacher']['what']}.",
        f"{rows.main.name}: {percent(best['test'])} on test in its best round "
        f"({rows.main.best.metrics['round']}), {percent(start['test'])} in round 0, which is one-shot distillation.",
    ]
    if rows.untouched:
        lines.append(f"The untouched student has {percent(rows.untouched['test'])}: much of the first step is form.")
    for each in comparisons:
        if each.arm in ("blind", "shuffled"):
            lines.append(f"Against {each.arm}: {_against(rows, each)}.")
    if not any(each.arm in ("blind", "shuffled") for each in comparisons):
        lines.append("No blind or shuffled control was run: nothing here says that seeing the student helped.")
    if rows.main.outcome is None:
        lines.append("The run is not finished; these are the rounds so far.")
    else:
        lines.append(f"The loop ended because: {rows.main.outcome['reason']}.")
    lines.append("One run of one seed: questions are the only source of error that the intervals know.")
    return tuple(lines)


def _against(rows: RunRows, found: Comparison) -> str:
    """What a control says; nothing where both arms give back one and the same student."""
    arm = next(each for each in rows.arms if each.name == found.arm)
    if arm.rounds[-1].metrics["round"] == 0:
        return "nothing can be told, it came to no round of its own"
    if arm.best.folder == rows.main.best.folder:
        return "nothing can be told, the best round of both is the common start"
    gap = f"{lead(found).centre} points {lead(found).spread}"
    verdict = "a difference" if found.is_significant else "no difference that could not be chance"
    return f"{gap} on test, p = {found.adjusted:.3g} after Holm: {verdict}"


def _compared(rows: RunRows, part: str) -> tuple[Comparison, ...]:
    """Every control against the method on a part, arm minus method."""
    scores = {arm.name: arm.best.right(part) for arm in rows.arms}
    return compare_arms(scores, baseline=rows.main.name) if len(scores) > 1 else ()


def _followed(rows: RunRows) -> tuple[Case, ...]:
    """Questions of the training split with what the teacher wrote and the student said, round by round: those first
    whose answers changed."""
    rounds = rows.main.rounds
    told = {row["id"]: row for row in _items(rows) if row["part"] == "train"}
    said = [{row["item_id"]: row for row in each.rows("train_attempts") if row["draw"] == 0} for each in rounds]
    if not any(said):
        return ()
    ids = sorted(told, key=lambda id: (-_turns([one[id]["correct"] for one in said if id in one]), id))
    return tuple(_case(id, told[id], rounds, said) for id in ids[:_FOLLOWED])


def _case(id: str, item: dict[str, Any], rounds: tuple[RoundRows, ...], said: list[dict[str, dict[str, Any]]]) -> Case:
    answers = []
    for each, attempts in zip(rounds, said, strict=True):
        number = each.metrics["round"]
        written = {row["item_id"]: row for row in each.rows("rationales")}.get(id)
        if written is not None:
            answers.append(Answer(arm=f"teacher, round {number}", text=written["text"], scores=(("accepted", "yes"),)))
        if id in attempts:
            row = attempts[id]
            verdict = "right" if row["correct"] else row["error"]
            answers.append(Answer(arm=f"student, round {number}", text=row["text"], scores=(("verdict", verdict),)))
    return Case(title=id, instruction=item["question"], answers=tuple(answers), references=(item["gold"],))


def _items(rows: RunRows) -> list[dict[str, Any]]:
    return RoundRows(folder=rows.folder, metrics={}).rows("items")


def _turns(right: list[bool]) -> int:
    """How often an answer went from wrong to right or back."""
    return sum(one != other for one, other in itertools.pairwise(right))


def _overlap(rows: RunRows) -> tuple[str, ...]:
    found = rows.manifest["overlap_with_train"]
    return tuple(
        f"{part}: {counts['numbers_masked']} questions differ from a training question by numbers alone, "
        f"{counts['thirteen_words']} share 13 words in a row with one."
        for part, counts in found.items()
        if counts["numbers_masked"] or counts["thirteen_words"]
    )


def _numbers(rows: RunRows, comparisons: dict[str, tuple[Comparison, ...]]) -> dict[str, Any]:
    def told(arm: ArmRows) -> dict[str, Any]:
        return {"outcome": arm.outcome, "rounds": [dict(each.metrics) for each in arm.rounds]}

    return {
        "teacher": {**rows.manifest["teacher"]},
        "student": rows.manifest["student"]["name"],
        "questions": rows.manifest["questions"],
        "overlap_with_train": rows.manifest["overlap_with_train"],
        "untouched": rows.untouched,
        "arms": {arm.name: told(arm) for arm in rows.arms},
        "method_minus_control": {
            part: {
                each.arm: {
                    "points": lead(each).value,
                    "low": lead(each).low,
                    "high": lead(each).high,
                    "p": each.p,
                    "p_holm": each.adjusted,
                }
                for each in found
            }
            for part, found in comparisons.items()
        },
        "summary": list(_summary(rows, comparisons["test"])),
    }


def summary_lines(run: Path) -> tuple[str, ...]:
    """The first lines of a report that was written."""
    return tuple(read_json(run / "report.json")["summary"])
