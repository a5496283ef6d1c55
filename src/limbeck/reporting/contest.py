"""Several runs on the same examples: what they can be ranked by, who leads, and by how much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from limbeck.reporting.comparing import Comparison, compare_arms
from limbeck.reporting.linking import slug
from limbeck.reporting.reduce import by_example, mean_over
from limbeck.reporting.run_logs import RunLogs

_RESULTS = "results"
_SAMPLING = ("sampling", "validate.seed", "data.max_prompt", "data.max_length", "data.template")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Scores by arm and example, higher is better, of the same examples for every arm; `what` they are, in words.

    `see` is the section that shows their means, `rows` the one with every example.
    """

    what: str
    see: str
    rows: str
    scores: Mapping[str, Mapping[tuple[str, str], float]]

    @property
    def order(self) -> tuple[str, ...]:
        """The arms from the best mean on; of equals the first."""
        return tuple(sorted(self.scores, key=lambda arm: -self.mean(arm)))

    @property
    def num_examples(self) -> int:
        """How many examples every arm has."""
        return len(next(iter(self.scores.values())))

    def mean(self, arm: str) -> float:
        """An arm's mean over the corpora's means."""
        return mean_over(self.scores[arm])

    def against(self, baseline: str) -> dict[str, Comparison]:
        """Every other arm minus this one, Holm's correction over all of them."""
        return {each.arm: each for each in compare_arms(self.scores, baseline=baseline)}


def find_contest(logs: Sequence[RunLogs]) -> Contest | None:
    """What most of these runs can be ranked by: an evaluation, or else their validation answers; None for nothing.

    Runs take part with answers to the same examples, drawn in the same way. Of two evaluations that are shared by
    equally many runs the one with more examples is taken.
    """
    found = [contest for contest in (*_evaluations(logs), *_validation(logs)) if len(contest.scores) > 1]
    return max(found, key=lambda each: (len(each.scores), each.see != _RESULTS, each.num_examples), default=None)


def _evaluations(logs: Sequence[RunLogs]) -> Iterator[Contest]:
    for kind in dict.fromkeys(kind for log in logs for kind in log.answers):
        scores = {log.name: by_example(log.answers[kind], score="rouge_l") for log in logs if kind in log.answers}
        shared = set.intersection(*(set(each) for each in scores.values()))
        first = next(log for log in logs if kind in log.answers)
        corpora = [
            corpus
            for corpus in scores[first.name]
            if corpus in shared
            and len({log.evaluations[kind].how.get(corpus) for log in logs if kind in log.answers}) == 1
            and len({frozenset(each[corpus]) for each in scores.values()}) == 1
        ]
        if corpora:
            names = ", ".join(corpora)
            yield Contest(
                what=f"ROUGE-L on {names} (evaluation: {kind})",
                see=f"evaluation-{slug(kind)}",
                rows=f"rows-{slug(kind)}",
                scores={name: by_place({corpus: each[corpus] for corpus in corpora}) for name, each in scores.items()},
            )


def by_place(by_corpus: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """(corpus, id) → score, of scores by corpus and id."""
    return {(corpus, id): value for corpus, values in by_corpus.items() for id, value in values.items()}


def _validation(logs: Sequence[RunLogs]) -> Iterator[Contest]:
    groups: dict[str, list[RunLogs]] = {}
    for log in logs:
        if log.validation_answers:
            rows = sorted((str(row["id"]), row["references"]) for row in log.validation_answers)
            how = json.dumps([rows, [log.setting(key) for key in _SAMPLING]], sort_keys=True)
            groups.setdefault(how, []).append(log)
    for group in groups.values():
        yield Contest(
            what="ROUGE-L on the validation rows, on which each run's student was chosen",
            see=_RESULTS,
            rows="scores",
            scores={
                log.name: by_place(
                    {"": {str(row["id"]): float(row["scores"]["rouge_l"]) for row in log.validation_answers}}
                )
                for log in group
            },
        )
