"""The page that a run leaves behind: what `limbeck report RUN` writes, made at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limbeck.training.rundir import PAGE


def write_run_page(run: Path, *, note: Callable[[str], None]) -> Path | None:
    """Write RUN/page.html and say where it is; None, with a warning, where it cannot be made.

    A page is made from files that are already there: that it fails costs nothing but the page, and never a run.
    """
    from limbeck.reporting.runs import report

    again = f"limbeck report {run} -o {run / PAGE}"
    try:
        page = report([run], run / PAGE)
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        note(f"warning: the page of the run was not written: {type(error).__name__}: {first}\n  try again: {again}")
        return None
    note(f"page: {page}")
    return page
