"""Sequence-level correction and re-generation: the error is found, the teacher's token put there, the rest redrawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from limbeck.models.extending import extend_in_turn
from limbeck.revision.detectors import Detector, KLDArgmax, ranked_errors
from limbeck.revision.gathering import Viewer, gather_evidence, generated
from limbeck.seeds import RowNoise
from limbeck.sequences.source import Rollouts
from limbeck.types import Evidence, Sequences, pack_rows

_DRAWN = ("student", "revised")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correction:
    """One token of one row that was replaced, before everything behind it was drawn anew.

    The token stood at `position` of row `row`, which is place `response_place` (from 0) of a response that was then
    `response_length` tokens long. `kl` is KL(student‖teacher) there, in nats. Rounds count from 1.
    """

    row: int
    position: int
    response_place: int
    response_length: int
    drawn_token: int
    teacher_token: int
    kl: float
    round: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """Sums over the rows that were looked at, such that those of ranks and rounds add up.

    `rows` and `revised` count rows; `corrections` counts tokens that were replaced. `positions` are the generated
    tokens of every round, `mismatches` those of them that differ from the teacher's token, `kl` the sum of
    KL(student‖teacher) over them, in nats. `place` and `kl_corrected` are sums over the corrections: where in its
    response each stands (0 the first token, 1 the last), and the KL there.

    >>> one, other = Measures(rows=3, revised=1, positions=9, mismatches=2, kl=1.5), Measures(rows=1, positions=1)
    >>> (one + Measures.of(other.numbers())).row()
    {'revised_rows': 0.25, 'mismatches': 0.2, 'kl': 0.15}
    """

    rows: int = 0
    revised: int = 0
    corrections: int = 0
    positions: int = 0
    mismatches: int = 0
    kl: float = 0.0
    place: float = 0.0
    kl_corrected: float = 0.0

    def __add__(self, other: Measures) -> Measures:
        return Measures.of([a + b for a, b in zip(self.numbers(), other.numbers(), strict=True)])

    def numbers(self) -> list[float]:
        """The sums in the order of the fields: what is added over ranks."""
        return [float(number) for number in dataclasses.astuple(self)]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Measures:
        """The inverse of `numbers`."""
        parts = zip(dataclasses.asdict(cls()).items(), numbers, strict=True)
        return cls(**{name: type(nothing)(number) for (name, nothing), number in parts})

    def row(self) -> dict[str, float]:
        """Shares and means for metrics.jsonl.

            revised_rows  revised / rows          mismatches    mismatches / positions
            kl            mean over positions     kl_corrected  mean over corrections
            place         mean over corrections, in [0, 1]

        What has nothing to be a share of is left out.
        """
        found = {}
        if self.rows:
            found["revised_rows"] = self.revised / self.rows
        if self.positions:
            found |= {"mismatches": self.mismatches / self.positions, "kl": self.kl / self.positions}
        if self.corrections:
            found |= {"kl_corrected": self.kl_corrected / self.corrections, "place": self.place / self.corrections}
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revision:
    """The rows after revision, in the order they came in; what was corrected in them, round by round; and the sums.

    `evidence` is that of the first round, packed over the rows that were looked at, which `looked_at` names in that
    order; None where none was.
    """

    sequences: Sequences
    corrections: tuple[Correction, ...]
    measures: Measures
    evidence: Evidence | None = None
    looked_at: tuple[int, ...] = ()


@runtime_checkable
class Reviser(Protocol):
    """What is repaired in drawn rows before they are learned from."""

    def revise(self, drawn: Sequences, *, rollouts: Rollouts, student: Viewer, teacher: Viewer, chunk: int) -> Revision:
        """The rows with their errors corrected; `chunk` is how many tokens meet the heads at a time.

        It draws: the student is in evaluation mode, as for a source.
        """
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class SCRG:
    """Sequence correction and re-generation: the row's error token becomes the teacher's, and the student goes on.

        y^t_i ~ p(·|y_<i, x)                                 one draw a position; its argmax with `greedy`
        j = argmax { KL(q_i‖p_i) : y_i ≠ y^t_i }             Eq. 3, or what `detector` says
        y ← (y_1 … y_{j−1}, y^t_j, y_{j+1} ~ q_θ, …)         Eq. 4

    p teacher, q_θ student, nats at T = 1 (MGSR, arXiv 2407.10068, Eq. 3 and Eq. 4; Eq. 4 prints its prefixes with ≤,
    and < is read). The same draw decides whether a token differs and replaces it. Only generated tokens up to the
    first stop token count; a row without an eligible one is left alone; a stop token as correction ends the row, and
    is not put at the first place of a response; the row may become as long as its limit allowed before. Each of
    `rounds` looks at the whole row again, and never twice corrects one position of a row.

    >>> from limbeck.testing import ScriptedModel, peaked, scripted_rollouts
    >>> from limbeck.types import pack_rows
    >>> student = ScriptedModel(lambda prefix: peaked(prefix[-1], share=0.9, vocab_size=4), vocab_size=4)
    >>> says = {1: (0, 0.8), 2: (2, 0.95)}
    >>> teacher = ScriptedModel(lambda prefix: peaked(*says.get(len(prefix), (0, 0.9)), vocab_size=4), vocab_size=4)
    >>> drawn = pack_rows([[0, 1, 1, 1]], [[False, True, True, True]], origin=["student"], keys=[(0, 0)], pad_id=0)
    >>> rollouts = scripted_rollouts(student, max_new_tokens=4, temperature=0.0)
    >>> revision = SCRG(greedy=True).revise(drawn, rollouts=rollouts, student=student, teacher=teacher, chunk=8)
    >>> revision.corrections[0].position, revision.sequences.tokens.tolist(), revision.sequences.origin
    (2, [[0, 1, 2, 2, 2]], ('revised',))
    """

    detector: Detector = Field(default_factory=KLDArgmax)
    rounds: int = Field(default=1, ge=1)
    greedy: bool = False

    def revise(self, drawn: Sequences, *, rollouts: Rollouts, student: Viewer, teacher: Viewer, chunk: int) -> Revision:
        """The rows that the student drew, corrected; rows of another origin than "student" and "revised" untouched.

        A corrected row has origin "revised" and keeps everything before j bit for bit; where a row was corrected,
        `experience` is None. Noise: `seeds.child(purpose, round, *key)` for "teacher-token", "redraw" and "detector".

        Calls of each viewer = `rounds` × groups of `rollouts.group_rows` drawn rows, whatever the rows hold; calls of
        the decoder depend on the tokens. A student that is sharded over ranks takes both in any number on each rank.
        """
        looked_at = [row for row, origin in enumerate(drawn.origin) if origin in _DRAWN]
        sequences, corrections = drawn, list[Correction]()
        first: Evidence | None = None
        measures = Measures(rows=len(looked_at))
        for number in range(1, self.rounds + 1) if looked_at else ():
            part = sequences.rows(looked_at)
            evidence = gather_evidence(
                part,
                student=student,
                teacher=teacher,
                noise=None if self.greedy else _noise(rollouts, part, "teacher-token", number),
                stop_ids=rollouts.sampling.stop_ids,
                chunk=chunk,
                group_rows=rollouts.group_rows,
                device=rollouts.device,
                corrected=[{each.position for each in corrections if each.row == row} for row in looked_at],
                needs=self.detector.needs,
                detector_noise=_noise(rollouts, part, "detector", number),
            )
            first = evidence if first is None else first
            errors = ranked_errors(self.detector(evidence), evidence=evidence, most=1)
            found = [_correction(n, evidence, part, rows=looked_at, number=number) for (n,) in errors.values()]
            if found:
                sequences = _redrawn(sequences, found, rollouts=rollouts, number=number)
            corrections += found
            measures += _measures(part, evidence, found, stop_ids=rollouts.sampling.stop_ids)
        measures += Measures(revised=len({each.row for each in corrections}))
        return Revision(
            sequences=sequences,
            corrections=tuple(corrections),
            measures=measures,
            evidence=first,
            looked_at=tuple(looked_at),
        )


def _noise(rollouts: Rollouts, sequences: Sequences, purpose: str, number: int) -> RowNoise:
    return RowNoise([rollouts.seeds.child(purpose, number, *key) for key in sequences.keys])


def _correction(n: int, evidence: Evidence, part: Sequences, *, rows: Sequence[int], number: int) -> Correction:
    row, position = int(evidence.row[n]), int(evidence.position[n])
    begins = int(part.prompt_lengths[row])
    return Correction(
        row=rows[row],
        position=position,
        response_place=position - begins,
        response_length=int(part.lengths[row]) - begins,
        drawn_token=int(evidence.drawn_token[n]),
        teacher_token=int(evidence.teacher_token[n]),
        kl=float(evidence.kl_student_teacher[n]),
        round=number,
    )


def _measures(
    part: Sequences, evidence: Evidence, found: Sequence[Correction], *, stop_ids: frozenset[int]
) -> Measures:
    generated_N = generated(part, stop_ids=stop_ids)[evidence.row, evidence.position]
    differs_N = evidence.drawn_token != evidence.teacher_token
    return Measures(
        corrections=len(found),
        positions=int(generated_N.sum()),
        mismatches=int((generated_N & differs_N).sum()),
        kl=float(evidence.kl_student_teacher[generated_N].double().sum()),
        place=sum((each.response_place / max(1, each.response_length - 1) for each in found), 0.0),
        kl_corrected=sum((each.kl for each in found), 0.0),
    )


def _redrawn(sequences: Sequences, found: Sequence[Correction], *, rollouts: Rollouts, number: int) -> Sequences:
    """The rows with the teacher's token in each place, and what the student makes of it."""
    kept = sequences.to("cpu")
    lengths, limits = kept.lengths.tolist(), _limits(kept, rollouts)
    tokens = [row[:length] for row, length in zip(kept.tokens.tolist(), lengths, strict=True)]
    flags = [row[:length] for row, length in zip(kept.is_response.tolist(), lengths, strict=True)]
    origin = list(kept.origin)
    prefixes = pack_rows(
        [tokens[each.row][: each.position] for each in found],
        [flags[each.row][: each.position] for each in found],
        origin=["prefix"] * len(found),
        keys=[kept.keys[each.row] for each in found],
        pad_id=rollouts.pad_id,
        limits=[limits[each.row] for each in found],
    )
    part = prefixes.to(rollouts.device)
    drawn = extend_in_turn(
        rollouts.decoder,
        part,
        seats=rollouts.group_rows,
        start=part.lengths,
        limit=torch.tensor(part.limits),
        forced=torch.tensor([each.teacher_token for each in found]),
        rows=torch.ones(len(part), dtype=torch.bool),
        sampling=rollouts.sampling,
        noise=_noise(rollouts, part, "redraw", number),
        state=rollouts.state,
    ).sequences.to("cpu")
    for place, each in enumerate(found):
        length = int(drawn.lengths[place])
        tokens[each.row] = drawn.tokens[place, :length].tolist()
        flags[each.row] = drawn.is_response[place, :length].tolist()
        origin[each.row] = "revised"
    revised = pack_rows(tokens, flags, origin=origin, keys=kept.keys, pad_id=rollouts.pad_id, limits=sequences.limits)
    return revised.to(sequences.tokens.device)


def _limits(sequences: Sequences, rollouts: Rollouts) -> Sequence[int]:
    if sequences.limits is not None:
        return sequences.limits
    ends_B = (sequences.prompt_lengths + rollouts.max_new_tokens).clamp(max=rollouts.max_length)
    return [int(end) for end in ends_B]
