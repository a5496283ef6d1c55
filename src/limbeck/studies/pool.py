"""Several runs of a study at once, each in a process of its own, with the machine's threads divided among them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import Stopped
from limbeck.interrupts import interrupting
from limbeck.studies.definition import Study
from limbeck.studies.places import Places
from limbeck.studies.resolving import Planned

_STOPPED = Stopped.exit_code
_STAGES = "stages"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What a process does: `target(*args)`, which ends it with an exit code."""

    label: str
    target: Callable[..., None]
    args: tuple[Any, ...]


def run_pool(
    study: Study, planned: Sequence[Planned], places: Places, *, jobs: int, say: Callable[[str], None] = print
) -> None:
    """Run these, at most `jobs` at a time; what each says goes to WORK/logs/RUN.log.

    After Ctrl-C no further run is started; those that are under way save themselves, and so they do if this process is
    killed. Raises `Stopped` then.
    """
    tasks = [
        _Task(label=f"{each.label} (run {each.key})", target=_work, args=(study, each, places)) for each in planned
    ]
    _run_all(tasks, jobs=jobs, say=say)


def build_apart(
    study: Study, planned: Sequence[Planned], places: Places, *, say: Callable[[str], None] = print
) -> None:
    """Build the stages that these runs need, in a process of its own: what training takes of memory ends with it.

    It has all threads; what it says goes to WORK/logs/stages.log. A stage that fails is written down as a failure of
    the runs that need it. Raises `Stopped` after Ctrl-C.
    """
    say(f"stages are built; {_log(places, _STAGES)} tells how far they are")
    _run_all([_Task(label=_STAGES, target=_build, args=(study, tuple(planned), places))], jobs=1, say=say)


def _run_all(tasks: Sequence[_Task], *, jobs: int, say: Callable[[str], None]) -> None:
    context = multiprocessing.get_context("spawn")
    waiting, stopped = list(tasks), False
    running: dict[Any, _Task] = {}
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    # Read by each process when it loads torch; this one's are put back.
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, threads))
    try:
        while (waiting and not stopped) or running:
            while waiting and len(running) < jobs and not stopped:
                each = waiting.pop(0)
                say(f"{each.label}, {len(waiting)} more wait" if len(tasks) > 1 else each.label)
                process = context.Process(target=each.target, args=each.args)
                process.start()
                running[process] = each
            try:
                time.sleep(0.2)
            except KeyboardInterrupt:
                stopped = True
                # Ctrl-C in a terminal has reached them already, which they tell from a second request.
                for process in running:
                    process.terminate()
                say("stopping: the runs that are under way save themselves")
            for process in [each for each in running if not each.is_alive()]:
                process.join()
                each = running.pop(process)
                stopped = stopped or process.exitcode == _STOPPED
                if process.exitcode not in (0, 1, _STOPPED):
                    say(f"{each.label} ended with code {process.exitcode}; it goes on at the next call")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    if stopped:
        raise Stopped("stopped; everything is saved.")


def _work(study: Study, planned: Planned, places: Places) -> None:
    _redirect(_log(places, planned.key))
    _end_with_parent()
    from limbeck.studies.running import carry_out

    try:
        with interrupting():
            examples = {corpus.name: places.examples(corpus) for corpus in study.scoring.corpora}
            is_done = carry_out(study, planned, places, examples=examples, say=lambda text: print(text, flush=True))
    except (Stopped, KeyboardInterrupt):
        sys.exit(_STOPPED)
    sys.exit(0 if is_done else 1)


def _build(study: Study, planned: Sequence[Planned], places: Places) -> None:
    _redirect(_log(places, _STAGES))
    _end_with_parent()
    from limbeck.studies.running import try_stages

    try:
        with interrupting():
            built = [try_stages(study, each, places, say=lambda text: print(text, flush=True)) for each in planned]
    except (Stopped, KeyboardInterrupt):
        sys.exit(_STOPPED)
    sys.exit(0 if all(built) else 1)


def _log(places: Places, name: str) -> Path:
    return places.work / "logs" / f"{name}.log"


def _end_with_parent() -> None:
    """Stop as after Ctrl-C when the process that began this one is gone: nobody would stop it any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _redirect(log: Path) -> None:
    """Both outputs of this process into a file, those of compiled code too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
