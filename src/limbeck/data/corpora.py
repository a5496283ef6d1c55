"""Corpora by name, by path, or by hub id; and the validation rows that are cut from one.

A name stands for a file below `data.root`; "starter" ships with Limbeck. Nothing is downloaded for a name: a hub set is
fetched only when its id (`owner/name`, or `owner/name:configuration`) is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.data.examples import Dataset, from_rows, read_examples
from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.registry import Registry
from limbeck.seeds import Seeds

_STARTER = Path(__file__).parent / "starter"
_SUFFIXES = (".jsonl", ".json", ".gz")
_VALIDATION_ROWS = 500
_VALIDATION_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A named corpus: the file of each split below the root, and the hub id to suggest where there is no root."""

    files: Mapping[str, str]
    hub: str = ""
    packaged: bool = False


CORPORA: Registry[Corpus] = Registry(
    "corpus",
    {
        "starter": Corpus(files={split: f"{split}.jsonl" for split in ("train", "valid", "test")}, packaged=True),
        "dolly": Corpus(
            files={split: f"dolly/{split}.jsonl" for split in ("train", "valid", "test")},
            hub="databricks/databricks-dolly-15k",
        ),
        "self-instruct": Corpus(files={"test": "self_instruct/test.jsonl"}),
        "vicuna": Corpus(files={"test": "vicuna/test.jsonl"}),
        "sni": Corpus(files={"test": "sni/test_11plus.jsonl"}),
        "unnatural": Corpus(files={"test": "unnatural/test_short.jsonl"}),
    },
)


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

    A path is what ends in .jsonl, .json or .gz, begins with `.`, `~` or `/`, or exists; `split` does not touch it. Any
    other text with "/" is a hub id and goes through `datasets`. `max_rows` keeps that many rows, chosen by `seeds` and
    left in file order. Raises `UnknownName` for an unknown name, `DataError` for a split, file or row that is no good.
    """
    if corpus in CORPORA:
        dataset = read_examples(_file(corpus, split=split, root=root), columns=columns, corpus=corpus)
    elif is_path(corpus):
        dataset = read_examples(Path(corpus).expanduser(), columns=columns)
    elif "/" in corpus:
        dataset = _from_hub(corpus, split=split, columns=columns)
    else:
        known = [*CORPORA, "FILE.jsonl", "OWNER/NAME (hub)"]
        raise UnknownName.among("corpus", corpus, known, where="data.corpus")
    return dataset if max_rows is None else _limited(dataset, max_rows=max_rows, seeds=seeds or Seeds(0))


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

    "auto" cuts 500 rows, at most 5 %, at least one. Rows are chosen by `seeds` and stay in file order; a path leaves
    the training rows whole. Raises `ConfigError` for a number out of range, `DataError` where no row would be left.

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
    chosen = set(seeds.child("valid").generator().permutation(rows)[:count].tolist())
    train = tuple(example for index, example in enumerate(dataset.examples) if index not in chosen)
    valid = tuple(example for index, example in enumerate(dataset.examples) if index in chosen)
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


def _file(corpus: str, *, split: str, root: Path | None) -> Path:
    entry = CORPORA[corpus]
    if split not in entry.files:
        raise DataError(f"the corpus {corpus} has no split '{split}'.\n  it has: {', '.join(entry.files)}")
    if entry.packaged:
        return _STARTER / entry.files[split]
    if root is None:
        hub = f", or name the hub set: data.corpus={entry.hub}" if entry.hub else ""
        raise DataError(
            f"the corpus {corpus} is not packaged, and data.root does not say where it lies.\n"
            f"  set data.root to the folder that holds {entry.files[split]}{hub}"
        )
    return root / entry.files[split]


def _from_hub(corpus: str, *, split: str, columns: Mapping[str, str] | None) -> Dataset:
    import datasets

    name, _, configuration = corpus.partition(":")
    try:
        rows = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:
        raise DataError(
            f"'{corpus}' is no file here, and `datasets` cannot load its split '{split}' from the hub:\n"
            f"  {type(error).__name__}: {error}\n"
            f"  check the spelling (OWNER/NAME or OWNER/NAME:CONFIGURATION) and the connection, or give a .jsonl file"
        ) from error
    return from_rows(rows, columns=columns, corpus=corpus, source=f"{corpus} {split}")


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


def _limited(dataset: Dataset, *, max_rows: int, seeds: Seeds) -> Dataset:
    if max_rows < 1:
        raise ConfigError(f"data.max_rows is {max_rows}; at least 1 is needed, or null for all rows")
    if max_rows >= len(dataset):
        return dataset
    order = seeds.child("max-rows", dataset.examples[0].corpus).generator().permutation(len(dataset))
    chosen = sorted(order[:max_rows].tolist())
    return replace(dataset, examples=tuple(dataset.examples[index] for index in chosen))
