"""Out of memory: what may be repeated is repeated with half the rows at once, and that is recorded with its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from limbeck.errors import LimbeckError, Stopped
from limbeck.models.room import is_out_of_memory
from limbeck.training.rundir import RunDirectory
from limbeck.training.session import Session, with_micro_rows
from limbeck.training.step import StepResult, move_weights
from limbeck.training.stopping import how_to_resume

T = TypeVar("T")


class MemoryGuard:
    """Runs the parts of a step. On resume the recorded halvings come back at the steps that they happened at."""

    def __init__(self, session: Session, directory: RunDirectory, *, note: Callable[[str], None]) -> None:
        self._session = session
        self._directory = directory
        self._note = note
        # What `auto` became at the start; the session's own copy goes on changing with every halving.
        self._first = dict(session.auto)

    def record(self) -> None:
        """Write what `auto` became, and the halvings, into the run's folder."""
        self._directory.write_auto({**self._first, "halvings": self._session.auto["halvings"]})

    def take(self, step: int, during: Literal["step", "validation", "check"], action: Callable[[], T]) -> T:
        """Do something that changes no weights; as often as memory runs out, halve the micro-batch and do it again.

        Raises `Stopped` on several ranks, which would have to halve together, and `LimbeckError` at one row.
        """
        session = self._session
        for halving in session.auto["halvings"]:
            is_here = (halving["step"], halving["during"]) == (step, during)
            if is_here and halving["micro_rows"] < session.auto["micro_rows"]:
                with_micro_rows(session, int(halving["micro_rows"]))
        cache = session.cache
        mark = 0 if cache is None else cache.mark()
        while True:
            try:
                return action()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._check_may_halve(step, error)
            session.optimizer.zero_grad(set_to_none=True)
            session.rest_teacher()
            if cache is not None:
                cache.back_to(mark)
            if session.world.device.type == "cuda":
                torch.cuda.empty_cache()
            rows = int(session.auto["micro_rows"]) // 2
            halving = {"step": step, "during": during, "micro_rows": rows}
            session.auto["halvings"] = [*session.auto["halvings"], halving]
            self.record()
            with_micro_rows(session, rows)
            self._note(f"out of memory at step {step}: micro-batches of {rows} rows from here on")

    def move(self, result: StepResult) -> StepResult:
        """The weights move, once. Raises `Stopped` if memory runs out: some of them may have moved then."""
        try:
            return move_weights(self._session, result)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise Stopped(
                f"out of memory while the optimizer moved the weights of step {result.row['step']}; smaller batches do "
                "not help there.\n  Start a new run with models.lora, or free memory and go on from the last "
                "checkpoint:\n"
                f"  {how_to_resume(self._directory.path)}"
            ) from error

    def _check_may_halve(self, step: int, error: BaseException) -> None:
        world, rows = self._session.world, int(self._session.auto["micro_rows"])
        if world.size > 1:
            raise Stopped(
                f"out of memory at step {step} on rank {world.rank}; the run goes on from its last checkpoint.\n"
                f"  Start a new run with a smaller train.micro_rows (now {rows})."
            ) from error
        if rows == 1:
            raise LimbeckError(
                f"out of memory at step {step} with one row at a time.\n"
                "  Lower data.max_length or sampling.max_new_tokens, set models.gradient_checkpointing=true, train\n"
                "  with models.lora, or take a smaller model or a larger machine."
            ) from error
