"""From assignments to rationales that may be learned from: ask, check, ask again, show a hint, give up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from limbeck.blackbox.artefacts import digest
from limbeck.blackbox.asking import Answer, Refusal
from limbeck.blackbox.feedback import attempt_id
from limbeck.blackbox.hygiene import refused, without_thoughts
from limbeck.blackbox.items import Item
from limbeck.blackbox.judging import judged
from limbeck.blackbox.sections import MethodSection
from limbeck.blackbox.writing import Assignment, RationaleTeacher

Likelihoods = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]]
"""How unlikely a student finds rationales, by id: −log p a token."""

_ONE_MORE = ("empty", "content_filter")
_NO_MORE = ("context", "rejected")


@runtime_checkable
class Measures(Protocol):
    """What tells the length of a rationale in the student's tokens."""

    def length(self, item: Item, text: str) -> int | None:
        """Tokens with the end of turn; None where they do not fit."""
        ...


@dataclass(kw_only=True)
class Acquired:
    """The accepted rationale of each question, every rejected one, and how many were asked for."""

    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def reasons(self) -> dict[str, int]:
        """How often each reason to reject came up."""
        return dict(sorted(Counter(row["reason"] for row in self.rejected).items()))


def acquire(
    teacher: RationaleTeacher,
    wanted: Sequence[Assignment],
    *,
    method: MethodSection,
    measures: Measures,
    longest: float | None = None,
    parents: Mapping[str, str] | None = None,
    evidence: Mapping[str, str] | None = None,
    unlikeliness: Likelihoods | None = None,
) -> Acquired:
    """Ask for a rationale of each assignment until one is accepted, or until the ways to ask are used up.

    Accepted: ended by itself, right, its answer said where an answer is said, clean (hygiene.py), and of at most
    `longest` tokens of the student's, all of which fit. An empty or filtered answer is asked for once more; one that
    was refused for its request is not. `parents` are the ids of the rationales that were rewritten. Of several accepted
    candidates `method.candidate` takes one; "student_likelihood" goes by `unlikeliness` (without it: the first).
    """
    found = Acquired()
    pending = list(wanted)
    refusals: Counter[str] = Counter()
    for sample, hint in _ways(method):
        asked = [
            replace(each, hint=hint, sample=sample * method.candidates + place)
            for each in pending
            if hint != "solution" or each.item.rationale
            for place in range(method.candidates)
        ]
        if not asked:
            continue
        answers = teacher.write(asked)
        found.asked += len(asked)
        rows: dict[str, list[dict[str, Any]]] = {}
        for assignment, answer in zip(asked, answers, strict=True):
            row = _row(assignment, answer, measures=measures, longest=longest)
            row |= {
                "parent_id": (parents or {}).get(assignment.item.id),
                "teacher": teacher.name,
                "prompts": str(getattr(teacher, "prompts_version", "")),
                "evidence": {"attempts": [attempt_id(each) for each in assignment.attempts], **(evidence or {})},
            }
            rows.setdefault(assignment.item.id, []).append(row)
        good = {id: [row for row in candidates if row["accepted"]] for id, candidates in rows.items()}
        found.accepted |= _chosen({id: accepted for id, accepted in good.items() if accepted}, method, unlikeliness)
        for id, candidates in rows.items():
            found.rejected += [row for row in candidates if not row["accepted"]]
            refusals.update(id for row in candidates if row["reason"] in _ONE_MORE)
        lost = {id for id, candidates in rows.items() if all(row["reason"] in _NO_MORE for row in candidates)}
        lost |= {id for id, count in refusals.items() if count > method.candidates}
        pending = [each for each in pending if each.item.id not in found.accepted and each.item.id not in lost]
    return found


def _ways(method: MethodSection) -> Iterator[tuple[int, str]]:
    """The number of each try and the hint that it shows."""
    for sample in range(method.retries + 1):
        is_shown = method.gold_visible == "always" or (method.gold_visible == "on_retry" and sample > 0)
        yield sample, "answer" if is_shown else "none"
    hints = {"off": (), "answer": ("answer",), "answer+solution": ("answer", "solution")}[method.hints]
    yield from enumerate(hints, start=method.retries + 1)


def _chosen(
    good: Mapping[str, Sequence[dict[str, Any]]], method: MethodSection, unlikeliness: Likelihoods | None
) -> dict[str, dict[str, Any]]:
    """One of the accepted candidates of each question; of equal ones the first."""
    if method.candidate == "shortest_correct":
        return {id: min(rows, key=lambda row: row["num_tokens"]) for id, rows in good.items()}
    if method.candidate == "student_likelihood" and unlikeliness is not None:
        several = [row for rows in good.values() if len(rows) > 1 for row in rows]
        found = unlikeliness(several) if several else {}
        for row in several:
            row["nll"] = found[row["id"]]
        return {id: min(rows, key=lambda row: row.get("nll", 0.0)) for id, rows in good.items()}
    return {id: rows[0] for id, rows in good.items()}


def _row(assignment: Assignment, answer: Answer, *, measures: Measures, longest: float | None) -> dict[str, Any]:
    item = assignment.item
    text = "" if isinstance(answer, Refusal) else without_thoughts(answer.text)
    row: dict[str, Any] = {
        "id": digest([item.id, assignment.round, assignment.sample, assignment.hint, text]),
        "item_id": item.id,
        "round": assignment.round,
        "source": "teacher",
        "text": text,
        "hint": assignment.hint,
        "sample": assignment.sample,
        "finish": "refused" if isinstance(answer, Refusal) else answer.finish,
        "num_tokens": 0,
        "extracted": "",
    }
    if isinstance(answer, Refusal):
        return row | {"accepted": False, "reason": answer.reason, "message": answer.message}
    verdict, _ = judged(item, text, finish=answer.finish)
    length = measures.length(item, text) if text else 0
    reason = (
        "empty"
        if not text
        else "truncated"
        if answer.finish != "stop"
        else "wrong"
        if not verdict.correct
        else "no_final"
        if not verdict.strict
        else refused(item, text, hint=assignment.hint)
        or ("too_long" if length is None else "longer_than_before" if longest and length > longest else "")
    )
    return row | {
        "num_tokens": length or 0,
        "extracted": verdict.extracted,
        "mode": verdict.mode,
        "accepted": not reason,
        "reason": reason,
    }
