"""What a run writes of its weights: checkpoints, the best student, and the rows of a step that went wrong."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from limbeck.errors import Stopped
from limbeck.models.saving import save_student
from limbeck.sequences.source import Item
from limbeck.training import checkpoint
from limbeck.training.rundir import RECIPE, RunDirectory
from limbeck.training.session import Session


def save_checkpoint(session: Session, directory: RunDirectory, *, position: Mapping[str, Any]) -> float:
    """Write a checkpoint and return the seconds it took; every rank must call it. Raises `Stopped` on a full disk."""
    started = time.monotonic()
    weights, moments = checkpoint.collect(session.distiller, session.optimizer)
    if session.world.is_main:
        state = {
            "position": dict(position),
            "logs": directory.sizes(),
            "source": dict(session.method.sequences.state()),
            "micro_rows": session.auto["micro_rows"],
        }
        folder = directory.path / "checkpoints"
        try:
            checkpoint.write(folder, step=int(position["step"]), weights=weights, optimizer=moments, state=state)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Stopped(
                f"no space left on the disk of {directory.path}; the last whole checkpoint is still there.\n"
                f"  make room, then: limbeck train {directory.path / RECIPE} --resume"
            ) from error
    session.world.barrier()
    return time.monotonic() - started


def save_best(session: Session, directory: RunDirectory) -> None:
    """Write the student as it is now as the run's student; every rank must call it."""
    weights = {name: checkpoint.whole(p) for name, p in session.distiller.student.named_parameters()}
    if session.world.is_main:
        with _holding(session.pair.student, weights, sharded=session.world.strategy == "fsdp") as student:
            save_student(
                student,
                session.pair.tokenizer,
                directory.student,
                dropped_ids=session.pair.vocabulary.dropped_student,
                stop_ids=session.pair.stop_ids,
                pad_id=session.pair.pad_id,
            )
    session.world.barrier()


def save_batch(session: Session, directory: RunDirectory, *, step: int, items: Sequence[Item]) -> str:
    """Save the rows of a step that went wrong, and say where, with what usually helps."""
    rows = session.rollouts.reference(items)
    path = directory.path / "failed" / f"step-{step:06d}-rank-{session.world.rank}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({"tokens": rows.tokens.contiguous(), "is_response": rows.is_response.contiguous()}, path)
    return (
        f"its rows are saved in {path}; the weights before it are in the last checkpoint.\n"
        "  A lower train.learning_rate, a train.warmup, or train.clip_norm usually helps."
    )


@contextmanager
def _holding(student: Any, weights: Mapping[str, Tensor], *, sharded: bool) -> Iterator[Any]:
    """The student with whole weights: itself, or, where it is sharded, a copy that holds the gathered ones."""
    if not sharded:
        yield student
        return
    from transformers import AutoModelForCausalLM

    copy = AutoModelForCausalLM.from_config(student.config, dtype=next(iter(weights.values())).dtype)
    copy.load_state_dict(dict(weights), strict=False)
    copy.tie_weights()
    yield copy
