"""What a round begins with: the student's attempts are shown to the teacher, which rewrites its rationales."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from limbeck.blackbox import mixing
from limbeck.blackbox.acquiring import Likelihoods, acquire
from limbeck.blackbox.artefacts import digest, write_json, write_rows
from limbeck.blackbox.asking import Completion
from limbeck.blackbox.feedback import (
    Feedback,
    Summarising,
    assignments,
    attempts_by_item,
    choose_probe,
    probe_examples,
    saturation,
    shuffled,
)
from limbeck.blackbox.hygiene import without_thoughts
from limbeck.blackbox.items import Item
from limbeck.blackbox.likelihoods import likelihood_rows
from limbeck.blackbox.presets import Preset
from limbeck.blackbox.rounds import Bench, Round, answer_part, finish_round, round_tokens
from limbeck.blackbox.workshop import Workshop

_PROBED = ("validation", "validation+instance", "summary", "hybrid")
_OWN = ("instance", "validation+instance", "hybrid")
_WRITTEN = ("rationales.jsonl", "rejected.jsonl", "probe_rationales.jsonl", "asking.json")


def first_round(work: Workshop) -> Round:
    """The teacher answers from the questions alone, and the student learns from that: the one-shot baseline."""
    bench = Bench(work=work, name="start", arm=Preset(rounds=0))
    round_ = Round(number=0, folder=work.run / "iter_00")

    def write() -> None:
        """All training questions, answered afresh."""
        _write(
            bench,
            round_,
            items=work.splits.train,
            probe=work.splits.probe,
            shown=Feedback(),
            arm=bench.arm,
            earlier=(),
        )

    work.stages.once(round_.folder, "write", inputs=bench.inputs(), outputs=_WRITTEN, make=write)
    rationales = [(row, "new") for _, row in sorted(round_.rationales().items())]
    finish_round(bench, round_, rationales=rationales, traces=(), start=work.base, tokens=None, before=None)
    return round_


def next_round(bench: Bench, past: Sequence[Round], *, main: Sequence[Round] | None) -> Round | None:
    """Another round of an arm after the rounds `past`, the first of which is the common start; None where nothing is
    left to rewrite or to learn from. `main` are the rounds of the main arm, which a blind control counts its calls by.
    """
    work, arm, last = bench.work, bench.arm, past[-1]
    number = last.number + 1
    round_ = Round(number=number, folder=bench.folder(number))
    looks = arm.twist != "blind"
    needs_own = looks and (
        arm.scope.startswith("wrong") or arm.feedback in _OWN or arm.student_correct > 0 or arm.policy == "best_version"
    )
    if needs_own:
        answer_part(bench, last, "train", work.splits.train)
    if looks and arm.feedback in _PROBED:
        answer_part(bench, last, "probe", work.splits.probe)
    todo = _todo(bench, past, number=number, main=main)
    if not todo and arm.scope != "none":
        return None
    read = [last.folder / f"{name}.jsonl" for name in _read_names(arm, looks=looks, needs_own=needs_own)]
    read += [last.folder / "student.json"] if work.recipe.method.candidate == "student_likelihood" else []

    def write() -> None:
        shown = _feedback(bench, past, round_)
        _write(bench, round_, items=todo, probe=_probed(bench, past, number), shown=shown, arm=arm, earlier=tuple(past))

    inputs = {**bench.inputs(*read), "todo": digest([item.id for item in todo])}
    work.stages.once(round_.folder, "write", inputs=inputs, outputs=[*_WRITTEN, "feedback.json"], make=write)
    rationales, traces = _material(bench, past, round_)
    start = work.base if arm.restart == "base" else last.student
    if not rationales and not traces:
        return None
    finish_round(
        bench, round_, rationales=rationales, traces=traces, start=start, tokens=round_tokens(work), before=last
    )
    return round_


def _read_names(arm: Preset, *, looks: bool, needs_own: bool) -> list[str]:
    names = ["rationales"]
    names += ["train_attempts"] if needs_own else []
    return names + (["probe_attempts", "probe_rationales"] if looks and arm.feedback in _PROBED else [])


def _todo(bench: Bench, past: Sequence[Round], *, number: int, main: Sequence[Round] | None) -> list[Item]:
    """The questions that are rewritten in this round."""
    work, arm, train = bench.work, bench.arm, bench.work.splits.train
    seeds = work.seeds.child("scope", number)
    if arm.scope == "none":
        return []
    if arm.twist == "blind" and arm.scope != "all":
        counts = [round_.metrics["refined"] for round_ in (main or ())[1:]]
        count = counts[min(number, len(counts)) - 1] if counts else 0
        return _some(train, count, seeds)
    if arm.scope == "sample":
        return _some(train, round(work.recipe.method.scope_share * len(train)), seeds)
    if arm.scope == "all":
        return list(train)
    wrong: set[str] = set()
    for row in past[-1].rows("train_attempts"):
        if not row["correct"] and (row["draw"] == 0 or arm.scope == "wrong_or_unstable"):
            wrong.add(row["item_id"])
    return [item for item in train if item.id in wrong]


def _some(items: Sequence[Item], count: int, seeds: Any) -> list[Item]:
    chosen = set(np.argsort(seeds.generator().random(len(items))).tolist()[:count])
    return [item for place, item in enumerate(items) if place in chosen]


def _probed(bench: Bench, past: Sequence[Round], number: int) -> Sequence[Item]:
    """The probe's questions that this round shows."""
    work, task = bench.work, bench.work.recipe.task
    errors: dict[str, str] = {}
    if task.probe_policy != "fixed" and (past[-1].folder / "probe_attempts.jsonl").is_file():
        errors = {row["item_id"]: row["error"] for row in past[-1].rows("probe_attempts")}
    return choose_probe(
        work.splits.probe,
        count=task.probe,
        policy=task.probe_policy,
        errors=errors,
        seeds=work.seeds.child("probe", number),
    )


def _feedback(bench: Bench, past: Sequence[Round], round_: Round) -> Feedback:
    """The round's examples and summary, written to feedback.json."""
    work, arm = bench.work, bench.arm
    shown, saturated = Feedback(), ""
    if arm.feedback in _PROBED:
        attempts = attempts_by_item([each.rows("probe_attempts") for each in past])
        items = _probed(bench, past, round_.number)
        if arm.twist == "shuffled":
            attempts = shuffled(attempts, seeds=work.seeds.child("shuffle", "probe", round_.number))
        examples = probe_examples(
            items,
            rationales=[{id: row["text"] for id, row in each.rationales("probe_rationales").items()} for each in past],
            attempts=attempts,
            method=work.recipe.method,
        )
        shown = Feedback(probe=examples)
        saturated = saturation(examples)
        if saturated:
            way_out = (
                "; task.probe_policy=resample would show others" if work.recipe.task.probe_policy == "fixed" else ""
            )
            work.say(f"note: the student has all of the probe {saturated}, which tells the teacher little{way_out}")
        teacher = work.teacher(bench.stage(round_.number))
        if arm.feedback in ("summary", "hybrid") and isinstance(teacher, Summarising):
            answer = teacher.summarise(examples, round=round_.number - 1)
            said = without_thoughts(answer.text) if isinstance(answer, Completion) else ""
            if said:
                # A summary takes the place of the examples: one call a round instead of a long prefix a question.
                shown = Feedback(summary=said)
    write_json(
        round_.folder / "feedback.json",
        {
            "mode": arm.feedback,
            "saturated": saturated,
            "summary": shown.summary,
            "probe": [asdict(each) for each in shown.probe],
        },
    )
    return shown


def _write(
    bench: Bench,
    round_: Round,
    *,
    items: Sequence[Item],
    probe: Sequence[Item],
    shown: Feedback,
    arm: Preset,
    earlier: Sequence[Round],
) -> None:
    """Ask for all rationales of a round and write them, the rejected ones too."""
    work = bench.work
    newest, probes = _newest(earlier), _newest(earlier, "probe_rationales")
    attempts = {}
    if earlier and arm.feedback in _OWN and items:
        attempts = attempts_by_item([each.rows("train_attempts") for each in earlier])
        if arm.twist == "shuffled":
            attempts = shuffled(attempts, seeds=work.seeds.child("shuffle", "train", round_.number))
    known = {**newest, **probes}
    wanted = assignments(
        [*items, *(probe if arm.scope != "none" else ())],
        round=round_.number,
        shown=arm.feedback if earlier else "none",
        previous={id: row["text"] for id, row in known.items()},
        attempts=attempts,
        feedback=shown,
        method=work.recipe.method,
    )
    factor = work.recipe.method.length_factor
    lengths = [row["num_tokens"] for row in newest.values()]
    work.say(f"{bench.name} round {round_.number}: the teacher writes {len(wanted)} rationales")
    found = acquire(
        work.teacher(bench.stage(round_.number)),
        wanted,
        method=work.recipe.method,
        measures=work.reader,
        longest=factor * statistics.median(lengths) if factor and lengths else None,
        parents={id: row["id"] for id, row in known.items()},
        evidence=shown.evidence(),
        unlikeliness=_unlikeliness(bench, earlier),
    )
    mine = {item.id for item in items}
    accepted = [found.accepted[id] for id in sorted(found.accepted)]
    write_rows(round_.folder / "rationales.jsonl", [row for row in accepted if row["item_id"] in mine])
    write_rows(round_.folder / "probe_rationales.jsonl", [row for row in accepted if row["item_id"] not in mine])
    write_rows(round_.folder / "rejected.jsonl", found.rejected)
    asking = {"refined": len(items), "asked": found.asked, "reasons": found.reasons()}
    write_json(round_.folder / "asking.json", asking)


def _unlikeliness(bench: Bench, earlier: Sequence[Round]) -> Likelihoods | None:
    """What the student that rationales are written for makes of them; nothing for a control that sees no student."""
    work, arm = bench.work, bench.arm
    if work.recipe.method.candidate != "student_likelihood" or arm.twist == "blind":
        return None
    student = earlier[-1].student if earlier else work.base

    def weighed(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {row["id"]: row["nll"] for row in likelihood_rows(work.recipe, student, rows, work.items)}

    return weighed


def _newest(rounds: Sequence[Round], name: str = "rationales") -> dict[str, dict[str, Any]]:
    newest: dict[str, dict[str, Any]] = {}
    for round_ in rounds:
        newest |= round_.rationales(name)
    return newest


def _material(
    bench: Bench, past: Sequence[Round], round_: Round
) -> tuple[list[tuple[mixing.Rationale, str]], list[mixing.Rationale]]:
    """The teacher's rationales and the student's own answers of this round."""
    work, arm = bench.work, bench.arm
    solved: list[frozenset[str]] = []
    if arm.policy == "best_version" and arm.twist != "blind":
        solved = [
            frozenset(row["item_id"] for row in each.rows("train_attempts") if row["correct"] and row["draw"] == 0)
            for each in past
        ]
    rationales = mixing.current(arm, versions=[each.rationales() for each in (*past, round_)], solved=solved)
    if not arm.student_correct or arm.twist == "blind":
        return rationales, []
    traces = mixing.own_traces(past[-1].rows("train_attempts"), work.items, measures=work.reader)
    seeds = work.seeds.child("mix", round_.number)
    return rationales, mixing.capped(traces, teachers=len(rationales), share=arm.student_correct, seeds=seeds)
