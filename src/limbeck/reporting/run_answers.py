"""The eight answers of a page about runs, from the rows in their folders."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.reporting.comparing import Comparison
from limbeck.reporting.contest import Contest
from limbeck.reporting.questions import KeyAnswer, all_answered, of_each
from limbeck.reporting.reduce import Interval, mean_interval, paired_bootstrap
from limbeck.reporting.run_logs import RunLogs
from limbeck.reporting.tables import Number
from limbeck.reporting.telling import cost_of, drawn_share, kept_student, left_out, runner_up, watched

_ALIKE = ("models.student", "data.corpus", "train.steps", "train.epochs", "train.batch_rows", "train.seed")
# What plain fine-tuning does not read, with the value that counts as not set.
_UNREAD_BY_SFT = {
    "models.teacher": None,
    "models.teacher_dtype": "auto",
    "models.teacher_device": "auto",
    "data.plain_text": None,
    "watch.rows": 8,
    "cache.kind": "off",
    "cache.path": None,
}


def run_answers(logs: Sequence[RunLogs], contest: Contest | None, *, shown: Sequence[str]) -> tuple[KeyAnswer, ...]:
    """All eight, each leading to those of its sections that the page shows."""
    answers = (
        _best(logs, contest),
        _sft(logs, contest),
        KeyAnswer(
            about="checkpoint",
            says=of_each([(log.name, kept_of(log)) for log in logs]),
            see=("validation", "results"),
        ),
        KeyAnswer(about="rows", says=of_each([(log.name, left_out(log.counted)) for log in logs]), see=("rows",)),
        KeyAnswer(
            about="drawn",
            says=of_each([(log.name, drawn_share(log.steps)) for log in logs]),
            see=("training", "revision", "learned-from"),
        ),
        KeyAnswer(about="watch", says=of_each(_watched(logs)), see=("signatures", "training")),
        KeyAnswer(
            about="cost",
            says=of_each([(log.name, cost_of(log.steps, log.environment)) for log in logs]),
            see=("results", "time"),
        ),
        _repeat(logs),
    )
    return all_answered(answers, shown=shown)


def kept_of(log: RunLogs) -> str:
    """Which student of a run was kept, with the interval of its lead over the runner-up where rows tell it."""
    validations = log.of_kind("validation")
    second, behind = runner_up(validations), None
    if second is not None:
        scores = [log.validation_scores(int(row["step"])) for row in (log.best, second)]
        if scores[0] and scores[0].keys() == scores[1].keys():
            behind = paired_bootstrap(*scores, seed=0)
    told = kept_student(validations, last_step=log.last_step, behind=behind)
    return told if log.is_finished else f"so far, for the run is not finished: {told}"


def _watched(logs: Sequence[RunLogs]) -> list[tuple[str, str]]:
    return [
        (log.name, told)
        for log in logs
        for told in watched(log.of_kind("watch"), num_steps=log.last_step, thresholds=thresholds_of(log))
    ]


def thresholds_of(log: RunLogs) -> Mapping[str, Any] | None:
    """The thresholds of a run's failure signatures; None where its recipe has no such section."""
    section = log.setting("watch")
    return {key: value for key, value in section.items() if key not in ("every", "rows")} if section else None


def _best(logs: Sequence[RunLogs], contest: Contest | None) -> KeyAnswer:
    if len(logs) == 1:
        (log,) = logs
        score = _own_score(log)
        told = f"This page holds one run, {log.name} ({log.method}), so that no arm can be called the best.{score}"
        command = f"limbeck report {_path(log)} OTHER_RUN"
        return KeyAnswer(about="best", says=(told,), see=("results",), command=command)
    if contest is None:
        return KeyAnswer(about="best", says=_unranked(logs), see=("validation", "results"))
    first, second, *_ = contest.order
    lead = leads(contest.against(first)[second], second, num_compared=len(contest.scores) - 1)
    told = f"{first} has the highest {contest.what}: {_percent(mean_interval(contest.scores[first], seed=0))}. {lead}"
    out = [log.name for log in logs if log.name not in contest.scores]
    apart = (f"Not among them, for want of answers to the same examples: {', '.join(out)}.",) if out else ()
    return KeyAnswer(about="best", says=(told, *apart), see=(contest.see, contest.rows))


def leads(behind: Comparison, second: str, *, num_compared: int, what: str = "examples") -> str:
    """How far the first of a contest is before the second; `behind` is the second minus the first."""
    if behind.gap.low == behind.gap.high == 0:
        return f"It is level with {second} on each of the same {behind.gap.num_examples:,} {what}."
    return (
        f"It leads {second} by {mean_of(behind.gap, sign=-1)} on the same {behind.gap.num_examples:,} {what} (95 % "
        f"paired bootstrap; {p_value(behind, num_compared)}): "
        f"{'more than chance' if is_real(behind) else 'not told apart from chance'}."
    )


def _own_score(log: RunLogs) -> str:
    scores = log.validation_scores(int(log.best["step"])) if log.best else {}
    if scores:
        return f" Its kept student has ROUGE-L {_percent(mean_interval(scores, seed=0))} on the validation rows."
    if "cross_entropy" in log.best:
        return f" Its kept student has a cross-entropy of {log.best['cross_entropy']:.4f} nats on the validation rows."
    return ""


def _unranked(logs: Sequence[RunLogs]) -> tuple[str, ...]:
    names = " ".join(_path(log) for log in logs)
    how = f"Score them alike: for run in {names}; do limbeck evaluate $run --corpora CORPUS; done"
    why = "No two of these runs answered the same examples in the same way, so that none can be called the best."
    entropies = {log.name: log.best["cross_entropy"] for log in logs if "cross_entropy" in log.best}
    is_alike = len({str([log.setting("data"), log.setting("validate.rows")]) for log in logs}) == 1
    if len(entropies) == len(logs) and is_alike:
        order = sorted(entropies, key=lambda name: entropies[name])
        said = ", ".join(f"{name} {entropies[name]:.4f}" for name in order)
        why = (
            f"By cross-entropy on the validation references {order[0]} is lowest ({said} nats); that is one number a "
            "run, so that no interval can be given."
        )
    return (why, how)


def _sft(logs: Sequence[RunLogs], contest: Contest | None) -> KeyAnswer:
    fine_tuned = [log.name for log in logs if log.is_sft]
    if not fine_tuned:
        return _no_sft(logs[0])
    if len(fine_tuned) == len(logs):
        says = ("Every run here is SFT: there is no other method to hold against it.",)
        return KeyAnswer(about="sft", says=says, see=("results",))
    known = [name for name in fine_tuned if contest is not None and name in contest.scores]
    if contest is None or not known:
        says = ("The SFT run and the others did not answer the same examples; evaluate all of them on one corpus.",)
        return KeyAnswer(about="sft", says=says, see=("results",))
    base = max(known, key=contest.mean)
    by_name = {log.name: log for log in logs}
    compared = contest.against(base)
    told = [
        against_sft(each, base=base, num_compared=len(compared)) + _unlike(by_name[name], by_name[base])
        for name, each in compared.items()
        if name not in fine_tuned
    ]
    seeds = "One training seed a run: the intervals know the spread of examples, not of training."
    return KeyAnswer(about="sft", says=(*told, seeds), see=(contest.see, contest.rows))


def against_sft(comparison: Comparison, *, base: str, num_compared: int) -> str:
    """Whether an arm's difference from SFT is real, with its interval and the test's p."""
    verdict = real_or_not(comparison.gap, is_real=is_real(comparison))
    return f"{comparison.arm} − {base}: {mean_of(comparison.gap)} ({p_value(comparison, num_compared)}); {verdict}."


def real_or_not(gap: Interval, *, is_real: bool) -> str:
    """The verdict on a difference of which more is better.

    >>> real_or_not(Interval(mean=0.1, low=-0.1, high=0.3, num_examples=4), is_real=False)
    'not shown: it could be chance'
    """
    if not is_real:
        return "not shown: it could be chance"
    return "yes, it is better" if gap.mean > 0 else "yes, and it is worse"


def is_real(comparison: Comparison) -> bool:
    """Whether both the interval and the corrected test say that there is a difference."""
    return comparison.is_significant and comparison.gap.excludes_zero


def p_value(comparison: Comparison, num_compared: int) -> str:
    """The permutation test's p in words."""
    shown = f"p = {comparison.adjusted:.2g}"
    return f"{shown} after Holm over {num_compared} comparisons" if num_compared > 1 else shown


def mean_of(gap: Interval, *, sign: int = 1, scale: int | float = 100, digits: int = 1, unit: str = "points") -> str:
    """A difference with its interval; `sign` -1 turns it round.

    >>> mean_of(Interval(mean=-0.02, low=-0.03, high=0.01, num_examples=9), sign=-1)
    '+2.0 [-1.0, +3.0] points'
    """
    low, high = (gap.low, gap.high) if sign > 0 else (-gap.high, -gap.low)
    number = Number(value=sign * scale * gap.mean, low=scale * low, high=scale * high, digits=digits, signed=True)
    return f"{number.text()} {unit}"


def _percent(interval: Interval) -> str:
    return f"{Number.of(interval, scale=100).text()} %"


def _unlike(log: RunLogs, base: RunLogs) -> str:
    keys = [key for key in _ALIKE if log.setting(key) != base.setting(key)]
    return f" The two differ in {', '.join(keys)} too, which may be a part of it." if keys else ""


def _no_sft(log: RunLogs) -> KeyAnswer:
    none = "There is no SFT run here to hold it against, so that nothing says that distilling helped"
    if not log.setting("data.corpus"):
        says = (f"{none}: train one in Python on the same rows, with method.base=sft, and report both.",)
        return KeyAnswer(about="sft", says=says, see=("results",))
    overrides = ["method.base=sft"] + [
        f"{key}={'null' if value is None else value}"
        for key, value in _UNREAD_BY_SFT.items()
        if log.setting(key) not in (None, value)
    ]
    path, folder = _path(log), shlex.quote(f"{log.folder}-sft")
    recipe = shlex.quote(str(log.folder / "recipe.yaml"))
    return KeyAnswer(
        about="sft",
        says=(f"{none}: run it.",),
        see=("results",),
        command=f"limbeck train {recipe} {' '.join(overrides)} run={folder}\nlimbeck report {path} {folder}",
    )


def _repeat(logs: Sequence[RunLogs]) -> KeyAnswer:
    told, commands = [], []
    for log in logs:
        own = sorted(set(_own_parts(log.settings.get("method", {}))))
        if not log.setting("data.corpus"):
            told.append((log.name, "no command repeats it: its rows were handed over in Python; pass them again to "
                                   "limbeck.train(recipe, rows=...) with the recipe below."))  # fmt: skip
            continue
        if own:
            told.append((log.name, f"its parts {', '.join(own)} are your own, and are imported from a recipe that you "
                                   "wrote, never from a run's: give that one to limbeck train."))  # fmt: skip
            continue
        version = log.environment.get("versions", {}).get("limbeck")
        told.append((log.name, "bit for bit on the same machine, versions and thread count"
                               f"{f' (limbeck {version})' if version else ''}; the recipe is below."))  # fmt: skip
        recipe, run = shlex.quote(str(log.folder / "recipe.yaml")), shlex.quote(f"{log.folder}-again")
        commands.append(f"limbeck train {recipe} run={run}")
    return KeyAnswer(about="repeat", says=of_each(told), see=("repeat",), command="\n".join(commands))


def _own_parts(value: Any) -> list[str]:
    """The kinds of a method's parts that are written "module:Class"."""
    if not isinstance(value, Mapping):
        return []
    inner = [kind for each in value.values() for kind in _own_parts(each)]
    return [*([str(value["kind"])] if ":" in str(value.get("kind", "")) else []), *inner]


def _path(log: RunLogs) -> str:
    return shlex.quote(os.fspath(log.folder))
