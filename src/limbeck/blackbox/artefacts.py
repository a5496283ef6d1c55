"""What an UNDO run leaves on disk: rows first, each file whole or not there, each stage with a mark that it is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck import files
from limbeck.errors import CheckpointError
from limbeck.files import json_lines, write_whole

EVENTS = "events.jsonl"
_DONE = "done"
_DAMAGED = "the run's folder is damaged: put the file back, or start again in another folder"


def digest(value: Any) -> str:
    """A hash of plain values.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}), len(digest(None))
    (True, 32)
    """
    body = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(body.encode("utf-8", errors="surrogatepass"), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """A hash of a file's bytes; of a folder's files with their names."""
    if path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.is_file())
        return digest([[str(each.relative_to(path)), file_digest(each)] for each in inside])
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, written whole."""
    write_whole(path, json_lines(rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines. Raises `CheckpointError` where it is missing or damaged."""
    return list(files.read_rows(path, error=CheckpointError, remedy=_DAMAGED))


def write_json(path: Path, value: Any) -> None:
    """One JSON value, written whole."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises `CheckpointError` where it is missing or damaged."""
    return files.read_json(path, error=CheckpointError, remedy=_DAMAGED)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of a run: each is done once, from inputs that its mark remembers.

    A stage is a function that writes `outputs` below `folder`. Killed anywhere inside, it is done again from the start
    and writes the same; its mark is the last thing that is written.
    """

    run: Path
    say: Callable[[str], None]
    elsewhere: str = "take another folder: run=runs/NAME, or "
    """What may be done about a stage of other inputs than to do it again."""

    def once(
        self, folder: Path, name: str, *, inputs: Mapping[str, Any], outputs: Sequence[str], make: Callable[[], None]
    ) -> None:
        """Do a stage unless it is done. Raises `CheckpointError` where it was done from other inputs, or where one of
        its outputs is not what it wrote."""
        mark, wanted = folder / _DONE / f"{name}.json", digest(dict(inputs))
        if mark.is_file():
            self._check(read_json(mark), mark, wanted, folder)
            return
        self.event("begin", folder, name)
        make()
        written = {each: file_digest(folder / each) for each in outputs}
        write_json(mark, {"stage": name, "inputs": wanted, "outputs": written})
        self.event("done", folder, name)

    def is_done(self, folder: Path, name: str) -> bool:
        """Whether a stage has its mark."""
        return (folder / _DONE / f"{name}.json").is_file()

    def event(self, what: str, folder: Path, stage: str, **more: Any) -> None:
        """One line of events.jsonl; the only file of a run that holds times."""
        where = str(folder.relative_to(self.run)) if folder != self.run else "."
        row = {"event": what, "folder": where, "stage": stage, "at": round(time.time(), 3), **more}
        with (self.run / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _check(self, found: Mapping[str, Any], mark: Path, wanted: str, folder: Path) -> None:
        if found["inputs"] != wanted:
            raise CheckpointError(
                f"the stage '{found['stage']}' in {folder} was done from other inputs than it has now; results of two "
                f"recipes do not mix\n  {self.elsewhere}remove {folder} to do it again"
            )
        for name, sum_ in found["outputs"].items():
            path = folder / name
            if not path.exists() or file_digest(path) != sum_:
                raise CheckpointError(
                    f"{path} is not what the stage '{found['stage']}' wrote; the run directory is damaged\n"
                    f"  put the file back, or remove {mark} to do the stage again"
                )
