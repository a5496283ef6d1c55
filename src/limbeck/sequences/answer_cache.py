"""Answers of a teacher on disk: one file for one teacher asked in one way, shared by runs and processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from limbeck.errors import ConfigError, DataError

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the teacher said to a prompt: `prompt` is the hash of what it read, `tokens` its own ids.

    `stopped`: whether the answer ended with a stop token, which then is the last of its tokens.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    stopped: bool


def prompt_hash(tokens: Sequence[int]) -> str:
    """The content hash of a prompt as the teacher reads it: what an answer is found by, and drawn by.

    >>> prompt_hash([1, 2]) == prompt_hash((1, 2)), prompt_hash([1, 2]) == prompt_hash([12])
    (True, False)
    """
    return hashlib.blake2b(json.dumps(list(tokens)).encode(), digest_size=16).hexdigest()


class AnswerCache:
    """`folder/HASH.jsonl`: a header that says who was asked and how, then one answer a line, batch after batch.

    HASH is the content hash of the header. A batch is appended under a lock of the file, and its last line is marked:
    a batch of which a killed process wrote a part is not there, and the next writer takes the part away. An answer is
    there once: who comes second with a prompt is given what the first one wrote. Raises `DataError` for a file that is
    damaged, `ConfigError` for a folder that cannot be written.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self._header = {"format": _FORMAT, **json.loads(json.dumps(dict(asked)))}
        text = json.dumps(self._header, sort_keys=True).encode()
        self.path = folder / f"{hashlib.blake2b(text, digest_size=16).hexdigest()}.jsonl"
        self._answers: dict[str, Answer] = {}
        self._end = 0

    def read(self) -> Mapping[str, Answer]:
        """All answers that are there, by the hash of their prompt."""
        try:
            with self.path.open("rb") as file:
                self._catch_up(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(error) from error
        return self._answers

    def add(self, answers: Sequence[Answer]) -> list[Answer]:
        """Append a batch; returns what the file holds for its prompts, in their order."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as file:
                self._catch_up(file)
                # Nobody else writes now, so what follows the last whole batch was left by a process that was killed.
                file.truncate(self._end)
                new = {each.prompt: each for each in answers if each.prompt not in self._answers}
                file.seek(self._end)
                file.write(self._lines(list(new.values())))
                file.flush()
                os.fsync(file.fileno())
                file.seek(self._end)
                self._catch_up(file)
        except OSError as error:
            raise self._unusable(error) from error
        return [self._answers[each.prompt] for each in answers]

    def _lines(self, answers: Sequence[Answer]) -> bytes:
        head = [self._header] if self._end == 0 else []
        rows = [
            {**vars(each), "tokens": list(each.tokens), "ends_batch": place == len(answers) - 1}
            for place, each in enumerate(answers)
        ]
        return "".join(json.dumps(row) + "\n" for row in [*head, *rows]).encode()

    def _catch_up(self, file: BinaryIO) -> None:
        """Read the whole batches behind those that are known."""
        file.seek(self._end)
        position, pending = self._end, list[Answer]()
        for line in file:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            row = self._row(line, at=position)
            if self._end == 0:
                if row != self._header:
                    raise self._damaged("its first line is not the header of its name", position)
                self._end = position
                continue
            pending.append(self._answer(row, at=position))
            if row["ends_batch"]:
                self._answers.update({each.prompt: each for each in pending})
                self._end, pending = position, []

    def _row(self, line: bytes, *, at: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise self._damaged(str(error), at) from error
        if not isinstance(found, dict):
            raise self._damaged("a line is no JSON object", at)
        return found

    def _answer(self, row: Mapping[str, Any], *, at: int) -> Answer:
        try:
            return Answer(
                prompt=str(row["prompt"]),
                text=str(row["text"]),
                tokens=tuple(int(id) for id in row["tokens"]),
                stopped=bool(row["stopped"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}", at) from error

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, open for this process alone; a process that dies lets go of it."""
        import fcntl

        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _damaged(self, what: str, at: int) -> DataError:
        return DataError(
            f"{self.path} is damaged before byte {at}: {what}\n  Delete the file; its answers are then written again"
        )

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the teacher's answers cannot be kept in {self.path.parent}: {error.strerror}\n"
            "  Name a folder that can be written: method.sequences.cache, or the variable LIMBECK_CACHE"
        )
