"""The eight answers of a quickstart's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.reporting.durations import duration
from limbeck.reporting.questions import KeyAnswer, all_answered, of_each
from limbeck.reporting.reduce import Interval, mean_interval, paired_bootstrap
from limbeck.reporting.run_answers import kept_of, mean_of, thresholds_of
from limbeck.reporting.run_logs import RunLogs
from limbeck.reporting.tables import Number
from limbeck.reporting.telling import drawn_share, learned_tokens, left_out, watched
from limbeck.studies.scoring_arms import ScoredArm

WARM_START = "warm start"
_KL = ("references", "kl_teacher_student")


def first_answers(
    scored: Mapping[str, ScoredArm],
    logs: Sequence[RunLogs],
    *,
    verdicts: Sequence[str],
    seconds: float,
    command: str,
    shown: Sequence[str],
) -> tuple[KeyAnswer, ...]:
    """All eight; `logs` of every run, the warm start's too; `verdicts`: what may be said of a method against SFT."""
    arms = [log for log in logs if log.name != WARM_START]
    says = tuple(verdicts) or ("No method was trained beside SFT: nothing is held against it.",)
    answers = (
        KeyAnswer(about="best", says=_best(scored, [log.name for log in arms]), see=("scores", "every-row")),
        KeyAnswer(about="sft", says=says, see=("scores", "every-row")),
        KeyAnswer(about="checkpoint", says=of_each([(log.name, kept_of(log)) for log in arms]), see=("training",)),
        KeyAnswer(about="rows", says=of_each([(log.name, left_out(log.counted)) for log in logs]), see=("rows",)),
        KeyAnswer(
            about="drawn",
            says=of_each([(log.name, drawn_share(log.steps)) for log in arms]),
            see=("training", "revision"),
        ),
        KeyAnswer(about="watch", says=of_each(_signs(logs)), see=("training", "revision")),
        KeyAnswer(about="cost", says=(_cost(logs, seconds),), see=("scores",)),
        KeyAnswer(
            about="repeat",
            says=("In a new folder, --out DIR, all is done again; in this one only what is missing.",),
            see=("repeat",),
            command=command,
        ),
    )
    return all_answered(answers, shown=shown)


def _best(scored: Mapping[str, ScoredArm], arms: Sequence[str]) -> tuple[str, ...]:
    """The arm nearest to the teacher on the references, and how far the next one is."""
    values = {arm: scored[arm].values(*_KL) for arm in arms}
    spreads = {arm: mean_interval(values[arm], seed=0) for arm in arms}
    order = sorted(arms, key=lambda arm: spreads[arm].mean)
    first = order[0]
    nearest = f"{first} is nearest to the teacher on the references: {_nats(spreads[first])} of KL(teacher‖student)"
    if len(order) < 2:
        return (f"{nearest}; it is the only arm.",)
    gap = paired_bootstrap(values[order[1]], values[first], seed=0)
    lead = mean_of(gap, scale=1, digits=3, unit="nats a token")
    verdict = "the interval excludes 0" if gap.excludes_zero else "which could be chance"
    rouge = {arm: scored[arm].values("answers", "rouge_l") for arm in arms}
    highest = max(arms, key=lambda arm: mean_interval(rouge[arm], seed=0, draws=100).mean)
    others = [arm for arm in arms if arm != highest]
    second = max(others, key=lambda arm: mean_interval(rouge[arm], seed=0, draws=100).mean)
    ahead = paired_bootstrap(rouge[highest], rouge[second], seed=0)
    told = "the interval excludes 0" if ahead.excludes_zero else "which could be chance"
    return (
        f"{nearest}, {lead} less than {order[1]} on the same {gap.num_examples:,} rows (95 % paired bootstrap): "
        f"{verdict}.",
        f"By ROUGE-L of its answers {highest} is highest, {mean_of(ahead)} above {second}: {told}.",
    )


def _nats(interval: Interval) -> str:
    return f"{Number.of(interval, digits=3).text()} nats a token"


def _signs(logs: Sequence[RunLogs]) -> list[tuple[str, str]]:
    return [
        (log.name, told)
        for log in logs
        for told in watched(log.of_kind("watch"), num_steps=log.last_step, thresholds=thresholds_of(log))
    ]


def _cost(logs: Sequence[RunLogs], seconds: float) -> str:
    tokens = sum(learned_tokens(log.steps) for log in logs)
    threads = logs[0].environment.get("threads") if logs else None
    where = f" on {logs[0].environment.get('device', '?')} with {threads} threads" if threads else ""
    return (
        f"This call took {duration(seconds)}{where}, scoring included; {len(logs)} runs learned from {tokens:,} "
        "response tokens. No call was paid for."
    )
