"""Several runs of a study at once, each in a process of its own, with the machine's threads divided among them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import Stopped
from limbeck.studies.definition import Study
from limbeck.studies.places import Places
from limbeck.studies.resolving import Planned

_STOPPED = Stopped.exit_code
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_pool(
    study: Study, planned: Sequence[Planned], places: Places, *, jobs: int, say: Callable[[str], None] = print
) -> None:
    """Run these, at most `jobs` at a time; what each says goes to WORK/logs/RUN.log.

    After Ctrl-C no further run is started; those that are under way save themselves. Raises `Stopped` then.
    """
    context = multiprocessing.get_context("spawn")
    waiting, stopped = list(planned), False
    running: dict[Any, Planned] = {}
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    # Read by each process when it loads torch; this one's are put back.
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, threads))
    try:
        while (waiting and not stopped) or running:
            while waiting and len(running) < jobs and not stopped:
                each = waiting.pop(0)
                say(f"{each.label} (run {each.key}, {len(waiting)} more wait)")
                process = context.Process(target=_work, args=(study, each, places))
                process.start()
                running[process] = each
            try:
                time.sleep(0.2)
            except KeyboardInterrupt:
                stopped = True
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
        raise Stopped("stopped; everything is saved. Give the same command again to go on")


def _work(study: Study, planned: Planned, places: Places) -> None:
    log = places.work / "logs" / f"{planned.key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _redirect(log)
    from limbeck.studies.running import carry_out

    examples = {corpus.name: places.examples(corpus) for corpus in study.scoring.corpora}
    try:
        is_done = carry_out(study, planned, places, examples=examples, say=lambda text: print(text, flush=True))
    except (Stopped, KeyboardInterrupt):
        sys.exit(_STOPPED)
    sys.exit(0 if is_done else 1)


def _redirect(log: Path) -> None:
    """Both outputs of this process into a file, those of compiled code too."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
