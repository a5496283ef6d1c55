"""One batch of responses with errors in them: what a detector says of each, and what correcting it brings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from limbeck.evaluation.rouge import RougeL
from limbeck.losses.fused import token_scores
from limbeck.losses.match import Likelihood
from limbeck.models.scoring import per_row, scored_tokens, split_rows
from limbeck.revision import SCRG, Detector, Viewer, ranked_errors, view_of
from limbeck.sequences.source import Rollouts
from limbeck.studies.injecting import Injection
from limbeck.types import Evidence, RowKey, Sequences, pack_rows

_GUESSES = 3


@dataclass(frozen=True, kw_only=True)
class Clean:
    """A response before an error is put into it: a corpus's reference, or what the student drew.

    `source` says which of the two it is; ids are tokens, and scores are taken against `references`.
    """

    source: str
    id: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    references: tuple[str, ...]

    @property
    def key(self) -> RowKey:
        """The row that noise belongs to."""
        return (self.source, self.id)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A response with one error in it, and the one that it was made from."""

    clean: Clean
    injection: Injection

    @property
    def key(self) -> RowKey:
        """The row that noise belongs to: every detector meets the same draws."""
        return (*self.clean.key, self.injection.kind)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The two models that errors are shown to, and what is needed to read, draw on and score.

    `decode` makes text of a response's ids. `chunk` tokens meet the heads at a time. With `greedy` the teacher's token
    is its most probable one, else one seeded draw, as in `SCRG`.
    """

    student: Viewer
    teacher: Viewer
    rollouts: Rollouts
    chunk: int
    decode: Callable[[Sequence[int]], str]
    greedy: bool = False

    def packed(self, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], keys: Sequence[RowKey]) -> Sequences:
        """Prompts and responses as rows that stand for the student's own, to be drawn on to the usual length."""
        limits = [
            max(len(prompt) + len(said), min(len(prompt) + self.rollouts.max_new_tokens, self.rollouts.max_length))
            for prompt, said in rows
        ]
        return pack_rows(
            [[*prompt, *said] for prompt, said in rows],
            [[False] * len(prompt) + [True] * len(said) for prompt, said in rows],
            origin=["student"] * len(rows),
            keys=keys,
            pad_id=self.rollouts.pad_id,
            limits=limits,
        )

    def scores(self, sequences: Sequences, cleans: Sequence[Clean]) -> list[dict[str, float]]:
        """What the teacher thinks of each response, and how close it is to the references of the one it comes from."""
        rouge, logp = RougeL(), self.teacher_logp(sequences)
        texts = [
            self.decode(row[flags].tolist()) for row, flags in zip(sequences.tokens, sequences.is_response, strict=True)
        ]
        return [
            {"teacher_logp": mean, "rouge_l": rouge.score(text, clean.references)}
            for mean, text, clean in zip(logp, texts, cleans, strict=True)
        ]

    @torch.no_grad()
    def teacher_logp(self, sequences: Sequences) -> list[float]:
        """The teacher's mean log-probability of each row's response tokens, in nats; NaN for a row without any."""
        means = [math.nan] * len(sequences)
        for group in split_rows(sequences, self.rollouts.group_rows):
            part = sequences.rows(group).to(self.rollouts.device)
            where, view = scored_tokens(part), view_of(self.teacher, part)
            tokens_N = where.tokens.to(view.hidden.device)
            walk = token_scores(view.hidden, head=view.head, tokens_N=tokens_N, views=[], chunk=self.chunk)
            losses_N = torch.cat([torch.zeros(0), *(Likelihood()(scores).float().cpu() for scores in walk)])
            totals_B, counts_B = per_row(losses_N, scored_tokens(part.to("cpu")), rows=len(part))
            for row, total, count in zip(group, totals_B.tolist(), counts_B.tolist(), strict=True):
                means[row] = -total / count if count else math.nan
        return means


def judged(cases: Sequence[Case], *, detectors: Mapping[str, Detector], bench: Bench) -> list[dict[str, Any]]:
    """One row for each case and detector, without any text: where the error is, where it was looked for, and scores.

    `guesses`: places of the response, the detector's first three. `right`: the first is the first wrong token;
    `among_three`: one of them is; `inside`: the first is one of the error's tokens. `distance`: tokens from the first
    guess to the first wrong one; None without a guess. `eligible`: the first wrong token differs from the teacher's,
    without which no detector may name it. `teacher_logp` (nats a token) and `rouge_l` (in [0, 1]) are those of the
    clean response, of the one with the error, and of that after the first guess was corrected and the rest drawn anew.
    """
    if not cases:
        return []
    cleans = {case.clean.key: case.clean for case in cases}
    packed = bench.packed([(each.prompt, each.response) for each in cleans.values()], list(cleans))
    clean = dict(zip(cleans, bench.scores(packed, list(cleans.values())), strict=True))
    written = [case.clean for case in cases]
    sequences = bench.packed(
        [(case.clean.prompt, case.injection.tokens) for case in cases], [case.key for case in cases]
    )
    spoilt = bench.scores(sequences, written)
    found = []
    for name, detector in detectors.items():
        reviser = SCRG(detector=detector, greedy=bench.greedy)
        revision = reviser.revise(
            sequences, rollouts=bench.rollouts, student=bench.student, teacher=bench.teacher, chunk=bench.chunk
        )
        assert revision.evidence is not None, "every row stands for a drawn one"
        corrected, lengths = bench.scores(revision.sequences, written), revision.sequences.is_response.sum(dim=1)
        ranked = ranked_errors(detector(revision.evidence), evidence=revision.evidence, most=_GUESSES)
        for row, case in enumerate(cases):
            places = _places(ranked.get(row, []), case, evidence=revision.evidence)
            found.append(
                {
                    "measure": "injected",
                    "id": case.clean.id,
                    "source": case.clean.source,
                    "kind": case.injection.kind,
                    "detector": name,
                    "place": case.injection.place,
                    "end": case.injection.end,
                    "tokens": len(case.injection.tokens),
                    **_verdict(places, case, evidence=revision.evidence, row=row),
                    "corrected_tokens": int(lengths[row]),
                    "scores": {"clean": clean[case.clean.key], "injected": spoilt[row], "corrected": corrected[row]},
                }
            )
    return found


def _places(entries: Sequence[int], case: Case, *, evidence: Evidence) -> list[int]:
    return [int(evidence.position[n]) - len(case.clean.prompt) for n in entries]


def _verdict(places: Sequence[int], case: Case, *, evidence: Evidence, row: int) -> dict[str, Any]:
    """What the guesses are worth."""
    place, end = case.injection.place, case.injection.end
    is_place = (evidence.row == row) & (evidence.position == len(case.clean.prompt) + place)
    first = places[0] if places else None
    return {
        "eligible": bool((is_place & evidence.eligible).any()),
        "guesses": list(places),
        "right": first == place,
        "inside": first is not None and place <= first < end,
        "among_three": place in places,
        "distance": None if first is None else abs(first - place),
    }
