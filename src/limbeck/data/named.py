"""The corpora that have a name: where their files lie, here and on the hub, and the rows that the papers count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.registry import Registry

_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a data set on the hub, of which `skip` rows are left out at the start and at most `rows` are taken."""

    name: str
    file: str
    skip: int = 0
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A named corpus: per split a file below `data.root`, a file on the hub, and what the papers score.

    `published` is the number of rows that the papers name, `scored` the number in the files that their scripts read,
    where these are known to differ; `about` says how a local file differs from the papers' in kind.
    """

    files: Mapping[str, str]
    hub: Mapping[str, HubFile] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    scored: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    packaged: bool = False


CORPORA: Registry[Corpus] = Registry(
    "corpus",
    {
        "starter": Corpus(files={split: f"{split}.jsonl" for split in _SPLITS}, packaged=True),
        "dolly": Corpus(
            files={split: f"dolly/{split}.jsonl" for split in _SPLITS},
            hub={
                # The scripts of the papers take the first 1,000 of their raw file for validation.
                "train": HubFile(name="MiniLLM/dolly", file="raw.jsonl", skip=1000),
                "valid": HubFile(name="MiniLLM/dolly", file="raw.jsonl", rows=1000),
                "test": HubFile(name="MiniLLM/dolly", file="valid.jsonl"),
            },
            published={"train": 14_000, "valid": 500, "test": 500},
            scored={"train": 11_435, "valid": 1_000},
        ),
        "self-instruct": Corpus(
            files={"test": "self_instruct/test.jsonl"},
            hub={"test": HubFile(name="MiniLLM/self-inst", file="valid.jsonl")},
            published={"test": 252},
            scored={"test": 242},
        ),
        "vicuna": Corpus(
            files={"test": "vicuna/test.jsonl"},
            hub={"test": HubFile(name="MiniLLM/Vicuna", file="valid.jsonl")},
            published={"test": 80},
        ),
        "sni": Corpus(
            files={"test": "sni/test_11plus.jsonl"},
            hub={"test": HubFile(name="MiniLLM/sinst", file="11_/valid.jsonl")},
            published={"test": 9_000},
            scored={"test": 1_694},
        ),
        "sni-mixed": Corpus(
            files={"test": "sni/test_mixed.jsonl"},
            published={"test": 9_000},
            about={"test": "an even sample over the tasks, mostly short outputs: not the subset that the papers score"},
        ),
        "unnatural": Corpus(
            files={"test": "unnatural/test_short.jsonl"},
            hub={"test": HubFile(name="MiniLLM/uinst", file="11_/valid.jsonl", rows=10_000)},
            published={"test": 60_000},
            scored={"test": 10_000},
            about={"test": "outputs of one or two words: not the subset that the papers score (11 words and more)"},
        ),
    },
)
FIVE = ("dolly", "self-instruct", "vicuna", "sni", "unnatural")
"""The evaluation sets of the papers, in the order of their tables."""


def count_note(corpus: str, *, split: str, rows: int, is_from_hub: bool = False) -> str | None:
    """How many rows there are beside what the papers say; None where they are as many, or no paper has the corpus.

    >>> count_note("vicuna", split="test", rows=68)
    'vicuna test: 68 rows; the papers name 80'
    >>> count_note("sni", split="test", rows=1440)
    'sni test: 1,440 rows; the papers name 9,000, and their scripts read 1,694'
    >>> count_note("dolly", split="test", rows=500), count_note("starter", split="test", rows=64)
    (None, None)
    """
    entry = CORPORA.get(corpus)
    if entry is None or split not in entry.published:
        return None
    named, scored = entry.published[split], entry.scored.get(split)
    about = None if is_from_hub else entry.about.get(split)
    if rows == named and about is None:
        return None
    found = f"{corpus} {split}: {rows:,} rows; the papers name {named:,}"
    found += f", and their scripts read {scored:,}" if scored is not None else ""
    return f"{found}; {about}" if about is not None else found


def local_file(entry: Corpus, split: str, *, root: Path | None) -> Path | None:
    """Where a split lies on this machine; None where that was not said."""
    if entry.packaged:
        return Path(__file__).parent / "starter" / entry.files[split]
    return None if root is None else root.expanduser() / entry.files[split]


def expected_rows(corpus: str, *, split: str, root: Path | None = None) -> int | None:
    """How many rows a named corpus has: those of its file here, else what the papers' scripts read, or the papers name.

    None for a split of which neither is known. Nothing is read but lines.

    >>> [expected_rows(corpus, split="test") for corpus in ("sni", "vicuna")], expected_rows("vicuna", split="train")
    ([1694, 80], None)
    """
    entry = CORPORA[corpus]
    path = local_file(entry, split, root=root) if split in entry.files else None
    if path is not None and path.is_file():
        return count_lines(path)
    return entry.scored.get(split, entry.published.get(split))


def count_lines(path: Path) -> int:
    """The lines of a file that are not empty."""
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)
