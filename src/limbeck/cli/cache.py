"""`limbeck cache`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.completing import complete_recipes
from limbeck.cli.terminal import print_json, progress, show

cache = typer.Typer(
    name="cache",
    help="Keep a teacher's work on the corpus in a folder: build, verify, info.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="Folder of a cache.", metavar="DIR")]


class _Kind(StrEnum):
    hidden = "hidden"
    topk = "topk"


@cache.command()
def build(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe with fixed rows (kd).", metavar="RECIPE", autocompletion=complete_recipes)
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings on top of it: models.teacher=DIR", metavar="KEY=VALUE")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the cache; cache.path if not given.")] = None,
    kind: Annotated[_Kind, typer.Option(help="hidden: exact. topk: at most 150 bytes a token.")] = _Kind.hidden,
    top: Annotated[int, typer.Option(help="Classes a token that a topk cache keeps.")] = 32,
    draws: Annotated[int | None, typer.Option(help="Keep classes drawn so many times, unbiased, instead.")] = None,
    shard_mb: Annotated[float, typer.Option(help="Size of a shard: what a kill can lose.")] = 256,
) -> None:
    """Let the teacher read all rows of a recipe once.

    A stopped build goes on where it was when the same command is given again. Train from it with
    cache.kind=offline cache.path=DIR.
    """
    from limbeck.studies.resuming import same_command_goes_on
    from limbeck.training.cache_building import build_cache

    with same_command_goes_on():
        manifest = build_cache(
            recipe,
            *(settings or []),
            out=out,
            kind=kind.value,
            top=top,
            draws=draws,
            shard_mb=shard_mb,
            note=progress,
        )
    show([_line(manifest)])


@cache.command()
def verify(
    folder: Folder,
    recipe: Annotated[Path | None, typer.Option(help="Also compare the weights of this recipe's teacher.")] = None,
) -> None:
    """Read every byte of a cache and compare it with its checksums."""
    from limbeck.training.cache_building import verify_cache

    show([f"whole: {_line(verify_cache(folder, recipe=recipe))}"])


@cache.command()
def info(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what a cache holds, and of whom."""
    from limbeck.models.offline_cache import Manifest

    manifest = Manifest.read(folder)
    about = manifest.about
    if as_json:
        rows, tokens = (sum(getattr(shard, name) for shard in manifest.shards) for name in ("rows", "tokens"))
        counted = {"rows": rows, "tokens": tokens, "bytes": manifest.num_bytes, "shards": len(manifest.shards)}
        print_json({"kind": manifest.kind, **counted, "is_complete": manifest.is_complete, "about": about})
        return
    shards = f"shards: {len(manifest.shards)} of {about['shards']}"
    show(
        [
            _line(manifest),
            f"teacher: {about['teacher']['name']}, {about['teacher']['dtype']}, weights {about['teacher']['weights']}",
            f"template: {about['template']}, tokenizer {about['tokenizer']}, text {about['text']}",
            shards + ("" if manifest.is_complete else ", not finished"),
        ]
    )


def _line(manifest: object) -> str:
    from limbeck.models.offline_cache import Manifest

    assert isinstance(manifest, Manifest)
    about, size = manifest.about, manifest.num_bytes
    tokens = sum(shard.tokens for shard in manifest.shards)
    kept = {"hidden": f"hidden states of width {about['width']}"}.get(manifest.kind)
    kept = kept or (f"{about['draws']} drawn classes" if about["draws"] else f"the {about['top']} likeliest classes")
    return (
        f"{kept}; {sum(shard.rows for shard in manifest.shards):,} rows, {tokens:,} tokens, {size / 1e6:,.1f} MB, "
        f"{size / max(1, tokens):,.1f} bytes a token"
    )
