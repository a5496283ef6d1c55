"""What the rules of `signatures` read from the rows of metrics.jsonl, and what they make of their readings.

A reader gives the numbers of a row, or None where one of them is missing or not finite. A judge sees the first readings
of a run and its last ones, never fewer than one of each, and gives the number that is compared with the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

Reading = Mapping[str, float]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A number to compare with a threshold, and words about it for the sentence."""

    value: float
    about: str = ""


def _numbers(row: Row, part: str, *names: str) -> dict[str, float] | None:
    """The numbers of these names in a part of a row; None where one is missing or not finite."""
    inside = row.get(part)
    if not isinstance(inside, Mapping):
        return None
    found = {name: float(inside[name]) for name in names if _is_number(inside.get(name))}
    return found if len(found) == len(names) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def revised(row: Row) -> Reading | None:
    """Rows with a revision that the teacher's pass has seen."""
    return _numbers(row, "revision", "teacher_logp_before", "teacher_logp_after")


def harm(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """Median of log p(token) before minus after, p the teacher: above 0 where the revised part is liked less."""
    return Finding(value=median(each["teacher_logp_before"] - each["teacher_logp_after"] for each in last))


def target_only(row: Row) -> Reading | None:
    """Rows with a clip."""
    return _numbers(row, "measures", "token/only_target")


def collapse(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """Median of the share of tokens at which only the likeliest class is kept."""
    return Finding(value=median(each["token/only_target"] for each in last))


def clip(row: Row) -> Reading | None:
    """Rows with a clip, its bounds and what it keeps, and the share of references among what the step took."""
    found = _numbers(row, "measures", *_CLIP_WORDS)
    origin = _numbers(row, "origin", "reference") or {"reference": 0.0}
    return None if found is None else {**found, **origin}


_CLIP_WORDS = {"token/lower": "lower bound l", "token/upper": "upper bound u", "token/kept_mass": "kept mass Σ m·p"}


def swing(first: Sequence[Reading], last: Sequence[Reading]) -> Finding | None:
    """Of l, u and the kept mass, the one whose change between neighbouring readings has the largest median.

    References are neighbours of references only, and drawn responses of drawn ones: teachers are surer of the former.
    """
    kinds = [[each for each in last if (each["reference"] > 0.5) is is_reference] for is_reference in (True, False)]
    steps = [pair for kind in kinds for pair in pairwise(kind)]
    if not steps:
        return None
    swings = {name: median(abs(after[name] - before[name]) for before, after in steps) for name in _CLIP_WORDS}
    widest = max(swings, key=lambda name: swings[name])
    return Finding(value=swings[widest], about=_CLIP_WORDS[widest])


def span_share(row: Row) -> Reading | None:
    """Rows where the gradients of several terms were taken, the span term among them."""
    shares = row.get("gradient_shares")
    # A term that is alone has the whole gradient and dominates nothing.
    return _numbers(row, "gradient_shares", "span") if isinstance(shares, Mapping) and len(shares) > 1 else None


def domination(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """Median of the span term's share."""
    return Finding(value=median(each["span"] for each in last))


def pairs(row: Row) -> Reading | None:
    """Rows with responses of the student, whose references have pairs of tokens."""
    found = _numbers(row, "own", "distinct_2", "reference_distinct_2")
    return found if found and found["reference_distinct_2"] > 0 else None


def repetition(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """Median of distinct pairs in the student's responses / in the references."""
    return Finding(value=median(each["distinct_2"] / each["reference_distinct_2"] for each in last))


def lengths(row: Row) -> Reading | None:
    """Rows with responses of the student, and their lengths."""
    found = _numbers(row, "own", "tokens", "reference_tokens", "at_limit")
    return found if found and found["tokens"] > 0 and found["reference_tokens"] > 0 else None


def drift(first: Sequence[Reading], last: Sequence[Reading]) -> Finding | None:
    """How many times longer or shorter than at first; None where the references are no further away than then."""
    before, now = (median(each["tokens"] for each in part) for part in (first, last))
    then, here = (
        median(abs(math.log(each["tokens"] / each["reference_tokens"])) for each in part) for part in (first, last)
    )
    if here <= then:
        return None
    limited = median(each["at_limit"] for each in last)
    about = f"{before:.3g} tokens then, {now:.3g} now, {limited:.0%} of them cut at the limit"
    return Finding(value=max(now / before, before / now), about=about)


def mismatch(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """How many times longer or shorter than the references of the same rows."""
    ratio = median(each["tokens"] / each["reference_tokens"] for each in last)
    here, there, limited = (median(each[name] for each in last) for name in ("tokens", "reference_tokens", "at_limit"))
    about = f"{here:.3g} tokens, references {there:.3g}, {limited:.0%} of them cut at the limit"
    return Finding(value=max(ratio, 1 / ratio), about=about)


def entropies(row: Row) -> Reading | None:
    """Validations that read the teacher."""
    return _numbers({"row": row}, "row", "cross_entropy", "teacher_cross_entropy")


def lead(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """The student's cross-entropy above the teacher's."""
    now = last[-1]
    about = f"teacher {now['teacher_cross_entropy']:.3g}, student {now['cross_entropy']:.3g}"
    return Finding(value=median(each["cross_entropy"] - each["teacher_cross_entropy"] for each in last), about=about)


def age(row: Row) -> Reading | None:
    """Rows with replayed responses."""
    return _numbers(row, "replay", "age")


def staleness(first: Sequence[Reading], last: Sequence[Reading]) -> Finding:
    """Median of their age."""
    return Finding(value=median(each["age"] for each in last))


def counts(row: Row) -> Reading | None:
    """Steps, with what each term counted."""
    tokens = row.get("tokens")
    if not isinstance(tokens, Mapping):
        return None
    spans = {"span": row["spans"]} if "spans" in row else {}
    found = {str(name): float(count) for name, count in {**tokens, **spans}.items() if _is_number(count)}
    return found or None


def nothing(first: Sequence[Reading], last: Sequence[Reading]) -> Finding | None:
    """The terms that counted nothing in any of the readings; None where each did once."""
    empty = [name for name in last[-1] if all(each.get(name) == 0 for each in last)]
    return Finding(value=float(len(last)), about=" and ".join(sorted(empty))) if empty else None
