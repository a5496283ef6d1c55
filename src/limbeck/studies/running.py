"""Running what is missing of a study: stages, then arms, each trained once, scored, and kept as rows only.

A stopped study goes on where it was: an arm whose rows are there is done, one that has a run directory is resumed.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.errors import LimbeckError, Stopped
from limbeck.files import read_json, write_whole
from limbeck.records import Example
from limbeck.studies.definition import Stage, Study
from limbeck.studies.places import Places
from limbeck.studies.resolving import (
    Planned,
    identity_of,
    planned_runs,
    scoring_key,
    stages_of,
)
from limbeck.studies.resuming import same_command_goes_on
from limbeck.studies.rows import Ledger, LedgerArm, write_rows
from limbeck.studies.staging import build_stage, build_teacher, is_built, train_or_resume

Say = Callable[[str], None]
_FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call did: the ledger as it is now, the runs that failed with their errors, and the page, if it is made."""

    ledger: Ledger
    failures: Mapping[str, str] = field(default_factory=dict)
    page: Path | None = None


def run_study(
    study: Study,
    places: Places,
    *,
    only: tuple[str, ...] = (),
    jobs: int = 1,
    say: Say = print,
    command: str = "",
) -> Outcome:
    """Run what is missing of a study, `only` these arms where some are named; returns the ledger and the page.

    A run that fails is recorded with its error and does not stop the others; it is tried again at the next call. The
    page WORK/STUDY.html is written at the end, with the `command` that repeats it. Raises `ConfigError` and `DataError`
    before anything is trained, and `Stopped` after Ctrl-C, with everything resumable.
    """
    with same_command_goes_on():
        return _run_missing(study, places, only=only, jobs=jobs, say=say, command=command)


def _run_missing(study: Study, places: Places, *, only: tuple[str, ...], jobs: int, say: Say, command: str) -> Outcome:
    planned = planned_runs(study, only=only)
    examples = {corpus.name: places.examples(corpus) for corpus in study.scoring.corpora}
    places.work.mkdir(parents=True, exist_ok=True)
    ledger = make_ledger(study, places)
    ledger.write(places.rows)
    missing = _once_each([each for each in planned if not places.kept(study, each).is_file()])
    if missing and jobs > 1:
        from limbeck.studies.pool import build_apart, run_pool

        if not all(_has_stages(study, each, places) for each in missing):
            build_apart(study, missing, places, say=say)
        built = [each for each in missing if _has_stages(study, each, places)]
        run_pool(study, built, places, jobs=jobs, say=say)
    else:
        for number, each in enumerate(missing, start=1):
            say(f"{each.label} ({number} of {len(missing)}, run {each.key})")
            carry_out(study, each, places, examples=examples, pending=missing, say=say)
    failures = {each.label: told for each in planned if (told := failure_of(places, each.key))}
    # A process that was killed, or that fell before its run, has written nothing down.
    lost = [each for each in missing if each.label not in failures and not places.kept(study, each).is_file()]
    failures |= {each.label: "its process ended before the run did; it goes on at the next call" for each in lost}
    ledger = make_ledger(study, places)
    ledger.write(places.rows)
    page = _page(places, study.name, command=command, say=say)
    return Outcome(ledger=ledger, failures=failures, page=page)


def _page(places: Places, study: str, *, command: str, say: Say) -> Path | None:
    """The page of a study; that it cannot be made costs nothing but the page."""
    from limbeck.studies.study_page import write_study_page

    try:
        return write_study_page(places.rows, study, places.work / f"{study}.html", command=command)
    except Exception as error:
        say(f"warning: the page of the study was not written: {_told(error)}")
        return None


def carry_out(
    study: Study,
    planned: Planned,
    places: Places,
    *,
    examples: Mapping[str, Sequence[Example]],
    pending: Sequence[Planned] = (),
    say: Say = print,
) -> bool:
    """Train and score one run and keep its rows; whether it came to its end. A failure is written down."""
    with places.claimed(planned.key):
        if places.kept(study, planned).is_file():
            return True
        try:
            _train_and_score(study, planned, places, examples=examples, pending=pending, say=say)
        except Stopped:
            raise
        except Exception as error:
            _record_failure(places, planned, error)
            say(f"{planned.label} failed: {_told(error)}")
            return False
        finally:
            # The models of one arm are let go before the next are loaded.
            gc.collect()
        _failure_path(places, planned.key).unlink(missing_ok=True)
    return True


def make_ledger(study: Study, places: Places) -> Ledger:
    """The arms of a study with the files of their runs: those of this call, and of seeds that were run before."""
    seeds = set(study.seeds) | _earlier_seeds(study, places)
    whole = replace(study, seeds=tuple(sorted(seeds)))
    arms = {arm.name: LedgerArm(name=arm.name, title=arm.title) for arm in study.arms}
    scoring = scoring_key(study)
    for each in planned_runs(whole):
        arm, number = arms[each.arm], "-" if each.seed is None else str(each.seed)
        told = failure_of(places, each.key)
        is_kept = places.kept(study, each).is_file()
        if is_kept or each.seed is None or each.seed in study.seeds:
            arm.runs[number] = f"{each.key}-{scoring}"
        if told and not is_kept:
            arm.failures[number] = told
    return Ledger(
        study=study.name,
        title=study.title,
        baseline=study.baseline,
        arms=tuple(arms.values()),
        controls=study.controls,
        corpora=study.corpora,
        average=study.average,
    )


def failure_of(places: Places, key: str) -> str:
    """How a run failed when it was tried last, "" where it did not."""
    path = _failure_path(places, key)
    return str(read_json(path)["error"]) if path.is_file() else ""


def _train_and_score(
    study: Study,
    planned: Planned,
    places: Places,
    *,
    examples: Mapping[str, Sequence[Example]],
    pending: Sequence[Planned],
    say: Say,
) -> None:
    from limbeck.studies.scoring import contents, kept_of_run, scored_rows, start_hash

    about: dict[str, Any] = {"run": planned.key, "arm": planned.arm, "train_seed": planned.seed}
    teacher = build_teacher(study, places, say=say)
    if planned.recipe is None:
        model = str(build_stage(study, study.stage(planned.stage), places, say=say))
        about |= {"start": start_hash(model), "teacher": ""}
        run = None
    else:
        for stage in stages_of(study, planned.recipe):
            build_stage(study, stage, places, say=say)
        local = places.local(study, planned.recipe, run=places.run(planned.key))
        about |= {"start": start_hash(local.models.student), "teacher": start_hash(local.models.teacher)}
        run = train_or_resume(local)
        model = str(run.directory / "student")
        about |= {"recipe": identity_of(study, planned.recipe), **kept_of_run(run, planned.recipe)}
    # A stage that is the teacher itself is not compared with itself.
    compared = teacher if teacher != model else None
    scoring = scoring_key(study)
    # Answers of other batches are not gone on with: whoever lowers their size after a failure begins this arm's anew.
    out = places.answers(planned.key, scoring) / f"at-a-time-{study.scoring.batch_rows}"
    # A hub model is known by its name alone, which may stand for other weights tomorrow.
    known = start_hash(compared)
    kept = places.references(known) if compared is not None and known != compared else None
    rows, seconds = scored_rows(study, model, teacher=compared, examples=examples, out=out, kept=kept)
    about |= {"scoring_seconds": seconds, "scoring": scoring, "corpora": contents(examples)}
    about |= {"answers_at_a_time": study.scoring.batch_rows}
    write_rows(places.kept(study, planned), about=about, rows=rows)
    shutil.rmtree(out.parent, ignore_errors=True)
    if run is not None and study.keep == "rows" and not _hand_on(study, planned, places, pending):
        shutil.rmtree(run.directory, ignore_errors=True)
    elif run is not None and run.directory.is_dir() and study.keep == "students":
        run.drop_checkpoints()


def _hand_on(study: Study, planned: Planned, places: Places, pending: Sequence[Planned]) -> bool:
    """Give the directory of a finished run to one that only takes more steps of the same: it goes on from there.

    Only where the shorter run is the longer one's beginning: what is lost by a kill is time, and never another result.
    """
    mine = planned.recipe
    if mine is None or not _is_a_beginning(mine):
        return False
    longer = {
        each.recipe.train.steps or 0: each
        for each in pending
        if each.recipe is not None
        and (each.recipe.train.steps or 0) > (mine.train.steps or 0)
        and [change.key for change in mine.difference(each.recipe)] == ["train.steps"]
        and not places.kept(study, each).is_file()
        and not places.run(each.key).exists()
    }
    if not longer:
        return False
    following = longer[min(longer)]
    os.replace(places.run(planned.key), places.run(following.key))
    return True


def _is_a_beginning(recipe: Recipe) -> bool:
    """Whether nothing in a recipe depends on how long the run is: not the rate, nor where its rows come from, nor which
    steps are validated, the best of which gives the student."""
    train, every, kinds = recipe.train, recipe.validate.every, _kinds(recipe.method["sequences"])
    if train.steps is None or train.schedule != "constant" or 0 < train.warmup < 1:
        return False
    # A run is validated at its last step too.
    is_looked_at = every is None or (isinstance(every, int) and train.steps % every == 0)
    return is_looked_at and kinds <= {"student", "fixed", "mixture"}


def _kinds(part: Any) -> set[str]:
    """The kinds of a plain record and of those inside it."""
    if not isinstance(part, Mapping):
        return set()
    return {str(part["kind"])}.union(*(_kinds(value) for value in part.values())) if "kind" in part else set()


def _needed_stages(study: Study, planned: Planned) -> tuple[Stage, ...]:
    """The study's teacher, and what the run itself names."""
    teacher = str(study.recipe.get("models", {}).get("teacher"))
    named = [study.stage(teacher.removeprefix("@"))] if teacher.startswith("@") else []
    own = stages_of(study, planned.recipe) if planned.recipe is not None else (study.stage(planned.stage),)
    return tuple({stage.name: stage for stage in (*named, *own)}.values())


def _has_stages(study: Study, planned: Planned, places: Places) -> bool:
    return all(is_built(study, stage, places) for stage in _needed_stages(study, planned))


def try_stages(study: Study, planned: Planned, places: Places, *, say: Say) -> bool:
    """Build what a run needs before it starts; a failure is written down as the run's."""
    try:
        for stage in _needed_stages(study, planned):
            build_stage(study, stage, places, say=say)
    except Stopped:
        raise
    except Exception as error:
        _record_failure(places, planned, error)
        return False
    return True


def _once_each(planned: Sequence[Planned]) -> list[Planned]:
    """The runs without those that another arm of the study is too."""
    return list({each.key: each for each in reversed(planned)}.values())[::-1]


def _earlier_seeds(study: Study, places: Places) -> set[int]:
    try:
        ledger = Ledger.read(places.rows, study.name)
    except LimbeckError:
        return set()
    return {int(seed) for arm in ledger.arms for seed in arm.runs if seed != "-"}


def _failure_path(places: Places, key: str) -> Path:
    return places.work / _FAILED / f"{key}.json"


def _record_failure(places: Places, planned: Planned, error: Exception) -> None:
    told = {"arm": planned.arm, "seed": planned.seed, "error": _told(error), "traceback": traceback.format_exc()}
    write_whole(_failure_path(places, planned.key), json.dumps(told, indent=1) + "\n")


def _told(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0]
    return first if isinstance(error, LimbeckError) else f"{type(error).__name__}: {first}"
