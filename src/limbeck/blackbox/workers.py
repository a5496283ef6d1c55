"""Processes that answer one line with one line, and are killed when they do not."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from limbeck.errors import ConfigError

Outcome = Literal["answered", "timeout", "crash"]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of a question: `body` is the worker's answer, empty unless it was "answered"."""

    outcome: Outcome
    body: Mapping[str, Any] = field(default_factory=dict)


class WorkerPool:
    """Up to `size` processes of one command, each asked one thing at a time; safe to use from several threads.

    A worker first writes `{"ready": true}`, or `{"missing": why}`, then a JSON line for each that it reads. One that
    takes longer than `seconds` is killed, and one that ends is given up; the next question gets a fresh one. `outcomes`
    counts what became of all questions. Raises `ConfigError` where a worker lacks something (`advice` says what to do)
    or is not ready within `start_seconds`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        size: int = 1,
        seconds: float = 5.0,
        start_seconds: float = 60.0,
        advice: str = "",
    ) -> None:
        if size < 1 or seconds <= 0 or start_seconds <= 0:
            raise ConfigError(f"a pool of {size} workers with {seconds:g} seconds; allowed: 1 or more, above 0")
        self._command = tuple(command)
        self._seconds, self._start_seconds = seconds, start_seconds
        self._advice = advice
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(None)
        self.outcomes: Counter[Outcome] = Counter()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, question: Mapping[str, Any]) -> Reply:
        """The answer to one question, waited for while all workers are busy. Raises `ConfigError`."""
        worker = self._free.get()
        try:
            if worker is None:
                worker = self._started()
            reply = worker.ask(json.dumps(question), seconds=self._seconds)
            if reply.outcome != "answered":
                worker.kill()
                worker = None
        except BaseException:
            if worker is not None:
                worker.kill()
            worker = None
            raise
        finally:
            self._free.put(worker)
        with self._lock:
            self.outcomes[reply.outcome] += 1
        return reply

    def close(self) -> None:
        """End every worker that is not busy. The pool can be asked again, and starts new ones."""
        for _ in range(self._free.qsize()):
            worker = self._free.get()
            if worker is not None:
                worker.kill()
            self._free.put(None)

    def _started(self) -> _Worker:
        worker = _Worker(self._command)
        said = worker.said(seconds=self._start_seconds)
        if said.body.get("ready"):
            return worker
        worker.kill()
        missing = said.body.get("missing")
        advice = f"\n  {self._advice}" if self._advice else ""
        if missing is not None:
            raise ConfigError(f"a worker cannot do its work: {missing}{advice}")
        why = f"was not ready within {self._start_seconds:g} seconds" if said.outcome == "timeout" else "did not start"
        raise ConfigError(f"a worker {why}: {' '.join(self._command)}{advice}")


class _Worker:
    """One process, and a thread that reads its lines: waiting for a line can then have an end."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, line: str, *, seconds: float) -> Reply:
        assert self._process.stdin is not None, "it was opened as a pipe"
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            return Reply(outcome="crash")
        return self.said(seconds=seconds)

    def said(self, *, seconds: float) -> Reply:
        """The next line that the process writes, as a reply; a time-out leaves the process as it is."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return Reply(outcome="timeout")
        try:
            body = None if line is None else json.loads(line)
        except ValueError:
            body = None
        return Reply(outcome="answered", body=body) if isinstance(body, dict) else Reply(outcome="crash")

    def kill(self) -> None:
        """End the process at once, whatever it does, and close its pipes."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "both were opened as pipes"
            try:
                pipe.close()
            except BrokenPipeError:
                # What was not yet written to a process that is gone.
                continue

    def _read(self) -> None:
        assert self._process.stdout is not None, "it was opened as a pipe"
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)
