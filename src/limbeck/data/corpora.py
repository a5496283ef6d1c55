"""Corpora by name, by path, or by hub id; and the validation rows that are cut from one.

A name stands for a file below `data.root`, or, where that is `hub`, for the papers' file on the hub; "starter" ships
with Limbeck. Nothing is downloaded unasked: a hub set is fetched only for `data.root=hub` or when its id (`owner/name`,
or `owner/name:configuration`) is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.data.examples import Dataset, from_rows, read_examples
from limbeck.data.named import CORPORA, Corpus, count_note, local_file
from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.seeds import Seeds

_SUFFIXES = (".jsonl", ".json", ".gz")
_VALIDATION_ROWS = 500
_VALIDATION_SHARE = 0.05


HUB = Path("hub")
"""As `data.root`: named corpora come from the hub. A folder of that name is `./hub`."""


def load_corpus(
    corpus: str,
    *,
    split: str = "train",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    seeds: Seeds | None = None,
) -> Dataset:
    """The rows of a named corpus, of a file, or of a hub set.

    `root` is the folder of the named corpora, or `HUB`. A path is what ends in .jsonl, .json or .gz, begins with `.`,
    `~` or `/`, or exists; `split` does not touch it. Any other text with "/" is a hub id and goes through `datasets`.
    `max_rows` keeps that many rows, chosen by `seeds` and left in file order. Raises `UnknownName` for an unknown name,
    `DataError` for a split, file or row that is no good.
    """
    if corpus in CORPORA:
        dataset = _named(corpus, split=split, root=root, columns=columns)
        note = count_note(corpus, split=split, rows=len(dataset), is_from_hub=root == HUB)
        dataset = replace(dataset, note=note or "")
    elif is_path(corpus):
        dataset = read_examples(Path(corpus).expanduser(), columns=columns)
    elif "/" in corpus:
        dataset = _from_hub(corpus, split=split, columns=columns)
    else:
        known = [*CORPORA, "FILE.jsonl", "OWNER/NAME (hub)"]
        raise UnknownName.among("corpus", corpus, known, where="data.corpus")
    return limited(dataset, max_rows=max_rows, seeds=seeds or Seeds(0))


def own_validation(
    corpus: str, *, root: Path | None = None, columns: Mapping[str, str] | None = None
) -> Dataset | None:
    """The validation split that a corpus brings along, None where it has none. A file never has one."""
    if corpus in CORPORA:
        has_one = "valid" in CORPORA[corpus].files
        return load_corpus(corpus, split="valid", root=root, columns=columns) if has_one else None
    if is_path(corpus):
        return None
    splits = [name for name in ("validation", "valid", "dev") if name in _hub_splits(corpus)]
    return load_corpus(corpus, split=splits[0], columns=columns) if splits else None


def cut_validation(
    dataset: Dataset,
    *,
    spec: str | int | float = "auto",
    seeds: Seeds,
    columns: Mapping[str, str] | None = None,
) -> tuple[Dataset, Dataset]:
    """Training and validation rows: `spec` is "auto", a number of rows, a share below 1, or the path of a file.

    "auto" cuts 500 rows, at most 5 %, at least one. Rows are chosen by `seeds`; training rows stay in file order, those
    that are cut are in the order of the draw, and so the first of them are from all over the file. A path leaves the
    training rows whole. Raises `ConfigError` for a number out of range, `DataError` where no row would be left.

    >>> data = from_rows([{"prompt": f"{i}+1?", "completion": str(i + 1)} for i in range(40)])
    >>> [len(part) for part in cut_validation(data, spec=0.25, seeds=Seeds(0))]
    [30, 10]
    """
    if isinstance(spec, str) and spec != "auto":
        if not is_path(spec):
            raise ConfigError(
                f"data.valid is '{spec}', which is no file.\n"
                f"  allowed: auto, a number of rows (500), a share (0.05), or the path of a .jsonl file"
            )
        return dataset, read_examples(Path(spec).expanduser(), columns=columns)
    rows = len(dataset)
    if rows < 2:
        raise DataError(
            f"{dataset.source} has one row; validation needs another.\n  add rows, or set data.valid to a file"
        )
    count = _validation_rows(spec, rows=rows, source=dataset.source)
    drawn = seeds.child("valid").generator().permutation(rows)[:count].tolist()
    chosen = set(drawn)
    train = tuple(example for index, example in enumerate(dataset.examples) if index not in chosen)
    valid = tuple(dataset.examples[index] for index in drawn)
    return (
        replace(dataset, examples=train),
        replace(dataset, examples=valid, source=f"{dataset.source} ({count:,} of {rows:,} rows cut by seed)"),
    )


def is_path(corpus: str) -> bool:
    """Whether a text names a file or folder of this machine, existing or not, rather than a hub set.

    >>> is_path("./rows"), is_path("my/rows.jsonl.gz"), is_path("owner/name")
    (True, True, False)
    """
    spelled = corpus.endswith(_SUFFIXES) or corpus.startswith((".", "~", os.sep))
    return spelled or Path(corpus).exists()


def _validation_rows(spec: str | int | float, *, rows: int, source: str) -> int:
    if spec == "auto":
        return max(1, min(_VALIDATION_ROWS, int(rows * _VALIDATION_SHARE)))
    allowed = f"allowed: auto, 1 to {rows - 1} rows, a share between 0 and 1, or a path\n  data from {source}"
    if isinstance(spec, bool | str) or not spec > 0:
        raise ConfigError(f"data.valid is {spec}.\n  {allowed}")
    if isinstance(spec, float):
        count = max(1, round(spec * rows)) if spec < 1 else rows
    else:
        count = spec
    if count >= rows:
        raise ConfigError(f"data.valid is {spec}, which leaves no training row of {rows:,}.\n  {allowed}")
    return count


def _named(corpus: str, *, split: str, root: Path | None, columns: Mapping[str, str] | None) -> Dataset:
    entry = CORPORA[corpus]
    if split not in entry.files:
        raise DataError(f"the corpus {corpus} has no split '{split}'.\n  it has: {', '.join(entry.files)}")
    if root == HUB and not entry.packaged:
        return _papers_file(corpus, entry, split=split, columns=columns)
    path = local_file(entry, split, root=root)
    if path is None:
        hub = f", or to hub for the papers' file on the hub ({entry.hub[split].name})" if split in entry.hub else ""
        raise DataError(
            f"the corpus {corpus} is not packaged, and data.root does not say where it lies.\n"
            f"  set data.root (limbeck evaluate and study: --root) to the folder that holds {entry.files[split]}{hub}"
        )
    return read_examples(path, columns=columns, corpus=corpus)


def _papers_file(corpus: str, entry: Corpus, *, split: str, columns: Mapping[str, str] | None) -> Dataset:
    """The file of a named corpus that the papers' scripts read, from the hub."""
    if split not in entry.hub:
        raise DataError(
            f"the corpus {corpus} is not on the hub.\n"
            "  set data.root (limbeck evaluate and study: --root) to the folder that holds its files"
        )
    place = entry.hub[split]
    rows = _loaded(place.name, split="train", data_files=place.file)
    end = len(rows) if place.rows is None else min(len(rows), place.skip + place.rows)
    chosen = [rows[index] for index in range(place.skip, end)]
    source = f"{place.name} {place.file} from the hub"
    return from_rows(chosen, columns=columns, corpus=corpus, source=source)


def _from_hub(corpus: str, *, split: str, columns: Mapping[str, str] | None) -> Dataset:
    name, _, configuration = corpus.partition(":")
    rows = _loaded(name, split=split, configuration=configuration or None)
    return from_rows(rows, columns=columns, corpus=corpus, source=f"{corpus} {split}")


def _loaded(name: str, *, split: str, configuration: str | None = None, data_files: str | None = None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, configuration, split=split, data_files=data_files)
    except Exception as error:
        what = f"its file '{data_files}'" if data_files is not None else f"its split '{split}'"
        raise DataError(
            f"'{name}' is no file here, and `datasets` cannot load {what} from the hub:\n"
            f"  {type(error).__name__}: {error}\n"
            f"  check the spelling (OWNER/NAME or OWNER/NAME:CONFIGURATION) and the connection, or give a .jsonl file"
        ) from error


def _hub_splits(corpus: str) -> list[str]:
    import datasets

    name, _, configuration = corpus.partition(":")
    try:
        return list(datasets.get_dataset_split_names(name, configuration or None))
    except Exception as error:
        raise DataError(
            f"`datasets` cannot list the splits of '{corpus}': {type(error).__name__}: {error}\n"
            f"  set data.valid to a number of rows or a file"
        ) from error


def limited(dataset: Dataset, *, max_rows: int | None, seeds: Seeds) -> Dataset:
    """At most so many rows, chosen by `seeds` and left in order; all of them for None. Raises `ConfigError` for 0."""
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"data.max_rows is {max_rows}; at least 1 is needed, or null for all rows")
    if max_rows is None or max_rows >= len(dataset):
        return dataset
    order = seeds.child("max-rows", dataset.examples[0].corpus).generator().permutation(len(dataset))
    chosen = sorted(order[:max_rows].tolist())
    return replace(dataset, examples=tuple(dataset.examples[index] for index in chosen))
