"""`limbeck evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.completing import complete_corpora, complete_models
from limbeck.cli.terminal import print_json, show, width

if TYPE_CHECKING:
    from limbeck.evaluation.exposure import Exposure
    from limbeck.evaluation.results import Results


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run, a model's folder, a hub id or a packaged name.",
            metavar="MODEL",
            autocompletion=complete_models,
        ),
    ],
    corpora: Annotated[
        str,
        typer.Option(
            help="Corpora, files or hub ids, with commas between.", metavar="A,B", autocompletion=complete_corpora
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="Folder of the named corpora, or hub.")] = None,
    seeds: Annotated[str, typer.Option(help="Decoding seeds, with commas between.")] = "10,20,30,40,50",
    decoding: Annotated[str, typer.Option(help="How answers are drawn: plain, paper or greedy.")] = "plain",
    teacher: Annotated[str | None, typer.Option(help="Model to measure the distance from.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Rows of each corpus; all if not given.")] = None,
    split: Annotated[str, typer.Option(help="Split of the named corpora and hub sets.")] = "test",
    max_prompt: Annotated[int, typer.Option(min=1, help="Longer prompts are cut in the user's text.")] = 256,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; the preset's if not given.")
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows decoded at a time: faster, and more memory.")] = 16,
    dtype: Annotated[str, typer.Option(help="Precision of the weights: auto, float32 or bfloat16.")] = "auto",
    template: Annotated[str, typer.Option(help="auto, chat, paper or plain.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    scores: Annotated[str | None, typer.Option(help="Scores of the table, with commas between.", metavar="A,B")] = None,
    categories: Annotated[bool, typer.Option("--categories", help="A second table by category.")] = False,
    exposure: Annotated[
        bool, typer.Option("--exposure", help="Exposure bias too: the teacher answers as well.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the answers; the run's own if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a model's answers, keep them as rows, and score them.

    A stopped evaluation goes on where it was when the same command is given again.
    """
    names, numbers = _names(corpora), _numbers(seeds)
    shown = None if scores is None else _names(scores, what="--scores")

    import limbeck
    from limbeck.evaluation.results import check_scores
    from limbeck.studies.resuming import same_command_goes_on

    place = out or _place(model) / decoding
    check_scores(shown or (), has_teacher=teacher is not None, num_seeds=len(numbers))

    with same_command_goes_on():
        results = limbeck.evaluate(
            Path(model) if Path(model).exists() else model,
            names,
            decoding=decoding,
            seeds=numbers,
            out=place,
            root=root,
            teacher=teacher,
            max_rows=max_rows,
            split=split,
            max_prompt=max_prompt,
            max_new_tokens=max_new_tokens,
            template=template,
            batch_rows=batch_rows,
            dtype=dtype,
            device=device,
            exposure=exposure,
        )
    _print(results, shown=shown, categories=categories, exposure=exposure, as_json=as_json)


def _print(results: Results, *, shown: list[str] | None, categories: bool, exposure: bool, as_json: bool) -> None:
    table = results.table() if shown is None else results.table(shown)
    by_category = results.categories("rouge_l" if shown is None else shown[0]) if categories else None
    if as_json:
        printed = {"scores": table.values(), "perplexity": results.perplexity()}
        if exposure:
            printed["exposure"] = {corpus: asdict(found) for corpus, found in results.exposure().items()}
        print_json(printed if by_category is None else {**printed, "categories": by_category.values()})
        return
    typer.echo(table.text(width=width()))
    show(f"perplexity of the references of {corpus}: {value:,.1f}" for corpus, value in results.perplexity().items())
    show(_told(corpus, found) for corpus, found in results.exposure().items())
    if by_category is not None:
        typer.echo("\n" + by_category.text(width=width()))


def _told(corpus: str, found: Exposure) -> str:
    """The exposure bias on a corpus in a sentence."""
    excess = "no distance on the teacher's answers"
    if found.excess is not None:
        excess = f"{found.excess.mean:+.1f} % [{found.excess.low:+.1f}, {found.excess.high:+.1f}]"
    return (
        f"exposure bias on {corpus} over {found.length} tokens: {excess}; KL(t‖s) a token {found.own:.3f} on the "
        f"model's own answers, {found.teachers:.3f} on the teacher's"
    )


def _place(model: str) -> Path:
    """Where the answers go: into the run, else into a folder of the model's name."""
    folder = Path(model)
    is_run = (folder / "recipe.yaml").is_file()
    return folder / "answers" if is_run else Path("evaluation") / model.strip("/.~").replace("/", "-")


def _names(text: str, *, what: str = "--corpora") -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("name at least one", param_hint=what)
    return names


def _numbers(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is not a list like 10,20,30", param_hint="--seeds") from error
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"'{text}': seeds are different numbers of at least 0", param_hint="--seeds")
    return seeds
