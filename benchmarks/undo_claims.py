"""The abstract's claims against what was measured, and the page docs/results/undo.md, filled from the kept files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from undo_tables import (
    MAIN,
    TASKS,
    Gap,
    Kept,
    Retraining,
    arms_table,
    gap,
    http_table,
    points,
    rounds_table,
    shown,
    transfer_table,
    transferred,
    write_whole,
)

# "Gains of up to 20 %": the abstract does not say whether points or parts of the baseline; both are held against it.
_LARGEST = 0.2


def tables(kept: Kept) -> dict[str, str]:
    """Markdown by name: the claims, the arms and rounds of each task, transfer, the run over HTTP."""
    found = {"claims": claims_table(kept)}
    for task in TASKS:
        measured = bool(kept.seeds(task, "one-shot"))
        found[f"{task} arms"] = arms_table(kept, task) if measured else ""
        found[f"{task} rounds"] = rounds_table(kept, task) if measured else ""
    return {**found, "transfer": transfer_table(kept), "http": http_table(kept)}


def claims_table(kept: Kept) -> str:
    """Each claim on each task with the interval that decides: the wide one, over questions and retraining."""
    lines = ["| claim | task | measured, points | with retraining | verdict |", "| --- | --- | --- | --- | --- |"]
    verdicts: dict[str, Counter[str]] = {}
    for claim, found in _claims(kept).items():
        for task, (each, verdict, text) in found.items():
            wide = f"[{points(each.low)}, {points(each.high)}]"
            lines.append(f"| {claim} | {task} | {text or shown(each.questions, signed=True)} | {wide} | {verdict} |")
            verdicts.setdefault(claim, Counter())[verdict] += 1
    if not verdicts:
        return ""
    said = [
        f"- {claim}: {', '.join(f'{verdict} on {count}' for verdict, count in sorted(counts.items()))} of"
        f" {sum(counts.values())} tasks"
        for claim, counts in verdicts.items()
    ]
    return "\n".join([*lines, "", *said])


def _claims(kept: Kept) -> dict[str, dict[str, tuple[Gap, str, str]]]:
    """By claim and task: the difference, the verdict, and what is shown in the place of the difference ("" for it)."""
    found: dict[str, dict[str, tuple[Gap, str, str]]] = {}
    rivals = {
        "better than one-shot": "one-shot",
        "better than one-shot for as many tokens": "one-shot-long",
        "better because its mistakes are seen (against blind)": "blind",
        "better because its own mistakes are seen (against shuffled)": "shuffled",
    }
    for task in TASKS:
        for claim, rival in rivals.items():
            each = _against(kept, task, rival)
            if each is None:
                continue
            found.setdefault(claim, {})[task] = (each, each.verdict, "")
            if rival == "one-shot":
                base = _mean(kept.mean(task, rival, kept.seeds(task, rival)))
                found.setdefault("up to 20 % (points)", {})[task] = (each, _reaches(each, 1.0), "")
                relative = f"{100 * each.questions.mean / base:+.0f} % of {100 * base:.1f}" if base else "no baseline"
                found.setdefault("up to 20 % (of the baseline)", {})[task] = (each, _reaches(each, base), relative)
        moved = transferred(kept, task)
        if moved is not None:
            found.setdefault("refined data help another student", {})[task] = (moved, moved.verdict, "")
    return found


def _against(kept: Kept, task: str, rival: str) -> Gap | None:
    """The method less a rival, both in their best rounds, over the seeds that both have."""
    seeds = [seed for seed in kept.seeds(task, MAIN) if seed in kept.seeds(task, rival)]
    if not seeds:
        return None
    ours, theirs = kept.mean(task, MAIN, seeds), kept.mean(task, rival, seeds)
    return gap(ours, theirs, seeds=len(seeds), retraining=Retraining.of(kept, task))


def _reaches(each: Gap, scale: float) -> str:
    """Whether a gain of a fifth of `scale` is reached."""
    limit = _LARGEST * scale
    return "holds" if each.low >= limit > 0 else "does not" if each.high < limit else "cannot be told"


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def write_page(page: Path, kept: Kept) -> None:
    """Put each table between its two marks in the page: "<!-- NAME -->" and "<!-- end -->"."""
    text = page.read_text()
    for name, table in tables(kept).items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(
                f"{page} has no place for '{name}': <!-- {name} --> and <!-- end --> on lines of their own"
            )
        filled = f"\n{table or 'Not measured yet.'}\n\n"
        text = pattern.sub(lambda found, filled=filled: f"{found[1]}{filled}{found[2]}", text)
    write_whole(page, text)
    print(f"written: {page}")
