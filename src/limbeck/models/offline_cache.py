"""A teacher's work as a folder: shards of safetensors that are read in place, and a manifest that says what they are.

DIR/manifest.json              who read what, and the shards that are there, with their sums
DIR/teacher/                   the teacher's tokenizer, for the vocabulary rule, and its config
DIR/head.safetensors           the teacher's head, of a `hidden` cache
DIR/shard-NNNNN.safetensors    rows by name: hidden states, or coded classes
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limbeck.errors import DataError

FORMAT = 1
MANIFEST, TEACHER, HEAD = "manifest.json", "teacher", "head.safetensors"
_BLOCK = 1 << 24

Kind = Literal["hidden", "topk"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file: its rows and scored tokens, its size in bytes, and the CRC-32 of it all."""

    file: str
    rows: int
    tokens: int
    bytes: int
    sum: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a cache is. `about` says who read what and how; two builds with the same `about` make the same cache.

    `about` has `kind`, `teacher` (`name`, `weights`, `files`, `dtype`), `tokenizer`, `template`, `text`, `rows`,
    `tokens`, `width`, `vocabulary`, `shards` (how many there will be), and for `topk` `top` and `draws`.
    """

    about: Mapping[str, Any]
    shards: tuple[Shard, ...] = field(default_factory=tuple)

    @property
    def kind(self) -> Kind:
        """What is kept of each token."""
        kind: Kind = self.about["kind"]
        return kind

    @property
    def is_complete(self) -> bool:
        """Whether every shard is there."""
        return len(self.shards) == int(self.about["shards"])

    @property
    def num_bytes(self) -> int:
        """All shards together; the head is not among them."""
        return sum(shard.bytes for shard in self.shards)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder. Raises `DataError`."""
        path = folder / MANIFEST
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            expected = body.pop("sum")
            if expected != _text_sum(body):
                raise DataError(f"{path} is damaged: it does not have the sum that was written with it.\n  {_ANEW}")
            if body["format"] != FORMAT:
                raise DataError(f"{path} has format {body['format']}, this Limbeck reads {FORMAT}.\n  {_ANEW}")
            return cls(about=body["about"], shards=tuple(Shard(**each) for each in body["shards"]))
        except FileNotFoundError as error:
            raise DataError(f"{folder} holds no {MANIFEST}, so it is no teacher cache.\n  {_AGAIN}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}\n  {_ANEW}") from error

    def write(self, folder: Path) -> None:
        """Put the manifest in its place, whole or not at all."""
        body = {"format": FORMAT, "about": dict(self.about), "shards": [asdict(each) for each in self.shards]}
        body = json.loads(json.dumps(body))
        draft = folder / f".{MANIFEST}.draft"
        draft.write_text(json.dumps({"sum": _text_sum(body), **body}, indent=1), encoding="utf-8")
        flush(draft)
        os.replace(draft, folder / MANIFEST)
        flush(folder)


_AGAIN = "Make one with: limbeck cache build RECIPE --out DIR"
_ANEW = "Remove the folder, and make the cache again with: limbeck cache build RECIPE --out DIR"


def begin(folder: Path, about: Mapping[str, Any]) -> Manifest:
    """The manifest of a build that starts, or of one that goes on: the shards that are there and whole by their sums.

    Raises `DataError` if the folder holds another cache, or anything else.
    """
    about = json.loads(json.dumps(dict(about)))
    if (folder / MANIFEST).exists():
        found = Manifest.read(folder)
        different = [key for key in {**found.about, **about} if found.about.get(key) != about.get(key)]
        if different:
            lines = [f"{key}: {found.about.get(key)} there, {about.get(key)} now" for key in sorted(different)]
            raise DataError(
                f"{folder} is the cache of something else; it differs in\n  "
                + "\n  ".join(lines)
                + "\n  Build into another folder with --out DIR, or remove this one"
            )
        whole = [each for each in found.shards if file_sum(folder / each.file) == each.sum]
        manifest = Manifest(about=about, shards=tuple(whole))
    else:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if others and set(others) - {TEACHER, HEAD}:
            raise DataError(f"{folder} is not empty and holds no {MANIFEST}; choose another folder with --out DIR")
        manifest = Manifest(about=about)
    for draft in folder.glob(".shard-*"):
        draft.unlink()
    manifest.write(folder)
    return manifest


def shard_name(number: int) -> str:
    """The file of the shard of this number.

    >>> shard_name(7)
    'shard-00007.safetensors'
    """
    return f"shard-{number:05d}.safetensors"


def add_shard(
    folder: Path, manifest: Manifest, *, number: int, names: Sequence[bytes], rows: Sequence[Mapping[str, Tensor]]
) -> Manifest:
    """Write a shard and name it in the manifest; a kill before that leaves nothing that a later build would trust.

    Each row has the same columns: `hidden`, or those of `coded_rows`. The columns of all rows stand one behind the
    other; `places` says where each row begins in each, in the order of the columns' names.
    """
    columns = sorted(rows[0])
    sums = [zlib.crc32(b"".join(_bytes(row[name]) for name in columns)) for row in rows]
    sizes = torch.tensor([[len(row[name]) for name in columns] for row in rows], dtype=torch.long)
    tensors = {name: torch.cat([row[name] for row in rows]) for name in columns}
    tensors |= {
        "names": torch.frombuffer(bytearray(b"".join(names)), dtype=torch.uint8).view(len(names), -1).clone(),
        "places": torch.cat([torch.zeros(1, len(columns), dtype=torch.long), sizes.cumsum(dim=0)]),
        "sums": torch.tensor(sums, dtype=torch.long),
    }
    file = shard_name(number)
    draft = folder / f".{file}.draft"
    save_file({name: value.contiguous() for name, value in tensors.items()}, draft)
    flush(draft)
    os.replace(draft, folder / file)
    tokens = sum(len(row["hidden" if "hidden" in row else "counts"]) for row in rows)
    shard = Shard(file=file, rows=len(rows), tokens=tokens, bytes=_size(folder / file), sum=file_sum(folder / file))
    shards = tuple(sorted([*manifest.shards, shard], key=lambda each: each.file))
    grown = Manifest(about=manifest.about, shards=shards)
    grown.write(folder)
    return grown


class Shards:
    """The rows of a complete cache by name, read in place. Raises `DataError` for one that is not complete or whole.

    At the start only sizes are compared; a row's own sum is, when it is read for the first time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        if not self.manifest.is_complete:
            there, wanted = len(self.manifest.shards), self.manifest.about["shards"]
            raise DataError(
                f"the cache {folder} is not finished: {there} of {wanted} shards are there.\n"
                "  Go on with the same limbeck cache build that began it"
            )
        self._open: list[Any] = []
        self._places: list[Tensor] = []
        self._sums: list[list[int]] = []
        self._rows: dict[bytes, tuple[int, int]] = {}
        self._trusted: set[bytes] = set()
        self._columns: list[str] = []
        for number, shard in enumerate(self.manifest.shards):
            self._add(number, shard)

    def __contains__(self, name: bytes) -> bool:
        return name in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, name: bytes) -> dict[str, Tensor]:
        """The columns of a row, on the CPU."""
        number, place = self._rows[name]
        begins, ends = self._places[number][place].tolist(), self._places[number][place + 1].tolist()
        found: dict[str, Tensor] = {
            column: self._open[number].get_slice(column)[a:b]
            for column, a, b in zip(self._columns, begins, ends, strict=True)
        }
        if name not in self._trusted:
            if zlib.crc32(b"".join(_bytes(found[column]) for column in self._columns)) != self._sums[number][place]:
                raise self._damaged(self.manifest.shards[number].file)
            self._trusted.add(name)
        return found

    def _add(self, number: int, shard: Shard) -> None:
        path = self.folder / shard.file
        if _size(path) != shard.bytes:
            raise self._damaged(shard.file)
        try:
            opened: Any = safe_open(path, framework="pt")
            names = opened.get_tensor("names").numpy()
            self._places.append(opened.get_tensor("places"))
            self._sums.append(opened.get_tensor("sums").tolist())
            self._columns = sorted(set(opened.keys()) - {"names", "places", "sums"})
        except (OSError, SafetensorError, KeyError) as error:
            raise self._damaged(shard.file) from error
        self._open.append(opened)
        self._rows |= {row.tobytes(): (number, place) for place, row in enumerate(names)}

    def _damaged(self, file: str) -> DataError:
        return DataError(damaged_line(self.folder, file))


def damaged_line(folder: Path, file: str) -> str:
    """What to do about a part of a cache that is not what was written."""
    return (
        f"{folder / file} is damaged or missing.\n  Remove it and go on with the limbeck cache build that made the "
        "cache: only what is missing is read again"
    )


def damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    """The shards, and the head, whose bytes are not those that were written; reads everything."""
    sums = {each.file: each.sum for each in manifest.shards}
    sums |= {HEAD: manifest.about["head"]["sum"]} if "head" in manifest.about else {}
    return [file for file, expected in sums.items() if file_sum(folder / file) != expected]


def file_sum(path: Path) -> str:
    """CRC-32 of a file: it tells damage, not forgery. Empty where there is none."""
    if not path.is_file():
        return ""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def text_hash(names: Iterable[bytes]) -> str:
    """A hash of a set of rows, by their names; their order does not enter."""
    return hashlib.blake2b(b"".join(sorted(set(names))), digest_size=16).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _text_sum(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


def flush(path: Path) -> None:
    """Force a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
