"""`limbeck study`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_studies
from limbeck.cli.terminal import print_json, progress, show

_OUT = Path("runs/studies")
_SUFFIXES = {
    "markdown": (".md", ".markdown"),
    "text": (".txt",),
    "latex": (".tex",),
    "csv": (".csv",),
    "html": (".html", ".htm"),
}


def study(
    name: Annotated[
        str,
        typer.Argument(help="A built-in study, or a YAML file.", metavar="NAME|FILE", autocompletion=complete_studies),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings of every arm: train.steps=64", metavar="KEY=VALUE")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the named corpora.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of stages, of runs under way, and of the page.")] = _OUT,
    rows: Annotated[Path | None, typer.Option(help="Folder of the rows; OUT/rows if not given.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, with commas between.")] = None,
    arms: Annotated[str | None, typer.Option(help="Only these arms, with commas between.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; threads are divided among them.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Arms, time, memory, disk; nothing is trained.")] = False,
    gpu: Annotated[
        str | None, typer.Option(help="A GPU that a dry run reckons with instead of this machine: A100-80G.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="The table of the rows that there are.")] = False,
    against: Annotated[str, typer.Option(help="The arm that the others are compared with in the table.")] = "",
    format: Annotated[str, typer.Option(help="markdown, text, latex, csv or html.")] = "text",
    save: Annotated[Path | None, typer.Option(help="Write the table into a file as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run what is missing of a study, write its page, then print its table and what may be concluded.

    An arm whose rows are in the folder of rows is done; the same command goes on where it was stopped. An arm that
    fails is recorded and does not stop the others; the exit code is then 1.
    """
    from limbeck.errors import LimbeckError
    from limbeck.studies.builtin import INJECTED_ERRORS
    from limbeck.studies.definition import study_name
    from limbeck.studies.printing import FORMATS, check_format, printed, result_values

    if gpu is not None and not dry_run:
        raise typer.BadParameter("it is for a dry run; give --dry-run too", param_hint="--gpu")
    check_format(format, FORMATS)
    called = study_name(Path(name)) if name.endswith((".yaml", ".yml")) else name
    if against and not table:
        # Before hours of training, not after them.
        _check_arm(name, against)
    if save is not None:
        _check_save(save, format)
    folder = out / "rows" if rows is None else rows
    failures: dict[str, str] = {}
    if name == INJECTED_ERRORS and not table:
        if not _inject(root, out, folder, seeds, dry_run, as_json):
            return
    elif not table:
        failures = _run(name, settings or [], root, out, folder, seeds, arms, jobs, dry_run, gpu, as_json)
        if dry_run:
            return
    text = printed(folder, called, format=format, against=against)
    if as_json:
        print_json({**result_values(folder, called, against=against), "failures": failures})
    elif format == "text":
        show(text.split("\n"))
    else:
        typer.echo(text)
    if save is not None:
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    if failures:
        told = "\n  ".join(f"{label}: {error}" for label, error in failures.items())
        raise LimbeckError(f"{len(failures)} runs failed; the same command tries them again\n  {told}")


def _check_save(save: Path, format: str) -> None:
    """A slip of the name should not cost the rows of a study, nor be told when the study is done."""
    if save.is_dir():
        raise typer.BadParameter(f"{save} is a folder; name a file", param_hint="--save")
    if save.exists() and save.suffix not in _SUFFIXES[format]:
        told = f"{save} exists and is no table of the format {format} by its name ({' or '.join(_SUFFIXES[format])})"
        raise typer.BadParameter(f"{told}; name another file, or remove it", param_hint="--save")


def _check_arm(name: str, arm: str) -> None:
    from limbeck.studies.builtin import INJECTED_ERRORS, find_study
    from limbeck.studies.printing import check_against

    check_against(name, arm)
    if name != INJECTED_ERRORS:
        find_study(name).arm(arm)


def _run(
    name: str,
    settings: list[str],
    root: Path | None,
    out: Path,
    rows: Path,
    seeds: str | None,
    arms: str | None,
    jobs: int,
    dry_run: bool,
    gpu: str | None,
    as_json: bool,
) -> dict[str, str]:
    from limbeck.preflight.hardware import named_gpus
    from limbeck.studies.builtin import find_study
    from limbeck.studies.estimates import effect_line
    from limbeck.studies.forecasting import forecast
    from limbeck.studies.places import Places
    from limbeck.studies.running import run_study

    chosen = find_study(name, settings=settings, seeds=None if seeds is None else _numbers(seeds))
    only = chosen.named(arms) if arms is not None else ()
    places = Places(work=out, rows=rows, root=root)
    effect = effect_line(chosen, places)
    if not dry_run:
        progress(effect)
        command = _command(name, settings, out, rows, root, seeds, arms)
        done = run_study(chosen, places, only=only, jobs=jobs, say=progress, command=command)
        if done.page is not None:
            progress(f"page: {done.page}")
        return dict(done.failures)
    named = None if gpu is None else named_gpus(gpu)
    expected = forecast(chosen, places, only=only, jobs=jobs, gpu=named)
    if as_json:
        print_json({"effect": effect, **expected.values()})
    else:
        show([effect, *expected.lines()])
    return {}


def _command(
    name: str,
    settings: list[str],
    out: Path,
    rows: Path,
    root: Path | None,
    seeds: str | None,
    arms: str | None,
) -> str:
    """The command that was given, without what cannot move a result."""
    parts = ["limbeck", "study", name, *settings]
    parts += ["--root", str(root)] if root is not None else []
    parts += ["--out", str(out)] if out != _OUT else []
    parts += ["--rows", str(rows)] if rows != out / "rows" else []
    parts += ["--seeds", seeds] if seeds else []
    parts += ["--arms", arms] if arms else []
    return shlex.join(parts)


def _inject(root: Path | None, out: Path, rows: Path, seeds: str | None, dry_run: bool, as_json: bool) -> bool:
    """Run it; whether there are rows now."""
    from limbeck.studies.injected import run_injected_errors
    from limbeck.studies.places import Places

    if dry_run:
        told = "injected-errors trains nothing beside its teacher and start, and scores every detector once"
        print_json({"effect": told, "rows": []}) if as_json else show([told])
        return False
    seed = 0 if seeds is None else _numbers(seeds)[0]
    run_injected_errors(Places(work=out, rows=rows, root=root), seed=seed, say=progress)
    return True


def _numbers(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is not a list like 0,1,2", param_hint="--seeds") from error
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"'{text}': seeds are different numbers of at least 0", param_hint="--seeds")
    return seeds
