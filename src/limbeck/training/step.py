"""One optimizer step: draw, count, then backward micro-batch by micro-batch, then move the weights."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from limbeck.errors import NonFiniteLoss
from limbeck.losses.fused import TEACHER_LOGP
from limbeck.losses.match import MeasuringTerm
from limbeck.losses.objective import Batch, Counts
from limbeck.models.extending import evaluating
from limbeck.models.prefixes import DrawState
from limbeck.models.scoring import Scorer
from limbeck.models.teacher_cache import TeacherReader
from limbeck.models.teacher_memory import TeacherMemory
from limbeck.revision.correcting import Correction, Revision
from limbeck.revision.gathering import Viewer
from limbeck.sequences.building import Exchanging, Telling
from limbeck.sequences.source import Item, Rollouts
from limbeck.training.batching import micro_batches, text_items
from limbeck.training.collecting import collected
from limbeck.training.measuring import (
    first_corrections,
    own_responses,
    redrawn_tokens,
    revision_row,
)
from limbeck.training.optimizers import clipped_norm, learning_rate
from limbeck.training.session import Session
from limbeck.training.validation import views_in_turn
from limbeck.training.watch import gradient_shares, is_watched
from limbeck.types import RowKey, Sequences


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step's row for metrics.jsonl, what was learned from, for samples, and what the source is to remember.

    `kept` is what was drawn and revised, or a whole collection; `drawn` is the same unless the source gave other rows
    in exchange, or a portion of its collection.
    """

    row: dict[str, Any]
    drawn: Sequences
    kept: Sequences
    corrections: tuple[Correction, ...] = ()


class Diverged(NonFiniteLoss):
    """A step whose loss or gradient is not finite, with the rows that it was taken on."""

    def __init__(self, message: str, *, drawn: Sequences) -> None:
        super().__init__(message)
        self.drawn = drawn


def take_items(session: Session, step: int, consumed: int) -> tuple[tuple[Item, ...], int]:
    """This rank's rows of a step, and how many rows all ranks take together."""
    wanted = session.source.prompts(step, batch_rows=session.recipe.train.batch_rows, seeds=session.seeds)
    items = session.loader.take(consumed, wanted)
    return items[session.world.rank :: session.world.size], wanted


def take_step(session: Session, step: int, *, items: tuple[Item, ...]) -> StepResult:
    """Draw the rows of this step and take the gradient; the weights stay, so that the step may be taken again.

    Raises `Diverged` and `NothingToLearn`.
    """
    started = time.perf_counter()
    with evaluating(session.distiller.student), session.world.decoding(session.rollouts.decoder):
        rollouts, memory = with_state(session), memory_of(session)
        drawn = session.source.draw(items, rollouts=rollouts, step=step)
        drawn_at = time.perf_counter()
        written = drawn
        revision = revise(session, drawn, rollouts=rollouts, teacher=memory)
        drawn = drawn if revision is None else revision.sequences
    # The prefixes that it keeps would stay beside the activations.
    del rollouts
    session.rest_teacher()
    learned = _learned(session, drawn, step=step)
    drawn = learned.rows
    revised_at = time.perf_counter()
    own = own_responses(written, items=items, stop_ids=session.rollouts.sampling.stop_ids, total=session.world.sum)
    batches = micro_batches(session, items=items, drawn=drawn, texts=text_items(session, step))
    objective = session.distiller.objective
    weights, counts = objective.weights(batches, total=session.world.sum)
    session.optimizer.zero_grad(set_to_none=True)
    begins = first_corrections(revision)
    reader = memory if memory is not None and len(memory) else session.reader
    sums, norms = _backward(session, step, batches=batches, weights=weights, begins=begins, reader=reader)
    terms = {name: sums[f"total/{name}"] for name in objective.names}
    loss = sum(objective.scales[name] * value for name, value in terms.items())
    limit = session.recipe.train.clip_norm
    norm = clipped_norm(session.distiller.student.parameters(), clip_norm=limit)
    # Apart, so that a clip network cannot shorten the student's step.
    own_norm = clipped_norm(session.distiller.terms.parameters(), clip_norm=limit)
    if not (math.isfinite(loss) and math.isfinite(norm) and math.isfinite(own_norm)):
        raise Diverged(f"step {step}: the loss is {loss}, the norm of its gradient {norm}", drawn=drawn)
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {
        "kind": "step",
        "step": step,
        "loss": loss,
        "terms": terms,
        "tokens": {name: counts.tokens[name] for name in objective.terms},
        "learning_rate": _rate(session, step),
        "gradient_norm": norm,
        "origin": _origins(session, drawn),
        "response_tokens": _mean_length(session, drawn),
        "time": {
            "seconds": seconds,
            "draw": drawn_at - started,
            "revise": revised_at - drawn_at,
            "learn": seconds - (revised_at - started),
            "tokens_per_second": _most_tokens(counts) / seconds,
        },
    }
    if objective.pair_terms:
        row["spans"] = sum(counts.tokens[name] for name in objective.pair_terms)
    measures = {name.removeprefix("measure/"): value for name, value in sums.items() if name.startswith("measure/")}
    row |= {"measures": measures, "terms_gradient_norm": own_norm} if measures else {}
    row |= {"own": own} if own else {}
    after = (sums["redrawn/logp"], sums["redrawn/tokens"])
    row |= revision_row(revision, begins=begins, after=after, total=session.world.sum)
    row |= learned.told
    if norms:
        row["gradient_shares"] = gradient_shares(norms)
    corrections = revision.corrections if revision is not None and drawn is learned.kept else ()
    return StepResult(row=row, drawn=drawn, kept=learned.kept, corrections=corrections)


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """The rows that a step learns from, those that the source is to remember, and what the step's row says of both."""

    rows: Sequences
    kept: Sequences
    told: dict[str, Any]


def _learned(session: Session, drawn: Sequences, *, step: int) -> _Learned:
    """A portion of the collection, other rows in exchange, or what was drawn. Outside `decoding`, on every rank."""
    collection = collected(session, drawn, step=step)
    if collection is not None:
        return _Learned(rows=collection.portion, kept=collection.whole, told={"collection": collection.row})
    source, seeds = session.source, session.seeds
    rows = source.exchanged(drawn, step=step, seeds=seeds) if isinstance(source, Exchanging) else drawn
    told = {"replay": dict(source.told(step, seeds=seeds))} if isinstance(source, Telling) else {}
    return _Learned(rows=rows, kept=drawn, told=told)


def with_state(session: Session) -> Rollouts:
    """What to draw with until the weights move: it keeps the drawn rows' prefixes if the method draws on from them."""
    is_revised = session.method.revision is not None
    return replace(session.rollouts, state=DrawState()) if is_revised else session.rollouts


def memory_of(session: Session) -> TeacherMemory | None:
    """What keeps the teacher's findings from detection for this step's learning; None where a cache keeps drawn rows.

    A cache computes again what a kill has lost, in the groups that it was read in: it has to read rows itself.
    """
    teacher, cache = session.teacher, session.cache
    if session.method.revision is None or teacher is None or not teacher.split:
        return None
    return TeacherMemory(teacher) if cache is None or not cache.keeps_passing else None


def revise(session: Session, drawn: Sequences, *, rollouts: Rollouts, teacher: Viewer | None = None) -> Revision | None:
    """The drawn rows after the method's revision; None where it has none. Inside `decoding`, on every rank.

    `teacher` reads the rows in place of the run's own where it is given.
    """
    reviser = session.method.revision
    teacher = session.teacher if teacher is None else teacher
    if reviser is None or teacher is None:
        return None
    student, chunk = session.rollouts.decoder, int(session.auto["chunk"])
    assert isinstance(student, Viewer), "the decoder of a run reads whole rows too"
    return reviser.revise(drawn, rollouts=rollouts, student=student, teacher=teacher, chunk=chunk)


def move_weights(session: Session, result: StepResult) -> StepResult:
    """Let the optimizer use the gradient of `take_step`, and the source remember its rows; the row with the time added.

    It comes after everything that may be repeated: a second call would move the weights twice.
    """
    started = time.perf_counter()
    for group in session.optimizer.param_groups:
        group["lr"] = result.row["learning_rate"] * group["rate"]
    session.optimizer.step()
    session.source.keep(result.kept, step=result.row["step"], seeds=session.seeds)
    spent = time.perf_counter() - started
    before = result.row["time"]
    seconds = before["seconds"] + spent
    taken = {
        **before,
        "seconds": seconds,
        "learn": before["learn"] + spent,
        "tokens_per_second": before["tokens_per_second"] * before["seconds"] / seconds,
    }
    return replace(result, row={**result.row, "time": taken})


def _backward(
    session: Session,
    step: int,
    *,
    batches: list[Batch],
    weights: list[dict[str, torch.Tensor]],
    begins: Mapping[RowKey, int],
    reader: Scorer | TeacherReader | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Sums of each term over all micro-batches and ranks, and the norms of their own gradients where watched.

    Among the sums, of the tokens that corrections brought in (`begins`, by row key): `redrawn/logp`, the teacher's
    log-probability, and `redrawn/tokens`, their number. The teacher's pass of the terms says both, where it reads them.
    """
    world, distiller = session.world, session.distiller
    objective = distiller.objective
    separate = is_watched(step, every=session.recipe.watch.every)
    sums = {f"total/{name}": 0.0 for name in objective.names}
    for name, term in objective.terms.items():
        sums |= {f"measure/{name}/{key}": 0.0 for key in (term.measures if isinstance(term, MeasuringTerm) else ())}
    sums |= {"redrawn/logp": 0.0, "redrawn/tokens": 0.0}
    squares = {f"norm/{name}": 0.0 for name in objective.names}
    leaving = None if session.pair.teacher_home is None else session.teacher
    views_of = views_in_turn(distiller, batches, reader, leaving=leaving)
    for place, (part, weight) in enumerate(zip(batches, weights, strict=True)):
        seed_dropout(session, step, micro=place)
        sequences = part.sequences.to(world.device)
        views = next(views_of)
        tells = views and begins and part.taught_by is None
        redrawn_N = redrawn_tokens(part.sequences, begins) if tells else torch.zeros(0)
        if redrawn_N.any():
            weight = {**weight, TEACHER_LOGP: redrawn_N}
            sums["redrawn/tokens"] += float(redrawn_N.sum())
        moved = {name: value.to(world.device) for name, value in weight.items()}
        with world.accumulate(session.wrapped, is_last=place == len(batches) - 1):
            pairs = None if part.pairs is None else part.pairs.to(world.device)
            out = session.wrapped(sequences, views, moved, pairs, separate_gradients=separate)
            # Wrappers average gradients over ranks; the weights were made for their sum.
            (out["loss"] * world.size).backward()
        for name in sums:
            sums[name] += float(out.get(name, 0.0))
        sums["redrawn/logp"] += float(out.get(f"measure/{TEACHER_LOGP}", 0.0))
        for name in squares:
            squares[name] += float(out.get(name, 0.0)) ** 2
    numbers = world.sum(torch.tensor([*sums.values(), *squares.values()], dtype=torch.float64)).tolist()
    totals = dict(zip(sums, numbers[: len(sums)], strict=True))
    norms = {
        name.removeprefix("norm/"): math.sqrt(value) for name, value in zip(squares, numbers[len(sums) :], strict=True)
    }
    return totals, norms if separate else {}


def seed_dropout(session: Session, step: int, *, micro: int) -> None:
    """The dropout masks of a micro-batch; the only use of a global generator."""
    lora = session.recipe.models.lora
    if session.recipe.models.dropout or (lora is not None and lora.dropout > 0):
        torch.manual_seed(session.seeds.child("dropout", step, micro, session.world.rank).integer())


def _rate(session: Session, step: int) -> float:
    train = session.recipe.train
    return learning_rate(
        step,
        steps=session.steps,
        peak=train.learning_rate,
        schedule=train.schedule,
        warmup=_warmup_steps(train.warmup, session.steps),
        final=train.final_learning_rate,
    )


def _warmup_steps(warmup: int | float, steps: int) -> int:
    return round(warmup * steps) if 0 < warmup < 1 else int(warmup)


def _origins(session: Session, drawn: Sequences) -> dict[str, float]:
    """The share of rows by who wrote the response, over all ranks."""
    counts = Counter(session.world.gather(list(drawn.origin)))
    return {name: count / sum(counts.values()) for name, count in sorted(counts.items())}


def _mean_length(session: Session, drawn: Sequences) -> float:
    lengths = session.world.gather(drawn.is_response.sum(dim=1).tolist())
    return float(sum(lengths)) / max(1, len(lengths))


def _most_tokens(counts: Counts) -> int:
    return max(counts.tokens.values(), default=0)
