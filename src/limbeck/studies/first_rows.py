"""The rows of a quickstart: the starter corpus or a user's file, as files that every arm reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.data.corpora import cut_validation, load_corpus, own_validation
from limbeck.data.examples import Dataset, read_examples
from limbeck.errors import CheckpointError, ConfigError, DataError
from limbeck.files import read_json, write_whole
from limbeck.records import Example
from limbeck.seeds import Seeds

_SEED = 0
_LEAST_ROWS = 40
# Every run of a quickstart encodes all its rows, and takes steps on a few hundred of them.
_MOST_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The files that every arm reads."""

    train: Path
    valid: Path
    held_out: tuple[Example, ...]
    num_train: int
    what: str


def gather_rows(data: Path | None, *, out: Path, most: int, settings: Mapping[str, object]) -> Rows:
    """Training, validation and held-out rows, the first two as files in `out`.

    `settings` and the rows' content are recorded there. Raises `DataError` for too few rows, and `ConfigError`, with
    nothing changed, where `out` holds a quickstart of other settings or rows.
    """
    seeds, name = Seeds(_SEED), "starter" if data is None else data.name
    if data is None:
        train, held_out = load_corpus("starter"), load_corpus("starter", split="test")
        valid = own_validation("starter")
        assert valid is not None
    else:
        whole = read_examples(data)
        if len(whole) < _LEAST_ROWS:
            raise DataError(
                f"{data} has {len(whole)} rows; the quickstart needs at least {_LEAST_ROWS} to learn and to score"
            )
        train, held_out = cut_validation(whole, spec=min(most, len(whole) // 5), seeds=seeds.child("held out"))
        train, valid = cut_validation(_without(train, held_out), spec="auto", seeds=seeds)
        train = _without(train, valid)
    found = len(train)
    if found > _MOST_ROWS:
        order = seeds.child("rows to learn from").generator().permutation(found)[:_MOST_ROWS].tolist()
        train = replace(train, examples=tuple(train.examples[place] for place in sorted(order)))
    hashes = [example.content_hash() for part in (train, valid, held_out) for example in part.examples]
    _claim(out, {**settings, "data": name, "rows": hashlib.blake2b("".join(hashes).encode()).hexdigest()[:16]})
    parts = {"train": train, "valid": valid}
    files = {split: _write_rows(part, out / "data" / f"{split}.jsonl") for split, part in parts.items()}
    chosen = seeds.child("held out order").generator().permutation(len(held_out))[:most].tolist()
    taken = f"{len(train):,}" if len(train) == found else f"{len(train):,} of {found:,}"
    return Rows(
        train=files["train"],
        valid=files["valid"],
        held_out=tuple(held_out.examples[place] for place in chosen),
        num_train=len(train),
        what=f"{name}: {taken} rows to learn from, {len(valid)} to validate on, {len(chosen)} held out",
    )


def _without(rows: Dataset, held_out: Dataset) -> Dataset:
    """The rows that ask what no held-out row asks: a file may hold a question twice. Raises `DataError` for none."""
    asked = {example.messages for example in held_out.examples}
    kept = tuple(example for example in rows.examples if example.messages not in asked)
    if len(kept) < 2:
        raise DataError(
            f"hardly a row of {rows.source} asks what no held-out row asks; remove the rows that stand twice"
        )
    return replace(rows, examples=kept)


def _claim(out: Path, identity: Mapping[str, object]) -> None:
    """Record what `out` is the folder of, or check it."""
    path = out / "quickstart.json"
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"'{out}' exists and holds no quickstart; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(dict(identity), indent=2) + "\n")
        return
    recorded = read_json(path, error=CheckpointError, remedy="choose another --out or remove that folder")
    different = [key for key in identity if recorded.get(key) != identity[key]]
    if different:
        changes = ", ".join(f"{key}: {recorded.get(key)} there, {identity[key]} now" for key in different)
        raise ConfigError(f"'{out}' holds another quickstart ({changes}); choose another --out or remove it")


def _write_rows(part: Dataset, path: Path) -> Path:
    lines = []
    for example in part.examples:
        turns = [{"role": turn.role, "content": _joined(turn.content, turn.input)} for turn in example.messages]
        answer = {"role": "assistant", "content": example.references[0]}
        lines.append(json.dumps({"id": example.id, "messages": [*turns, answer]}, ensure_ascii=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _joined(content: str, context: str) -> str:
    return f"{content}\n\n{context}" if context else content
