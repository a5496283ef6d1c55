"""When the loop ends, and which round it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.blackbox.sections import StopSection


@dataclass(frozen=True, kw_only=True)
class RoundScores:
    """What a round is judged by: 0 or 1 for each question of stop and of each ood task.

    `accepted` is the share of the questions asked for that got an accepted rationale; None where none was asked for.
    """

    stop: Mapping[str, float]
    ood: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accepted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether another round is taken, the best round so far, and why it ends where it does."""

    goes_on: bool
    best: int
    reason: str = ""


def decide(rounds: Sequence[RoundScores], *, stop: StopSection, most: int) -> Decision:
    """Judge the rounds so far; `most` is the number of rewriting rounds allowed.

    The best round has the highest accuracy on stop, the earliest of equals. The loop ends, in this order, after `most`
    rounds; where an ood task has lost more than `ood_errors` standard errors against the best round before; where less
    than `min_accepted` of what was asked for was accepted; and after `patience` rounds that each gained less than
    max(`min_gain`, one standard error) against the best round before them:

        gain = mean_i(d_i),  SE = s(d) / √n,  d_i = 1[right now] − 1[right then]

    over the same questions, s with n − 1. No round is promised to be better: gains are measured, never assumed.

    >>> flat = RoundScores(stop={"a": 0.0, "b": 1.0})
    >>> decide([flat, flat], stop=StopSection(), most=3).reason
    'no gain of 0.5 points or one standard error in 1 round'
    >>> worse = RoundScores(stop={"a": 0.0, "b": 0.0})
    >>> decide([flat, worse], stop=StopSection(), most=1).best
    0
    """
    best, stale = 0, 0
    reason = ""
    for place, scores in enumerate(rounds[1:], start=1):
        gain, error = paired(scores.stop, rounds[best].stop)
        stale = 0 if gain > 0 and gain >= max(stop.min_gain / 100, error) else stale + 1
        lost = [
            name
            for name, now in scores.ood.items()
            for loss, spread in [paired(now, rounds[best].ood[name])]
            if loss < 0 and -loss > stop.ood_errors * spread
        ]
        reason = f"{lost[0]} lost more than {stop.ood_errors:g} standard errors" if lost else ""
        if gain > 0:
            best = place
    if len(rounds) > most:
        return Decision(
            goes_on=False, best=best, reason=f"all {most} rounds are done" if most else "no round is asked for"
        )
    if reason:
        return Decision(goes_on=False, best=best, reason=reason)
    accepted = rounds[-1].accepted
    if accepted is not None and accepted < stop.min_accepted:
        message = f"only {accepted:.0%} of the rationales were accepted, less than {stop.min_accepted:.0%}"
        return Decision(goes_on=False, best=best, reason=message)
    if stale >= stop.patience:
        rounds_ = f"{stop.patience} round{'s' if stop.patience > 1 else ''}"
        return Decision(
            goes_on=False, best=best, reason=f"no gain of {stop.min_gain:g} points or one standard error in {rounds_}"
        )
    return Decision(goes_on=True, best=best)


def paired(now: Mapping[str, float], then: Mapping[str, float]) -> tuple[float, float]:
    """The mean difference over the same questions and its standard error; 0 for one question.

    >>> paired({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 1.0})
    (0.5, 0.5)
    """
    differences = [now[id] - then[id] for id in sorted(then)]
    mean = math.fsum(differences) / len(differences)
    if len(differences) < 2:
        return mean, 0.0
    spread = math.fsum((each - mean) ** 2 for each in differences) / (len(differences) - 1)
    return mean, math.sqrt(spread / len(differences))
