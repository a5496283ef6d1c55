"""Building an offline cache: a teacher reads all rows of a recipe once, shard after shard, and is not needed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher, only_fixed
from limbeck.data.loader import batch
from limbeck.errors import ConfigError, DataError
from limbeck.files import alone_in
from limbeck.losses.heads import auto_chunk
from limbeck.models.loading import load_tokenizer
from limbeck.models.offline_cache import (
    HEAD,
    Kind,
    Manifest,
    add_shard,
    begin,
    damaged_files,
    damaged_line,
    file_sum,
    shard_name,
    text_hash,
)
from limbeck.models.offline_teacher import coded_rows, folder_fingerprint, whole_fingerprint, write_teacher
from limbeck.models.pair import Pair, logits_width
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.training.offline import encoded_names, kept_tokenizer, tokenizer_hash, vocabulary_hash
from limbeck.training.rows import build_encoder, encode_rows

_CPU_TOKENS, _GPU_TOKENS = 4096, 16384
_MOST_CLASSES = 250


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which rows go into which shard, in which groups they are read; a function of the rows and the settings alone."""

    rows: list[EncodedRow]
    names: list[bytes]
    shards: list[list[list[int]]]


def build_cache(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *overrides: str,
    out: Path | None = None,
    kind: Kind = "hidden",
    top: int = 32,
    draws: int | None = None,
    shard_mb: float = 256.0,
    rows: Iterable[Mapping[str, Any]] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Let the teacher of a recipe read its training and validation rows into `out` (default: `cache.path`).

    `kind` "hidden" keeps the final hidden states of the scored tokens: exact, D numbers a token, for every student of
    the same tokens. "topk" keeps the `top` likeliest classes, the token itself and the mass of the rest, for students
    with the recipe's vocabulary; with `draws` it keeps classes that were drawn instead. Rows that are there twice are
    read once. A build that was stopped goes on when it is called again, and a shard is lost at most. Raises
    `ConfigError` for a recipe whose rows are not fixed or without a teacher, `DataError` for a folder with another
    cache, `CheckpointError` for one that another process builds in.
    """
    settings = Recipe.load(recipe, list(overrides))
    folder = _folder(settings, out)
    _check(settings, kind=kind, top=top, draws=draws, shard_mb=shard_mb)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        return _build(settings, folder, kind=kind, top=top, draws=draws, shard_mb=shard_mb, rows=rows, note=note)


def _build(
    settings: Recipe,
    folder: Path,
    *,
    kind: Kind,
    top: int,
    draws: int | None,
    shard_mb: float,
    rows: Iterable[Mapping[str, Any]] | None,
    note: Callable[[str], None],
) -> Manifest:
    pair = _pair(settings)
    assert pair.teacher is not None, "a pair with a teacher was asked for"
    encoder = build_encoder(settings, pair)
    seeds = Seeds(settings.train.seed)
    encoded = encode_rows(settings, encoder, seeds=seeds, rows=rows, pair=pair).all_rows()
    scorer = Scorer.of(pair.teacher, vocabulary=pair.vocabulary)
    if kind == "hidden" and not scorer.split:
        raise ConfigError("the teacher's logits are not its head applied to its hidden states; take --kind topk")
    size = _token_bytes(scorer, kind=kind, top=top, draws=draws)
    plan = _planned(encoded, group_tokens=_group_tokens(pair), shard_tokens=max(1, int(shard_mb * 2**20 / size)))
    head = _head(scorer) if kind == "hidden" else {}
    about = _about(settings, pair, plan, kind=kind, scorer=scorer, template=encoder.template.kind)
    about |= {"top": top if kind == "topk" and draws is None else None, "draws": draws, "shards": len(plan.shards)}
    about |= {"head": _about_head(scorer, head, folder)} if head else {}
    manifest = begin(folder, about)
    described_by = (load_tokenizer(str(settings.models.teacher)), pair.teacher.config)
    write_teacher(folder, about, head=head, described_by=described_by)
    there = {shard.file for shard in manifest.shards}
    for number, groups in enumerate(plan.shards):
        if shard_name(number) in there:
            continue
        names: list[bytes] = []
        columns: list[dict[str, torch.Tensor]] = []
        for group in groups:
            columns += _read(scorer, plan, group, pair=pair, kind=kind, top=top, draws=draws)
            names += [plan.names[place] for place in group]
        manifest = add_shard(folder, manifest, number=number, names=names, rows=columns)
        note(f"shard {number + 1} of {len(plan.shards)}: {len(names)} rows")
    return manifest


def verify_cache(folder: Path, *, recipe: Recipe | Mapping[str, Any] | Path | str | None = None) -> Manifest:
    """Read every byte of a cache and compare it with the sums; with a recipe, its teacher's weights with those read.

    Raises `DataError` for what is damaged, missing or unfinished, and for another teacher.
    """
    manifest = Manifest.read(folder)
    damaged = damaged_files(folder, manifest)
    if damaged:
        raise DataError("\n".join(damaged_line(folder, file) for file in damaged))
    kept_tokenizer(folder, manifest)
    if not manifest.is_complete:
        raise DataError(
            f"the cache {folder} is not finished: {len(manifest.shards)} of {manifest.about['shards']} shards are "
            "there, and whole.\n  Go on with the same limbeck cache build that began it"
        )
    if recipe is not None:
        teacher = _pair(Recipe.load(recipe)).teacher
        assert teacher is not None, "a pair with a teacher was asked for"
        found, expected = whole_fingerprint(teacher), manifest.about["teacher"]["weights"]
        if found != expected:
            raise DataError(
                f"the cache {folder} was read by {manifest.about['teacher']['name']} with the weights {expected[:8]}; "
                f"the recipe's teacher {teacher.name_or_path} has {found[:8]}"
            )
    return manifest


def _folder(settings: Recipe, out: Path | None) -> Path:
    if out is None and settings.cache.path is None:
        raise ConfigError("no folder for the cache: give --out DIR, or set cache.kind: offline and cache.path")
    return Path(out if out is not None else str(settings.cache.path)).expanduser()


def _check(settings: Recipe, *, kind: Kind, top: int, draws: int | None, shard_mb: float) -> None:
    method = settings.built_method()
    if not only_fixed(method.sequences) or not matches_teacher(method) or method.revision is not None:
        base = settings.method["base"]
        raise ConfigError(f"{base} does not ask the teacher about the corpus's responses alone; take method.base=kd")
    if settings.models.teacher is None:
        raise ConfigError("models.teacher is missing; name the teacher that is to read the rows")
    if kind == "hidden" and (draws is not None or top != 32):
        raise ConfigError("--top and --draws are of --kind topk; a hidden cache keeps whole distributions")
    if draws is not None and top != 32:
        raise ConfigError(f"--top is {top} and --draws {draws}: classes are either the likeliest or drawn; give one")
    for name, value in (("--top", top), ("--draws", draws)):
        if value is not None and not 1 <= value <= _MOST_CLASSES:
            raise ConfigError(f"{name} is {value}; allowed: 1 to {_MOST_CLASSES}")
    if not 0 < shard_mb < math.inf:
        raise ConfigError(f"--shard-mb is {shard_mb:g}; a number above 0 is expected")


def _pair(settings: Recipe) -> Pair:
    models = settings.models
    if models.teacher is None:
        raise ConfigError("models.teacher is missing; name the teacher that is to read the rows")
    return Pair.load(
        teacher=models.teacher,
        student=models.student,
        student_dtype="float32",
        teacher_dtype=models.teacher_dtype,
        device="cpu",
        teacher_device=models.device if models.teacher_device == "auto" else models.teacher_device,
        teacher_bits=models.teacher_bits,
        attention=models.attention,
        allow_bin=models.allow_bin,
        chat_template_kwargs=dict(models.chat_template_kwargs),
    )


def _group_tokens(pair: Pair) -> int:
    assert pair.teacher is not None, "a pair with a teacher was asked for"
    return _CPU_TOKENS if pair.teacher.device.type == "cpu" else _GPU_TOKENS


def _token_bytes(scorer: Scorer, *, kind: Kind, top: int, draws: int | None) -> int:
    if kind == "topk":
        return 4 * ((draws or top) + 1)
    assert scorer.head.weight is not None, "checked before"
    return int(scorer.head.weight.shape[1]) * next(scorer.model.parameters()).element_size()


def _planned(rows: list[EncodedRow], *, group_tokens: int, shard_tokens: int) -> _Plan:
    """Longest rows first, like lengths together; rows without a scored token are left out."""
    by_name = {name: row for name, row in zip(encoded_names(rows), rows, strict=True) if any(row.is_response[1:])}
    names = sorted(by_name, key=lambda name: (-len(by_name[name].tokens), name))
    kept = [by_name[name] for name in names]
    if not kept:
        raise DataError("no row has a response token, so there is nothing for a teacher to read")
    shards: list[list[list[int]]] = []
    filled = shard_tokens
    for place, row in enumerate(kept):
        if filled >= shard_tokens:
            shards.append([])
            filled = 0
        filled += sum(row.is_response[1:])
        groups = shards[-1]
        if groups and (len(groups[-1]) + 1) * len(kept[groups[-1][0]].tokens) <= group_tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return _Plan(rows=kept, names=names, shards=shards)


@torch.no_grad()
def _read(
    scorer: Scorer, plan: _Plan, group: list[int], *, pair: Pair, kind: Kind, top: int, draws: int | None
) -> list[dict[str, torch.Tensor]]:
    """The columns of each row of a group."""
    items = [((place,), plan.rows[place]) for place in group]
    sequences = batch(items, pad_id=pair.pad_id).to(scorer.device)
    where = scored_tokens(sequences)
    view = scorer.view(sequences, where)
    counts = sequences.scored.sum(dim=1).tolist()
    if kind == "hidden":
        return [{"hidden": part.cpu().clone()} for part in torch.split(view.hidden, counts)]
    return coded_rows(
        view,
        tokens_N=where.tokens,
        counts=counts,
        names=[plan.names[place] for place in group],
        top=top,
        draws=draws,
        chunk=auto_chunk(pair.vocabulary.width, sequences.tokens.device.type),
    )


def _head(scorer: Scorer) -> dict[str, torch.Tensor]:
    head = scorer.head.detached()
    assert head.weight is not None, "checked before"
    tensors = {"weight": head.weight.cpu().clone()}
    return tensors if head.bias is None else {**tensors, "bias": head.bias.cpu().clone()}


def _about_head(scorer: Scorer, tensors: Mapping[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    head = scorer.head
    draft = folder / f".{HEAD}.draft"
    save_file({name: value.contiguous() for name, value in tensors.items()}, draft)
    found = file_sum(draft)
    draft.unlink()
    return {"scale": head.scale, "softcap": head.softcap, "sum": found}


def _about(settings: Recipe, pair: Pair, plan: _Plan, *, kind: Kind, scorer: Scorer, template: str) -> dict[str, Any]:
    teacher, name = pair.teacher, str(settings.models.teacher)
    assert teacher is not None, "a pair with a teacher was asked for"
    folder = Path(name).expanduser()
    weight = scorer.head.weight
    return {
        "kind": kind,
        "teacher": {
            "name": name,
            "weights": whole_fingerprint(teacher),
            "files": folder_fingerprint(folder) if folder.is_dir() else None,
            "dtype": str(teacher.dtype).removeprefix("torch."),
        },
        "tokenizer": tokenizer_hash(load_tokenizer(name)),
        "template": template,
        "text": text_hash(plan.names),
        "rows": len(plan.rows),
        "tokens": sum(sum(row.is_response[1:]) for row in plan.rows),
        "width": None if weight is None else int(weight.shape[1]),
        "logits_width": logits_width(teacher),
        "vocabulary": vocabulary_hash(pair.vocabulary),
        "group_tokens": _group_tokens(pair),
    }
