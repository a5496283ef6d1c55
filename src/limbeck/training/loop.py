"""The loop: the only caller of sources, revision, objective and Distiller, and never called back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from limbeck.config import Recipe, resumable_difference
from limbeck.errors import CheckpointError, NonFiniteLoss, Stopped
from limbeck.training import checkpoint
from limbeck.training.keeping import save_batch, save_best, save_checkpoint
from limbeck.training.progress import Progress
from limbeck.training.rundir import METRICS, RECIPE, SAMPLES, Run, RunDirectory, environment
from limbeck.training.session import Session, open_session, with_micro_rows
from limbeck.training.step import StepResult, take_items, take_step
from limbeck.training.world import World


@dataclass
class Position:
    """Where a run is; everything of it goes into a checkpoint."""

    step: int = 0
    consumed: int = 0
    best: float | None = None
    best_step: int | None = None
    without_improvement: int = 0
    finished: bool = False

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Clock:
    """When the next checkpoint is due: every so many minutes, or twenty times what the last write took."""

    minutes: float
    cost: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        return time.monotonic() - self.last >= max(60 * self.minutes, 20 * self.cost)

    def wrote(self, seconds: float) -> None:
        self.cost, self.last = seconds, time.monotonic()


def train(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *overrides: str,
    rows: Iterable[Mapping[str, Any]] | None = None,
    resume: bool = False,
) -> Run:
    """Distil as the recipe says; returns the run, whose directory explains itself.

    `overrides` are dotted settings ("train.steps=100"). `rows`, where given, take the place of `data.corpus`. With
    `resume` a stopped run goes on, and ends with the weights it would have had: bit for bit, on the same machine and
    thread count. Raises `ConfigError`, `DataError` and their kin before anything is written; `Stopped` after Ctrl-C,
    with the run resumable; `NonFiniteLoss` with the offending batch saved; `CheckpointError` for a foreign or corrupt
    run directory.
    """
    settings = Recipe.load(recipe, list(overrides))
    path = Path(settings.run)
    recorded: dict[str, Any] = {}
    if resume:
        directory = RunDirectory.existing(path)
        _check_resumable(directory, settings)
        recorded = directory.auto()
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        RunDirectory.create(path, recipe="", environment={})
    world = World.start(device=settings.models.device, strategy=settings.train.strategy)
    session = open_session(settings, world=world, rows=rows, recorded=recorded)
    if not resume and world.is_main:
        RunDirectory.create(
            path,
            recipe=settings.dump(),
            environment=environment(device=str(world.device), ranks=world.size, threads=torch.get_num_threads()),
        )
    world.barrier()
    directory = RunDirectory.existing(path)
    return _Loop(session, directory).run(resume=resume)


def _check_resumable(directory: RunDirectory, settings: Recipe) -> None:
    different = resumable_difference(Recipe.recorded(directory.path), settings)
    if different:
        raise CheckpointError(
            f"{directory.path} is the run of another recipe; it differs in:\n  "
            + "\n  ".join(different)
            + "\n  On resume only length, validation and logging may change. Take another directory: run=runs/NAME"
        )


class _Loop:
    def __init__(self, session: Session, directory: RunDirectory) -> None:
        self.session = session
        self.directory = directory
        self.position = Position()
        self.progress = Progress(steps=session.steps, is_main=session.world.is_main)
        self.clock = Clock(minutes=session.recipe.train.checkpoint_minutes)
        self.stop_requested = False

    def run(self, *, resume: bool) -> Run:
        for note in self.session.notes:
            self.progress.note(note)
        if resume:
            self._restore()
        elif self.session.world.is_main:
            self.directory.write_auto(self.session.auto)
        with self._watching_signals():
            while self._goes_on():
                self._one_step()
                if self.session.world.any(self.stop_requested):
                    self._save()
                    raise Stopped(
                        f"stopped after step {self.position.step} of {self.session.steps}; everything is saved.\n"
                        f"  go on with: limbeck train {self.directory.path / RECIPE} --resume"
                    )
        self._finish()
        return Run(self.directory.path)

    def _goes_on(self) -> bool:
        patience = self.session.recipe.train.stop_after
        if patience is not None and self.position.without_improvement >= patience:
            self.progress.note(f"stopping early: {patience} validations without improvement")
            return False
        return self.position.step < self.session.steps

    def _one_step(self) -> None:
        session, position = self.session, self.position
        step = position.step + 1
        self._apply_recorded_halving(step)
        items, wanted = take_items(session, step, position.consumed)
        try:
            result = self._with_memory(step, lambda: take_step(session, step, items=items))
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{error}\n  {save_batch(session, self.directory, step=step, items=items)}") from error
        position.step, position.consumed = step, position.consumed + wanted
        if session.world.is_main:
            self.directory.append(METRICS, {**result.row, "epoch": position.consumed / session.loader.rows_per_epoch})
            self._sample(step, result)
        self.progress.step(result.row)
        validated = self._validates_at(step)
        if validated:
            self._validate()
        if validated or session.world.any(self.clock.is_due()):
            self._save()

    def _with_memory(self, step: int, take: Callable[[], StepResult]) -> StepResult:
        """Take the step; if memory runs out, halve the micro-batch, take it again, and record that."""
        session = self.session
        while True:
            try:
                return take()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rows = int(session.auto["micro_rows"])
                if session.world.size > 1:
                    raise Stopped(
                        f"out of memory at step {step} on rank {session.world.rank}; the run goes on from its last "
                        f"checkpoint.\n  Start a new run with a smaller train.micro_rows (now {rows})."
                    ) from error
                if rows == 1:
                    raise
            session.optimizer.zero_grad(set_to_none=True)
            session.auto["halvings"] = [*session.auto["halvings"], {"step": step, "micro_rows": rows // 2}]
            self.directory.write_auto({**self.directory.auto(), "halvings": session.auto["halvings"]})
            with_micro_rows(session, rows // 2)
            self.progress.note(f"out of memory at step {step}: micro-batches of {rows // 2} rows from here on")

    def _apply_recorded_halving(self, step: int) -> None:
        for halving in self.session.auto["halvings"]:
            if halving["step"] == step and halving["micro_rows"] < self.session.auto["micro_rows"]:
                with_micro_rows(self.session, int(halving["micro_rows"]))

    def _validates_at(self, step: int) -> bool:
        every = self.session.recipe.validate.every
        if self.session.validator is None or every is None:
            return False
        period = int(self.session.auto["steps_per_epoch"]) if every == "epoch" else int(every)
        return step % period == 0 or step == self.session.steps

    def _validate(self) -> None:
        session, position = self.session, self.position
        assert session.validator is not None
        numbers, answers = session.validator.run(session.distiller, session.world)
        session.method.sequences.observe(numbers["cross_entropy"])
        metric = session.recipe.validate.metric
        score = numbers["rouge_l"] if metric == "rouge-l" else -numbers["loss"]
        is_best = position.best is None or score > position.best
        position.without_improvement = 0 if is_best else position.without_improvement + 1
        if is_best:
            position.best, position.best_step = score, position.step
            save_best(self.session, self.directory)
        row = {"kind": "validation", "step": position.step, **numbers, "metric": metric, "is_best": is_best}
        if session.world.is_main:
            name = f"validation/step-{position.step:06d}.jsonl"
            self.directory.write_text(name, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in answers))
            self.directory.append(METRICS, row)
        self.progress.validation(row)

    def _save(self) -> None:
        self.clock.wrote(save_checkpoint(self.session, self.directory, position=self.position.to_json()))

    def _restore(self) -> None:
        session = self.session
        found = checkpoint.latest(self.directory.path / "checkpoints")
        if found is None:
            if session.world.is_main:
                self.directory.cut_back(dict.fromkeys(self.directory.sizes(), 0))
                self.directory.write_auto(session.auto)
            self.progress.note("no checkpoint yet; the run starts at its first step")
            return
        checkpoint.install(session.distiller, session.optimizer, found)
        self.position = Position(**{**found.state["position"], "finished": False})
        session.method.sequences.restore(found.state["source"])
        with_micro_rows(session, int(found.state["micro_rows"]))
        if session.world.is_main:
            self.directory.cut_back(found.state["logs"])
            self.directory.write_auto(session.auto)
        session.world.barrier()
        self.progress.note(f"going on after step {self.position.step} of {session.steps}")

    def _finish(self) -> None:
        if self.position.best_step is None:
            save_best(self.session, self.directory)
        self.position.finished = True
        self._save()
        if self.session.world.is_main:
            checkpoint.keep(self.directory.path / "checkpoints", last=1)
        self.progress.note(f"done: the student is in {self.directory.student}")

    def _sample(self, step: int, result: StepResult) -> None:
        """One row, now and then, as text: what the step learned from."""
        if step & (step - 1) and step % self.session.recipe.watch.every:
            return
        drawn, encoder = result.drawn, self.session.encoder
        tokens, response = drawn.tokens[0], drawn.is_response[0]
        row = {
            "step": step,
            "origin": drawn.origin[0],
            "key": list(drawn.keys[0]),
            "prompt": encoder.decode(tokens[: int(drawn.prompt_lengths[0])].tolist()),
            "response": encoder.decode(tokens[response].tolist()),
        }
        self.directory.append(SAMPLES, row)

    @contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM finish the step; a second Ctrl-C stops at once."""

        def request(number: int, frame: FrameType | None) -> None:
            if self.stop_requested:
                raise KeyboardInterrupt
            self.stop_requested = True
            self.progress.note("stopping after this step (once more: stop at once)")

        try:
            before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            # Only the main thread may set handlers; elsewhere signals are somebody else's business.
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in the CPU's allocator."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in text
        or "can't allocate" in text
    )
