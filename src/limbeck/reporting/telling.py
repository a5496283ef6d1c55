"""What the rows of one run say, in sentences: the kept student, rows left out, what was drawn, signatures, cost.

A sentence begins small and is complete without its run's name, which the page puts before it where it shows several.
What was not recorded is said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.reporting.durations import duration
from limbeck.reporting.reduce import Interval

Row = Mapping[str, Any]

_WINDOW = 8
_METRICS = {"rouge-l": ("ROUGE-L", "rouge_l", "highest"), "loss": ("validation loss", "loss", "lowest")}
_OTHERS = {"replayed": "replayed from its earlier responses", "teacher": "the teacher's", "reference": "the corpus's"}


def metric_of(row: Row) -> str:
    """What a validation was judged by: "rouge-l" or "loss"."""
    return str(row.get("metric", "rouge-l" if "rouge_l" in row else "loss"))


def runner_up(validations: Sequence[Row]) -> Row | None:
    """The validation row that comes second to the kept one by its metric; None where there is no other."""
    best = next((row for row in reversed(validations) if row.get("is_best")), None)
    if best is None:
        return None
    _, key, better = _METRICS[metric_of(best)]
    others = [row for row in validations if row is not best and key in row and math.isfinite(row[key])]
    sign = -1 if better == "highest" else 1
    return min(others, key=lambda row: sign * row[key], default=None)


def kept_student(validations: Sequence[Row], *, last_step: int, behind: Interval | None = None) -> str:
    """Which student was kept and why; `behind`: the kept one minus the runner-up on the same rows.

    >>> rows = [{"step": 2, "loss": 1.5, "is_best": True}, {"step": 4, "loss": 1.25, "is_best": True}]
    >>> kept_student(rows, last_step=4)[:95]
    'the student of step 4 is kept: of 2 validations it has the lowest validation loss, 1.2500 nats;'
    """
    best = next((row for row in reversed(validations) if row.get("is_best")), None)
    if best is None:
        return (
            f"nothing was validated, so that the student of the last step, {last_step:,}, is kept; set validate.every, "
            "and the best one is."
        )
    title, key, better = _METRICS[metric_of(best)]
    value = _value(best, key)
    second = runner_up(validations)
    if second is None:
        return (
            f"the student of step {best['step']:,} is kept: it is the only one that was validated ({title} {value}), "
            "so that there is no runner-up."
        )
    gap = (
        f"{_points(behind)} behind on the same {behind.num_examples:,} rows (95 % paired bootstrap)"
        if behind is not None
        else "no interval is known, since a loss is one number over all rows"
    )
    return (
        f"the student of step {best['step']:,} is kept: of {len(validations)} validations it has the {better} {title}, "
        f"{value}; the runner-up is step {second['step']:,} with {_value(second, key)}, {gap}."
    )


def _value(row: Row, key: str) -> str:
    return f"{100 * row[key]:.1f} %" if key == "rouge_l" else f"{row[key]:.4f} nats"


def _points(gap: Interval) -> str:
    return f"{100 * gap.mean:.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}] points"


def left_out(counted: Mapping[str, Any]) -> str:
    """What happened to the rows before training, from rows.json.

    >>> counts = {"read": 9, "kept": 8, "dropped_prompts": 1, "cut_prompts": 0, "cut_responses": 0}
    >>> left_out({"max_prompt": 64, "max_length": 96, "train": counts})
    'of 9 training rows 1 was dropped, its prompt longer than data.max_prompt = 64 (data.long_prompt=cut keeps it).'
    """
    if "train" not in counted:
        return (
            "not recorded: the run has no rows.json, so it was begun by a version that only printed the counts; a run "
            "that is begun now has it."
        )
    parts = [_part(counted, "train", "training")]
    if counted.get("validation", {}).get("read"):
        parts.append(_part(counted, "validation", "validation"))
    return "; ".join(parts) + "."


def _part(counted: Mapping[str, Any], name: str, word: str) -> str:
    counts = counted[name]
    said = []
    if dropped := counts["dropped_prompts"]:
        was, its, them = ("was", "its prompt", "it") if dropped == 1 else ("were", "their prompts", "them")
        said.append(
            f"{dropped:,} {was} dropped, {its} longer than data.max_prompt = {counted.get('max_prompt', '?')} "
            f"(data.long_prompt=cut keeps {them})"
        )
    if prompts := counts["cut_prompts"]:
        said.append(f"{prompts:,} had the prompt cut to data.max_prompt = {counted.get('max_prompt', '?')}")
    if responses := counts["cut_responses"]:
        limit = counted.get("max_length", "?")
        said.append(f"{responses:,} had the response cut at data.max_length = {limit}, and teach no end of turn")
    whole = f"{counts['read']:,} {word} rows"
    return f"of {whole} {' and '.join(said)}" if said else f"none of {whole} was dropped or cut"


def drawn_share(steps: Sequence[Row]) -> str:
    """Who wrote the responses that were learned from, what was revised of them, and where.

    >>> row = {"origin": {"revised": 0.25, "student": 0.25, "reference": 0.5}, "revision": {"place": 0.5}}
    >>> drawn_share([row]).split(". ")[0]
    "50.0 % of the rows of 1 step were drawn by the student; the others are the corpus's (50.0 %)"
    """
    rows = [row for row in steps if row.get("origin")]
    if not rows:
        return "no step with rows was recorded, so that no share is known."
    share = {
        writer: math.fsum(row["origin"].get(writer, 0.0) for row in rows) / len(rows)
        for writer in ("student", "mixed", "revised", *_OTHERS)
    }
    drawn = share["student"] + share["mixed"] + share["revised"]
    others = [f"{what} ({_percent(share[writer])})" for writer, what in _OTHERS.items() if share[writer] > 0]
    counted = f"{_percent(drawn)} of the rows of {len(rows):,} step{'' if len(rows) == 1 else 's'}"
    said = f"{counted} were drawn by the student"
    said += f"; the others are {', '.join(others)}" if others else ""
    return f"{said}. {_revised(rows, drawn=drawn, revised=share['revised'])}"


def _revised(rows: Sequence[Row], *, drawn: float, revised: float) -> str:
    if revised <= 0:
        looked = any("revision" in row for row in rows)
        return "A revision looked and corrected none." if looked else "Nothing was revised."
    places = [
        (row["origin"].get("revised", 0.0), row["revision"]["place"])
        for row in rows
        if math.isfinite(row.get("revision", {}).get("place", math.nan))
    ]
    weight = math.fsum(each for each, _ in places)
    where = math.fsum(each * place for each, place in places) / weight if weight else math.nan
    at = f", on average at {where:.2f} of the response (0 its first token, 1 its last)" if math.isfinite(where) else ""
    return f"Revised were {_percent(revised)} of all rows, {_percent(revised / drawn)} of the drawn ones{at}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def watched(signs: Sequence[Row], *, num_steps: int, thresholds: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The failure signatures that showed, with what to do; `thresholds` of the rules, None where they are not known.

    >>> watched([], num_steps=4, thresholds={"repetition": None})[0]
    'no rule was on (all thresholds of watch are null), so that nothing is known; leave them at their defaults.'
    """
    if signs:
        return tuple(
            f"yes, after step {sign['step']:,}: {sign['name']}. {capital(str(sign['message']))}. {sign['advice']}"
            for sign in signs
        )
    if thresholds is None:
        return ("not known: nothing here says whether a rule was on; a run that is begun now records it.",)
    if all(value is None for value in thresholds.values()):
        return ("no rule was on (all thresholds of watch are null), so that nothing is known; leave them at their "
                "defaults.",)  # fmt: skip
    short = f"; most rules judge {_WINDOW} readings together, and there were fewer steps" if num_steps < _WINDOW else ""
    return (f"no failure signature showed in {num_steps:,} steps{short}.",)


def capital(sentence: str) -> str:
    """The sentence with a capital at its beginning.

    >>> capital("the clip")
    'The clip'
    """
    return sentence[:1].upper() + sentence[1:]


def learned_tokens(steps: Sequence[Row]) -> int:
    """Tokens that were learned from: of each step the largest of its terms' counts."""
    return sum(max(row.get("tokens", {}).values(), default=0) for row in steps)


def step_seconds(steps: Sequence[Row]) -> float:
    """Seconds that the steps took."""
    return math.fsum(row.get("time", {}).get("seconds", 0.0) for row in steps)


def cost_of(steps: Sequence[Row], environment: Mapping[str, Any]) -> str:
    """Time with what it went into, and tokens.

    >>> row = {"tokens": {"token": 30}, "time": {"seconds": 2.0, "draw": 0.5, "revise": 0.0, "learn": 1.5}}
    >>> cost_of([row], {"device": "cpu", "threads": 2})[:67]
    '1 step took 2 s (drawing 25 %, learning 75 %) on cpu with 2 threads'
    """
    seconds, tokens = step_seconds(steps), learned_tokens(steps)
    names = {"draw": "drawing", "revise": "revising", "learn": "learning"}
    split = {
        word: math.fsum(row.get("time", {}).get(name, 0.0) for row in steps) / seconds if seconds else 0.0
        for name, word in names.items()
    }
    parts = ", ".join(f"{word} {100 * part:.0f} %" for word, part in split.items() if part > 0)
    threads = environment.get("threads")
    where = f" on {environment['device']}" if "device" in environment else ""
    where += f" with {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    where += f" and {environment['ranks']} processes" if environment.get("ranks", 1) > 1 else ""
    took = f"{len(steps):,} step{'' if len(steps) == 1 else 's'} took {duration(seconds)}"
    return (
        f"{took}{f' ({parts})' if parts else ''}{where}; {tokens:,} response tokens were learned from. Loading, "
        "validating and saving are not in this time, and no call was paid for."
    )
