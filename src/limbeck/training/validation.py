"""Validation inside a run: the objective and the cross-entropy on held-out references, and ROUGE-L of drawn answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from limbeck.data.loader import batch
from limbeck.evaluation.answers import Answerer, Decoding
from limbeck.evaluation.rouge import RougeL
from limbeck.losses.fused import TEACHER_LOGP
from limbeck.losses.objective import Batch
from limbeck.losses.views import HiddenView
from limbeck.models.extending import evaluating
from limbeck.models.scoring import Scorer, scored_tokens, split_rows
from limbeck.models.teacher_cache import TeacherReader
from limbeck.records import EncodedRow, Example
from limbeck.spans.packing import SpanFinder
from limbeck.training.distiller import CROSS_ENTROPY, Distiller
from limbeck.training.spanning import pairs_of
from limbeck.training.swapping import tokens_of
from limbeck.training.world import World, idle_rows
from limbeck.types import Sequences

CORPUS = "validation"


@dataclass(frozen=True, kw_only=True)
class Validator:
    """The held-out rows and how they are answered. A validation pass is one step over its whole set.

    `micro_rows` may be smaller than the run's `first_micro_rows`; answers are then drawn in smaller groups too.
    """

    rows: Sequence[EncodedRow]
    examples: Sequence[Example]
    answerer: Answerer | None
    decoding: Decoding
    seed: int
    teacher: Scorer | TeacherReader | None
    micro_rows: int
    first_micro_rows: int
    finder: SpanFinder | None = None

    def run(self, distiller: Distiller, world: World) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The numbers of this validation, and the answers behind ROUGE-L as rows. Every rank must call it."""
        with evaluating(distiller.student):
            numbers = self._losses(distiller, world)
            answers = self._answers(world) if self.answerer is not None else []
        if answers:
            numbers["rouge_l"] = sum(row["scores"]["rouge_l"] for row in answers) / len(answers)
            numbers["answer_tokens"] = sum(row["num_tokens"] for row in answers) / len(answers)
            numbers["answers_stopped"] = sum(row["stopped"] for row in answers) / len(answers)
        return numbers, answers

    def _losses(self, distiller: Distiller, world: World) -> dict[str, Any]:
        items = [((CORPUS, row.id), row) for row in self.rows]
        whole = batch(items, pad_id=0)
        groups = split_rows(whole, self.micro_rows)
        own = [whole.rows(group) if group else idle_rows() for group in _share(groups, world)]
        terms = frozenset(distiller.objective.row_names)
        finder = self.finder
        batches = [
            Batch(sequences=part, terms=terms, pairs=None if finder is None else pairs_of(part, finder)) for part in own
        ]
        weights, _ = distiller.objective.weights(batches, total=world.sum)
        totals = {f"total/{name}": 0.0 for name in distiller.objective.row_names}
        entropy = teacher_logp = tokens = read = 0.0
        for part, weight in zip(batches, weights, strict=True):
            sums = _one_batch(distiller, part, weight, self.teacher, world.device)
            for name in totals:
                totals[name] += sums.get(name, 0.0)
            entropy += sums[f"total/{CROSS_ENTROPY}"]
            tokens += part.sequences.num_scored
            if f"measure/{TEACHER_LOGP}" in sums:
                teacher_logp += sums[f"measure/{TEACHER_LOGP}"]
                read += part.sequences.num_scored
        numbers = torch.tensor([*totals.values(), entropy, tokens, teacher_logp, read], dtype=torch.float64)
        *added, entropy, tokens, teacher_logp, read = world.sum(numbers).tolist()
        named = dict(zip(distiller.objective.row_names, added, strict=True))
        scales = distiller.objective.scales
        found = {
            "loss": sum(scales[name] * value for name, value in named.items()),
            "terms": named,
            "cross_entropy": entropy / tokens,
        }
        # A cache of drawn classes does not know what the teacher gives a token that was not drawn.
        is_known = bool(read) and math.isfinite(teacher_logp)
        return found | ({"teacher_cross_entropy": -teacher_logp / read} if is_known else {})

    def _answers(self, world: World) -> list[dict[str, Any]]:
        assert self.answerer is not None
        mine = list(self.examples)[world.rank :: world.size]
        group_rows = max(1, self.answerer.batch_rows * self.micro_rows // self.first_micro_rows)
        answerer = replace(self.answerer, batch_rows=group_rows)
        scorer = RougeL()
        rows: list[dict[str, Any]] = []
        with world.decoding(self.answerer.decoder):
            for group in answerer.answers(mine, corpus=CORPUS, seeds=[self.seed], decoding=self.decoding):
                for row in group:
                    row.scores["rouge_l"] = scorer.score(row.text, row.references)
                    rows.append(row.to_json())
        return sorted(world.gather(rows), key=lambda row: str(row["id"]))


def reference_loss(distiller: Distiller, rows: Sequence[EncodedRow], *, micro_rows: int, world: World) -> float:
    """Mean −log s(token) over the reference tokens of these rows, in nats; every rank must call it."""
    whole = batch([((CORPUS, row.id), row) for row in rows], pad_id=0)
    own = [whole.rows(group) if group else idle_rows() for group in _share(split_rows(whole, micro_rows), world)]
    entropy, tokens = 0.0, 0
    with evaluating(distiller.student):
        for sequences in own:
            part = Batch(sequences=sequences, terms=frozenset())
            entropy += _one_batch(distiller, part, {}, None, world.device)[f"total/{CROSS_ENTROPY}"]
            tokens += sequences.num_scored
    total_entropy, total_tokens = world.sum(torch.tensor([entropy, tokens], dtype=torch.float64)).tolist()
    return float(total_entropy / total_tokens)


def _share(groups: list[list[int]], world: World) -> list[list[int]]:
    """This rank's groups; each rank gets equally many (an empty one if need be), as a sharded forward wants."""
    each = -(-len(groups) // world.size)
    padded = groups + [[] for _ in range(each * world.size - len(groups))]
    return padded[world.rank :: world.size]


@torch.no_grad()
def _one_batch(
    distiller: Distiller,
    part: Batch,
    weight: dict[str, torch.Tensor],
    teacher: Scorer | TeacherReader | None,
    device: torch.device,
) -> dict[str, float]:
    sequences = part.sequences.to(device)
    moved = {name: value.to(device) for name, value in weight.items()}
    moved[CROSS_ENTROPY] = torch.ones(sequences.num_scored, device=device)
    pairs = None if part.pairs is None else part.pairs.to(device)
    views = teacher_views(distiller, part, teacher)
    if views:
        moved[TEACHER_LOGP] = torch.ones(sequences.num_scored, device=device)
    out = distiller(sequences, views, moved, pairs)
    return {name: float(value) for name, value in out.items()}


def teacher_views(distiller: Distiller, part: Batch, teacher: Scorer | TeacherReader | None) -> list[Any]:
    """The teacher's views of a batch, on the student's device; none where no term on it reads the teacher."""
    if teacher is None or not distiller.objective.needs_teacher(part):
        return []
    read = part.sequences if part.taught_by is None else part.taught_by
    if isinstance(teacher, TeacherReader):
        view = teacher.read(read)
    else:
        moved: Sequences = read.to(teacher.device)
        view = teacher.view(moved, scored_tokens(moved))
    if part.taught_by is None:
        return [view]
    # Recipes with other rows' targets and classes that an offline cache does not hold are refused.
    assert isinstance(view, HiddenView)
    return [view.taken(tokens_of(part.sequences, read=part.taught_by))]


def views_in_turn(
    distiller: Distiller,
    batches: Sequence[Batch],
    teacher: Scorer | TeacherReader | None,
    *,
    leaving: Scorer | None,
) -> Iterator[list[Any]]:
    """The views of each micro-batch when they are wanted; of all of them first where the teacher then is `leaving`."""
    wanted = (teacher_views(distiller, part, teacher) for part in batches)
    if leaving is None:
        return wanted
    found = list(wanted)
    leaving.presence.leave()
    return iter(found)
