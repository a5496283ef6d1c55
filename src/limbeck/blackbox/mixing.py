"""What a round learns from: this round's rationales, what earlier rounds leave, and the student's own right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.blackbox.acquiring import Measures
from limbeck.blackbox.hygiene import refused
from limbeck.blackbox.items import Item
from limbeck.blackbox.presets import Preset
from limbeck.seeds import Seeds

Rationale = Mapping[str, Any]


def current(
    arm: Preset, *, versions: Sequence[Mapping[str, Rationale]], solved: Sequence[frozenset[str]]
) -> list[tuple[Rationale, str]]:
    """The teacher's rationales of a round, each with "new", "carried" or "earlier".

    `versions` are the accepted rationales of each round by question, the newest last; `solved[k]` the questions that
    the student of round k answered right. "replace": this round's, and under carry the last one of every other
    question. "accumulate": all versions, equal texts once. "best_version": for each question the newest rationale after
    which the student answered it right, else the newest.

    >>> old, new = {"text": "a", "item_id": "1"}, {"text": "b", "item_id": "1"}
    >>> rounds = [{"1": old, "2": {"text": "c", "item_id": "2"}}, {"1": new}]
    >>> [row["text"] for row, _ in current(Preset(carry="none"), versions=rounds, solved=[frozenset()])]
    ['b']
    >>> [(row["text"], kind) for row, kind in current(Preset(), versions=rounds, solved=[frozenset()])]
    [('b', 'new'), ('c', 'carried')]
    """
    newest: dict[str, Rationale] = {}
    for version in versions:
        newest |= version
    last = versions[-1]
    if arm.policy == "accumulate":
        found: dict[tuple[str, str], tuple[Rationale, str]] = {}
        for version in versions:
            kind = "new" if version is last else "earlier"
            found |= {(id, str(row["text"])): (row, kind) for id, row in version.items()}
        return [found[key] for key in sorted(found)]
    if arm.policy == "best_version":
        chosen = {id: _best(id, versions, solved) or row for id, row in newest.items()}
        return [(row, "new" if last.get(id) is row else "earlier") for id, row in sorted(chosen.items())]
    fresh = [(row, "new") for _, row in sorted(last.items())]
    if arm.carry == "none":
        return fresh
    return [*fresh, *((row, "carried") for id, row in sorted(newest.items()) if id not in last)]


def own_traces(
    attempts: Sequence[Mapping[str, Any]], items: Mapping[str, Item], *, measures: Measures
) -> list[dict[str, Any]]:
    """The student's right answers that may be learned from, as rationales: the first clean one of each question."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(attempts, key=lambda row: (row["item_id"], row["draw"])):
        item, text = items[row["item_id"]], str(row["text"])
        if item.id in found or not row["strict"] or row["finish"] != "stop" or refused(item, text):
            continue
        length = measures.length(item, text)
        if length is not None:
            found[item.id] = {
                "id": row["id"],
                "item_id": item.id,
                "round": row["round"],
                "source": "student",
                "text": text,
                "num_tokens": length,
            }
    return list(found.values())


def capped(traces: Sequence[Rationale], *, teachers: int, share: float, seeds: Seeds) -> list[Rationale]:
    """At most `share` of all rows: n ≤ share·teachers / (1 − share), chosen by seed; all of them for a share of 1.

    >>> len(capped([{"id": str(i)} for i in range(9)], teachers=4, share=0.5, seeds=Seeds(0)))
    4
    """
    if share >= 1:
        return list(traces)
    most = int(share * teachers / (1 - share) + 1e-9)
    order = np.argsort(seeds.generator().random(len(traces))).tolist()
    return [traces[place] for place in sorted(order[:most])]


def training_rows(
    rationales: Sequence[tuple[Rationale, str]],
    traces: Sequence[Rationale],
    items: Mapping[str, Item],
    *,
    prompt_tokens: Mapping[str, int],
) -> list[dict[str, Any]]:
    """The rows of train.jsonl: a question and a text to learn, equal pairs once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row, kind in [*rationales, *((row, "student") for row in traces)]:
        id, text = str(row["item_id"]), str(row["text"])
        found.setdefault(
            (id, text),
            {
                "id": f"{id}#{row['id'][:8]}",
                "item_id": id,
                "prompt": items[id].asked(),
                "completion": text,
                "kind": kind,
                "rationale_id": row["id"],
                "prompt_tokens": prompt_tokens[id],
                "num_tokens": row["num_tokens"],
            },
        )
    return [found[key] for key in sorted(found)]


def _best(id: str, versions: Sequence[Mapping[str, Rationale]], solved: Sequence[frozenset[str]]) -> Rationale | None:
    for version, right in reversed(list(zip(versions, solved, strict=False))):
        if id in version and id in right:
            return version[id]
    return None
