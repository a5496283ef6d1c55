"""One optimizer step: draw, count, then backward micro-batch by micro-batch, then move the weights."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from limbeck.errors import NonFiniteLoss
from limbeck.losses.objective import Batch, Counts
from limbeck.models.extending import evaluating
from limbeck.models.scoring import split_rows
from limbeck.sequences.source import Item
from limbeck.training.optimizers import clipped_norm, learning_rate
from limbeck.training.session import Session
from limbeck.training.validation import teacher_views
from limbeck.training.watch import gradient_shares, is_watched
from limbeck.types import Sequences


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step's row for metrics.jsonl, and what was drawn, for samples."""

    row: dict[str, Any]
    drawn: Sequences


def take_items(session: Session, step: int, consumed: int) -> tuple[tuple[Item, ...], int]:
    """This rank's rows of a step, and how many rows all ranks take together."""
    wanted = session.method.sequences.prompts(step, batch_rows=session.recipe.train.batch_rows)
    items = session.loader.take(consumed, wanted)
    return items[session.world.rank :: session.world.size], wanted


def take_step(session: Session, step: int, *, items: tuple[Item, ...]) -> StepResult:
    """Draw the rows of this step, learn from them, and say what happened. Raises `NonFiniteLoss`, `NothingToLearn`."""
    started = time.perf_counter()
    seed_dropout(session, step)
    source = session.method.sequences
    with evaluating(session.distiller.student):
        drawn = source.draw(items, rollouts=session.rollouts, step=step)
    source.keep(drawn)
    drawn_at = time.perf_counter()
    batches = micro_batches(session, items=items, drawn=drawn)
    objective = session.distiller.objective
    weights, counts = objective.weights(batches, total=session.world.sum)
    session.optimizer.zero_grad(set_to_none=True)
    sums, norms = _backward(session, step, batches=batches, weights=weights)
    train = session.recipe.train
    rate = learning_rate(
        step,
        steps=session.steps,
        peak=train.learning_rate,
        schedule=train.schedule,
        warmup=_warmup_steps(train.warmup, session.steps),
        final=train.final_learning_rate,
    )
    terms = {name: sums[f"total/{name}"] for name in objective.terms}
    loss = sum(objective.scales[name] * value for name, value in terms.items())
    norm = clipped_norm(session.distiller.parameters(), clip_norm=train.clip_norm)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NonFiniteLoss(f"step {step}: the loss is {loss}, the norm of its gradient {norm}")
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    session.optimizer.step()
    ended = time.perf_counter()
    row = {
        "kind": "step",
        "step": step,
        "loss": loss,
        "terms": terms,
        "tokens": counts.tokens,
        "learning_rate": rate,
        "gradient_norm": norm,
        "origin": _origins(session, drawn),
        "response_tokens": _mean_length(session, drawn),
        "time": {"seconds": ended - started, "draw": drawn_at - started, "learn": ended - drawn_at},
    }
    if norms:
        row["gradient_shares"] = gradient_shares(norms)
    row["time"]["tokens_per_second"] = _most_tokens(counts) / (ended - started)
    return StepResult(row=row, drawn=drawn)


def micro_batches(session: Session, *, items: tuple[Item, ...], drawn: Sequences) -> list[Batch]:
    """The drawn rows in micro-batches with the terms taken on each; supervised rows beside them where they differ.

    Rows that are references carry the supervised term in the same forward; beside rows of another origin the same
    items' references make micro-batches of their own.
    """
    size = int(session.auto["micro_rows"])
    active = frozenset(session.distiller.objective.terms)
    is_reference = all(origin == "reference" for origin in drawn.origin)
    own_terms = active if is_reference else active - {"supervised"}
    batches = [Batch(sequences=drawn.rows(group), terms=own_terms) for group in split_rows(drawn, size)]
    if "supervised" in active and not is_reference:
        references = session.rollouts.reference(items)
        only = frozenset({"supervised"})
        batches += [Batch(sequences=references.rows(group), terms=only) for group in split_rows(references, size)]
    return batches


def _backward(
    session: Session, step: int, *, batches: list[Batch], weights: list[dict[str, torch.Tensor]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Sums of each term over all micro-batches and ranks, and the norms of their own gradients where watched."""
    world, distiller = session.world, session.distiller
    separate = is_watched(step, every=session.recipe.watch.every) and len(distiller.objective.terms) > 0
    sums = {f"total/{name}": 0.0 for name in distiller.objective.terms}
    squares = {f"norm/{name}": 0.0 for name in distiller.objective.terms}
    for place, (part, weight) in enumerate(zip(batches, weights, strict=True)):
        sequences = part.sequences.to(world.device)
        views = teacher_views(distiller, part, session.teacher)
        moved = {name: value.to(world.device) for name, value in weight.items()}
        with world.accumulate(session.wrapped, is_last=place == len(batches) - 1):
            out = session.wrapped(sequences, views, moved, separate_gradients=separate)
            # Wrappers average gradients over ranks; the weights were made for their sum.
            (out["loss"] * world.size).backward()
        for name in sums:
            sums[name] += float(out.get(name, 0.0))
        for name in squares:
            squares[name] += float(out.get(name, 0.0)) ** 2
    numbers = world.sum(torch.tensor([*sums.values(), *squares.values()], dtype=torch.float64)).tolist()
    totals = dict(zip(sums, numbers[: len(sums)], strict=True))
    norms = {
        name.removeprefix("norm/"): math.sqrt(value) for name, value in zip(squares, numbers[len(sums) :], strict=True)
    }
    return totals, norms if separate else {}


def seed_dropout(session: Session, step: int) -> None:
    """Dropout masks of this step; the only use of a global generator."""
    if session.recipe.models.dropout:
        torch.manual_seed(session.seeds.child("dropout", step, session.world.rank).integer())


def _warmup_steps(warmup: float, steps: int) -> int:
    return round(warmup * steps) if 0 < warmup < 1 else int(warmup)


def _origins(session: Session, drawn: Sequences) -> dict[str, float]:
    """The share of rows by who wrote the response, over all ranks."""
    counts = Counter(session.world.gather(list(drawn.origin)))
    return {name: count / sum(counts.values()) for name, count in sorted(counts.items())}


def _mean_length(session: Session, drawn: Sequences) -> float:
    lengths = session.world.gather(drawn.is_response.sum(dim=1).tolist())
    return sum(lengths) / max(1, len(lengths))


def _most_tokens(counts: Counts) -> int:
    return max(counts.tokens.values(), default=0)
