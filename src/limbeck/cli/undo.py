"""`limbeck undo`: distillation from a teacher that can only be talked to, round by round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.completing import complete_recipes, complete_runs
from limbeck.cli.terminal import print_json, progress, show

undo = typer.Typer(
    name="undo",
    help="Distil from a black-box teacher, round by round (docs/undo.md).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_Recipe = Annotated[
    Path,
    typer.Argument(help="A recipe file, or the folder of a run.", metavar="RECIPE", autocompletion=complete_recipes),
]
_Settings = Annotated[
    list[str] | None, typer.Argument(help="Settings on top of it: method.rounds=2", metavar="KEY=VALUE")
]
_Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", autocompletion=complete_runs)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@undo.command()
def run(recipe: _Recipe, settings: _Settings = None, as_json: _Json = False) -> None:
    """Distil as a recipe says, over the method and its controls.

    Ctrl-C stops with exit code 75; `limbeck undo resume` goes on, and pays for no call twice.
    """
    from limbeck.blackbox.loop import run_undo

    _ended(run_undo(recipe, *(settings or []), say=progress).directory, as_json=as_json)


@undo.command()
def resume(recipe: _Recipe, settings: _Settings = None, as_json: _Json = False) -> None:
    """Go on with a stopped run, named by its folder or its recipe.

    The budget, method.rounds and controls may be other ones than before.
    """
    from limbeck.blackbox.loop import run_undo

    _ended(run_undo(recipe, *(settings or []), resume=True, say=progress).directory, as_json=as_json)


@undo.command()
def plan(recipe: _Recipe, settings: _Settings = None, as_json: _Json = False) -> None:
    """Count calls, tokens, money and time of a recipe; asks nobody and loads no model."""
    from limbeck.blackbox.planning import plan as make_plan

    planned = make_plan(recipe, *(settings or []))
    if as_json:
        print_json(planned.values())
    else:
        show(planned.lines())


@undo.command()
def status(run: _Run, as_json: _Json = False) -> None:
    """Say where a run stands: rounds, calls, and the stage it is in."""
    from limbeck.blackbox.standing import standing, standing_values

    if as_json:
        print_json(standing_values(run))
    else:
        show(standing(run))


@undo.command()
def report(run: _Run, as_json: _Json = False) -> None:
    """Write report.html and report.json of a run, finished or not."""
    from limbeck.blackbox.page import summary_lines, write_report

    page = write_report(run)
    _told(page, summary_lines(run), as_json=as_json)


@undo.command()
def replay(
    run: _Run,
    out: Annotated[Path | None, typer.Option(help="Folder of the second run; RUN-replay if not given.")] = None,
) -> None:
    """Do a finished run again from its ledger, without network, and compare every file byte for byte."""
    from limbeck.blackbox.replaying import replay as replay_run

    done, compared = replay_run(run, out=out or run.with_name(f"{run.name}-replay"), say=progress)
    typer.echo(f"run: {done.directory}\nidentical: {len(compared)} files")


@undo.command()
def transfer(
    run: _Run,
    student: Annotated[str, typer.Option(help="Hub id, folder or packaged name.", metavar="MODEL")],
    arm: Annotated[str | None, typer.Option(help="The arm; the method's if not given.")] = None,
    round: Annotated[int | None, typer.Option(min=0, help="The round; the best if not given.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer of this student.")] = None,
    as_json: _Json = False,
) -> None:
    """Train another student on the first rationales of a run and on those of another round, and measure both."""
    from limbeck.blackbox.transferring import transfer as transfer_run

    numbers = transfer_run(run, student, arm=arm, round=round, max_new_tokens=max_new_tokens, say=progress)
    if as_json:
        print_json(numbers)
        return
    lines = []
    for kind in ("first", "final"):
        test = numbers[kind]["test"]
        lines.append(f"{kind} rationales: {100 * test['mean']:.1f} ±{100 * test['error']:.1f} % on test")
    gap = numbers["final_minus_first"]["test"]
    show([*lines, f"final − first: {100 * gap['mean']:+.1f} ±{100 * gap['error']:.1f} points"])


@undo.command()
def export(
    run: _Run,
    arm: Annotated[str | None, typer.Option(help="The arm; the method's if not given.")] = None,
    round: Annotated[int | None, typer.Option(min=0, help="The round; the best if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the files; RUN/export if not given.")] = None,
) -> None:
    """Write a round's training rows as chat and as instruction JSONL."""
    from limbeck.blackbox.exporting import export as export_run

    for path in export_run(run, arm=arm, round=round, out=out):
        typer.echo(f"rows: {path}")


def _ended(run: Path, *, as_json: bool) -> None:
    from limbeck.blackbox.page import summary_lines

    _told(run / "report.html", summary_lines(run), as_json=as_json, run=str(run))


def _told(page: Path, summary: tuple[str, ...], *, as_json: bool, **named: Any) -> None:
    if as_json:
        print_json({"summary": summary, **named, "page": str(page), "report": str(page.with_suffix(".json"))})
        return
    show(summary)
    for name, value in {**named, "page": page}.items():
        typer.echo(f"{name}: {value}")
