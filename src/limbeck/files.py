"""JSON and rows of JSON on disk: written whole, and read so that what is broken is told with its place."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.errors import CheckpointError, DataError, LimbeckError

_PARTIAL = ".partial"


def write_whole(path: Path, content: str | bytes) -> None:
    """Put a file in its place and force it to the disk: a reader sees the old content or the new, whatever happens.

    Half a surrogate pair, which a JSON string may hold, is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content.encode("utf-8", errors="surrogatepass") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        # On a full disk the draft would keep it full.
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def alone_in(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Work in a folder that no other process works in, or only looks as this one does where it is `shared`; whoever
    dies lets go of it.

    Raises `CheckpointError` where another one does. Not every file system can tell: there this does nothing.
    """
    # Not every system has it, and whoever only reads rows needs no lock.
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process is writing into {folder}\n  wait until it ends, or stop it first"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room; safetensors wraps the system's error into text."""
    full = (errno.ENOSPC, errno.EDQUOT)
    # Not imported here: where nothing has, it raised nothing.
    safetensors = sys.modules.get("safetensors")
    if safetensors is not None and isinstance(error, safetensors.SafetensorError):
        return any(f"(os error {number})" in str(error) for number in full)
    return isinstance(error, OSError) and error.errno in full


@contextlib.contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """A folder beside `place` to write in before it is renamed; gone afterwards, with those of processes killed so."""
    place.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{place.name}-"
    for old in place.parent.iterdir():
        owner = old.name.removeprefix(prefix).partition("-")[0]
        is_scratch = old.name.startswith(prefix) and old.name.endswith(_PARTIAL)
        if is_scratch and owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{prefix}{os.getpid()}-", suffix=_PARTIAL))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One row a line.

    >>> json_lines([{"id": 1}, {"id": "é"}])
    '{"id": 1}\\n{"id": "é"}\\n'
    """
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def read_json(path: Path, *, error: type[LimbeckError] = DataError, remedy: str = "") -> Any:
    """The value of a JSON file. Raises `error`, with what to do, where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as broken:
        raise _unreadable(error, str(path), broken, remedy) from broken


def read_rows(
    path: Path, *, growing: bool = False, error: type[LimbeckError] = DataError, remedy: str = ""
) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines. Raises `error`, with the line and what to do, where one is broken.

    `growing` says that a process may be writing it, or was killed while it did: a last line without its end is then
    left out.
    """
    try:
        # In bytes: a text may hold line breaks of its own (U+2028), which JSON leaves as they are.
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if growing and not line.endswith(b"\n"):
                    return
                yield read_row(line, place=f"{path} line {number}", error=error, remedy=remedy)
    except OSError as missing:
        raise _unreadable(error, str(path), missing, remedy) from missing


def read_row(line: bytes, *, place: str, error: type[LimbeckError] = DataError, remedy: str = "") -> dict[str, Any]:
    """The JSON object of a line; `place` it stands at is said where it is none.

    >>> read_row(b'{"id": 1}', place="rows.jsonl line 1")
    {'id': 1}
    """
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"{type(row).__name__} where a row should be, which is a JSON object")
    except ValueError as broken:
        raise _unreadable(error, place, broken, remedy) from broken
    return row


def _unreadable(error: type[LimbeckError], place: str, why: Exception, remedy: str) -> LimbeckError:
    said = why.msg if isinstance(why, json.JSONDecodeError) else str(why)
    return error(f"{place} cannot be read: {said}" + (f"\n  {remedy}" if remedy else ""))


def file_hash(path: Path) -> str:
    """A hash of a file's bytes: 16 hexadecimal digits."""
    status = path.stat()
    return _file_hash(path.absolute(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, written: int, size: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()
