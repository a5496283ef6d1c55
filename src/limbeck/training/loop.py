"""The loop: the only caller of sources, revision, objective and Distiller, and never called back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.config.sections import THRESHOLDS
from limbeck.errors import FailureSignature, NonFiniteLoss, Stopped
from limbeck.models.pieces import TokenTexts
from limbeck.sequences.building import Observing
from limbeck.training import checkpoint
from limbeck.training.caching import let_go, restore_cache
from limbeck.training.keeping import save_batch, save_best, save_checkpoint
from limbeck.training.looking import observed_loss, sample_row, token_rows
from limbeck.training.memory import MemoryGuard
from limbeck.training.paging import write_run_page
from limbeck.training.position import Clock, Position
from limbeck.training.progress import Progress
from limbeck.training.repeatable import repeatable
from limbeck.training.resuming import check_same, described_environment, recorded_settings
from limbeck.training.rundir import (
    FINISHED,
    METRICS,
    RECIPE,
    SAMPLES,
    TOKENS,
    Run,
    RunDirectory,
    check_free,
    environment_changes,
)
from limbeck.training.session import Session, open_session, with_micro_rows
from limbeck.training.spanning import learned_state
from limbeck.training.step import Diverged, StepResult, take_items, take_step
from limbeck.training.stopping import StopRequest, full_disk_stops, how_to_resume, interruption_stops, past_a_signature
from limbeck.training.tracking import Tracker
from limbeck.training.watch import Sign, Watch
from limbeck.training.world import World, lost_rank_stops


def train(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *overrides: str,
    rows: Iterable[Mapping[str, Any]] | None = None,
    resume: bool = False,
    strict: bool = False,
) -> Run:
    """Distil as the recipe says; returns the run, whose directory explains itself.

    `overrides` are dotted settings ("train.steps=100"). `rows`, where given, take the place of `data.corpus`. With
    `resume` a stopped run goes on, and ends with the weights it would have had: bit for bit, on the same machine and
    thread count, on a CUDA device unless `train.deterministic` is false. With `strict` the first failure signature
    (docs/watching.md) that the run was not warned of before ends it after the step. Raises `ConfigError`, `DataError`
    and their kin before anything is written; `Stopped` after Ctrl-C and `FailureSignature` under `strict`, with the run
    resumable; `NonFiniteLoss` with the offending batch saved; `CheckpointError` for a foreign or corrupt run directory.
    """
    settings = Recipe.load(recipe, list(overrides))
    path = Path(settings.run)
    if not resume:
        check_free(path)
    with interruption_stops(path):
        return _trained(settings, path, rows=rows, resume=resume, strict=strict)


def _trained(
    settings: Recipe, path: Path, *, rows: Iterable[Mapping[str, Any]] | None, resume: bool, strict: bool
) -> Run:
    recorded = recorded_settings(path, settings) if resume else {}
    # Before the models: a corrupt checkpoint should not cost the minutes that they take.
    found = checkpoint.latest(path / "checkpoints") if resume else None
    world = World.start(device=settings.models.device, strategy=settings.train.strategy)
    resumed = RunDirectory.existing(path) if resume else None
    with repeatable(world.device, wanted=settings.train.deterministic):
        session = open_session(settings, world=world, rows=rows, recorded=recorded, resumed=resumed)
        with full_disk_stops(path), lost_rank_stops(path):
            if not resume and world.is_main:
                learned = learned_state(session.finder)
                described = described_environment(world, settings)
                RunDirectory.create(
                    path, recipe=settings.dump(), environment=described, extractor=learned, rows=session.counted
                )
            world.barrier()
            with RunDirectory.existing(path).alone(is_main=world.is_main) as directory:
                return _Loop(session, directory, strict=strict).run(resume=resume, found=found)


class _Loop:
    def __init__(self, session: Session, directory: RunDirectory, *, strict: bool) -> None:
        self.session = session
        self.directory = directory
        self.position = Position()
        self.progress = Progress(steps=session.steps, is_main=session.world.is_main)
        self.clock = Clock(minutes=session.recipe.train.checkpoint_minutes)
        self.stop = StopRequest(self.progress.note)
        self.saved_step: int | None = None
        self.texts = TokenTexts(session.pair.tokenizer)
        self.memory = MemoryGuard(session, directory, note=self.progress.note)
        self.watch = Watch({key: getattr(session.recipe.watch, key) for key in THRESHOLDS})
        self.tracker = Tracker(session.recipe, directory, is_main=session.world.is_main)
        self.strict = strict
        self.signs: list[Sign] = []

    def run(self, *, resume: bool, found: checkpoint.Checkpoint | None) -> Run:
        """All steps that are left, from the start or from `found`."""
        for note in self.session.notes:
            self.progress.note(note)
        if resume:
            self._restore(found)
        elif self.session.world.is_main:
            self.memory.record()
        with self.tracker, self.stop.watching():
            if self.position.step == 0:
                self._observe()
            while self._goes_on():
                self._one_step()
                if self.strict and self.session.world.any(bool(self.signs)):
                    self._save()
                    self._page()
                    step = f"after step {self.position.step} of {self.session.steps}"
                    raise FailureSignature(past_a_signature(self.directory.path, self.signs, where=step))
                if self.session.world.any(self.stop.is_set):
                    self._save()
                    raise Stopped(
                        f"stopped after step {self.position.step} of {self.session.steps}; everything is saved.\n"
                        f"  go on with: {how_to_resume(self.directory.path)}"
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
        items, wanted = take_items(session, step, position.consumed)
        try:
            result = self.memory.take(step, "step", lambda: take_step(session, step, items=items))
        except Diverged as error:
            saved = save_batch(session, self.directory, step=step, drawn=error.drawn)
            raise NonFiniteLoss(f"{error}\n  {saved}") from error
        result = self.memory.move(result)
        let_go(session.cache, session.source)
        position.step, position.consumed = step, position.consumed + wanted
        self._log({**result.row, "epoch": position.consumed / session.loader.rows_per_epoch})
        if session.world.is_main:
            self._sample(step, result)
        self.progress.step(result.row)
        self._observe()
        self._look(result.row)
        validated = self._validates_at(step)
        if validated:
            self._validate()
        if validated or session.world.any(self.clock.is_due()):
            self._save()

    def _observe(self) -> None:
        """What the source asks of the validation rows; before a checkpoint, so that no look is taken twice."""
        session, step = self.session, self.position.step
        source = session.source
        if isinstance(source, Observing) and source.observes(step):
            source.observe(self.memory.take(step, "check", lambda: observed_loss(session)))

    def _validates_at(self, step: int) -> bool:
        every = self.session.recipe.validate.every
        if self.session.validator is None or every is None:
            return False
        period = int(self.session.auto["steps_per_epoch"]) if every == "epoch" else int(every)
        return step % period == 0 or step == self.session.steps

    def _validate(self) -> None:
        session, position = self.session, self.position

        def measured() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
            assert session.validator is not None
            numbers, answers = session.validator.run(session.distiller, session.world)
            tokens = token_rows(session, step=position.step, texts=self.texts)
            session.rest_teacher()
            return numbers, answers, tokens

        numbers, answers, tokens = self.memory.take(position.step, "validation", measured)
        if not isinstance(session.source, Observing):
            session.source.observe(numbers["cross_entropy"])
        metric = session.recipe.validate.metric
        score = numbers["rouge_l"] if metric == "rouge-l" else -numbers["loss"]
        # A loss that is no number would never be beaten.
        score = -math.inf if math.isnan(score) else score
        is_best = position.best is None or score > position.best
        position.without_improvement = 0 if is_best else position.without_improvement + 1
        if is_best:
            position.best, position.best_step = score, position.step
            save_best(session, self.directory)
        row = {"kind": "validation", "step": position.step, **numbers, "metric": metric, "is_best": is_best}
        if session.world.is_main:
            if answers:
                name = f"validation/step-{position.step:06d}.jsonl"
                self.directory.write_rows(name, answers)
            for each in tokens:
                self.directory.append(TOKENS, each)
        self._log(row)
        self.progress.validation(row)
        self._look(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.session.world.is_main:
            self.directory.append(METRICS, row)
            self.tracker.log(row)

    def _look(self, row: Mapping[str, Any]) -> None:
        """Tell of the failure signatures that show after this row; the main process alone judges."""
        if not self.session.world.is_main:
            return
        for sign in self.watch.look(row):
            self.signs.append(sign)
            self._log(sign.row())
            self.progress.note(f"warning: {sign.name} at step {sign.step}: {sign.message}\n  {sign.advice}")

    def _save(self) -> None:
        if self.saved_step == self.position.step:
            return
        self.clock.wrote(save_checkpoint(self.session, self.directory, position=self.position.to_json()))
        self.saved_step = self.position.step

    def _has_lost_best(self) -> bool:
        """Whether the best student so far is no longer in the run, which the main process tells all others."""
        lost = self.session.world.is_main and not self.directory.has_student()
        if self.position.best_step is None or not self.session.world.any(lost):
            return False
        step, place = self.position.best_step, self.directory.student
        self.progress.note(f"warning: the student of step {step}, the best so far, is not in {place} any more")
        return True

    def _restore(self, found: checkpoint.Checkpoint | None) -> None:
        """Go back to a checkpoint, or to the start. What does not fit is an error before any file is changed."""
        session, directory = self.session, self.directory
        folder = directory.path / "checkpoints"
        if found is None:
            logs = dict.fromkeys(directory.sizes(), 0)
            self.progress.note("no checkpoint yet; the run starts at its first step")
        else:
            check_same(Recipe.recorded(found.path), session.recipe, what=f"checkpoint {found.path}")
            checkpoint.install(session.distiller, session.optimizer, found)
            # Its tensors would otherwise stay in memory as long as the run.
            found.weights.clear()
            found.optimizer.clear()
            self.position = Position(**found.state["position"])
            if self._has_lost_best():
                self.position.best = self.position.best_step = None
            self.saved_step = self.position.step
            session.source.restore(found.state["source"])
            restore_cache(session.cache, found.state, session.world)
            with_micro_rows(session, int(found.state["micro_rows"]))
            logs = found.state["logs"]
            self.progress.note(f"going on after step {self.position.step} of {session.steps}")
        if session.world.is_main:
            directory.cut_back(logs)
            directory.tidy(after=self.position.step)
            checkpoint.tidy(folder, after=self.position.step)
            directory.write_text(RECIPE, session.recipe.dump())
            self.watch.recall(directory.rows(METRICS))
            self.memory.record()
            now = described_environment(session.world, session.recipe)
            for line in environment_changes(directory.environment(), now):
                self.progress.note(line)
        session.world.barrier()

    def _finish(self) -> None:
        if self.position.best_step is None or self._has_lost_best():
            save_best(self.session, self.directory)
        self._save()
        if self.session.world.is_main:
            checkpoint.keep(self.directory.path / "checkpoints", last=1)
            self.directory.write_text(FINISHED, json.dumps({"step": self.position.step}) + "\n")
        if self.session.cache is not None:
            self.session.cache.close()
        self.progress.note(f"done: the student is in {self.directory.student}")
        self._page()

    def _page(self) -> None:
        if self.session.world.is_main:
            write_run_page(self.directory.path, note=self.progress.note)

    def _sample(self, step: int, result: StepResult) -> None:
        """One row, now and then, as text: what the step learned from."""
        if step & (step - 1) and step % self.session.recipe.watch.every:
            return
        self.directory.append(SAMPLES, sample_row(self.session, step, result, texts=self.texts))
