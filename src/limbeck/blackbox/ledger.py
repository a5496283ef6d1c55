"""Every call of a teacher, on disk before anything is made of it: no call is paid twice."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request
from limbeck.blackbox.endpoints import Budget
from limbeck.errors import CheckpointError, Stopped

LEDGER = "calls.sqlite"
_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS about (format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, teacher TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL, stage TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (key TEXT NOT NULL, outcome TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the calls of a ledger have cost: calls that were answered, attempts on the wire, tokens, money."""

    calls: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class Ledger:
    """A SQLite file of requests and answers by key; safe to use from several threads of one process.

    An answer is committed, and on disk, before `record` returns. A process that is killed between a server's answer and
    that commit has paid for a call that is not in the ledger: the one thing that no client can rule out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "calls.sqlite") as ledger:
    ...     request = Request(turns=(), max_tokens=1)
    ...     ledger.record("a teacher", request, Completion(text="4", finish="stop", prompt_tokens=3), stage="solve")
    ...     ledger.answer("a teacher", request).text, ledger.answer("another", request), ledger.spent().prompt_tokens
    ('4', None, 3)
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.path = path

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Ledger]:
        """The ledger at this path, made if it is not there. Raises `CheckpointError` for a file that is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.executescript(_TABLES)
                found = connection.execute("SELECT format FROM about").fetchall()
                if not found:
                    connection.execute("INSERT INTO about VALUES (?)", (_FORMAT,))
            except sqlite3.DatabaseError as error:
                raise CheckpointError(f"{path} is no ledger of calls: {error}\n  remove it, or name another") from error
            if found and found[0][0] != _FORMAT:
                raise CheckpointError(f"the ledger {path} has format {found[0][0]}, this Limbeck reads {_FORMAT}")
            yield cls(connection, path)
        finally:
            connection.close()

    def answer(self, teacher: str, request: Request) -> Answer | None:
        """What was answered to this request; None where it was not made yet."""
        with self._lock:
            row = self._connection.execute("SELECT answer FROM calls WHERE key = ?", (request.key(teacher),)).fetchone()
        return None if row is None else _answer(row[0])

    def record(self, teacher: str, request: Request, answer: Answer, *, stage: str) -> None:
        """Keep an answer. A second answer to one request is dropped: the first is what was used."""
        body = {"refusal": asdict(answer)} if isinstance(answer, Refusal) else {"completion": answer.to_json()}
        tokens = (answer.prompt_tokens, answer.completion_tokens, answer.cost)
        values = (request.key(teacher), teacher, _json(asdict(request)), _json(body), *tokens, stage)
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def has_completion(self, teacher: str, *, stage: str | None = None) -> bool:
        """Whether this teacher has said something, in this stage where one is named."""
        where, values = ("", (teacher,)) if stage is None else (" AND stage = ?", (teacher, stage))
        with self._lock:
            row = self._connection.execute(
                f"SELECT 1 FROM calls WHERE teacher = ? AND answer LIKE '{{\"completion\"%'{where} LIMIT 1", values
            ).fetchone()
        return row is not None

    def attempted(self, teacher: str, request: Request, outcome: str) -> None:
        """Keep that a call went over the wire, and how it ended ("200", "429", "timeout", …)."""
        with self._lock:
            self._connection.execute("INSERT INTO attempts VALUES (?, ?)", (request.key(teacher), outcome))

    def spent(self, *, stage: str | Sequence[str] | None = None) -> Spent:
        """The sums over all calls, or over those of one stage or of several (attempts are counted over all)."""
        values = () if stage is None else (stage,) if isinstance(stage, str) else tuple(stage)
        where = "" if stage is None else f" WHERE stage IN ({', '.join('?' * len(values))})"
        columns = (
            "COUNT(*), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0), COALESCE(SUM(cost), 0)"
        )
        with self._lock:
            calls, prompt, completion, cost = self._connection.execute(
                f"SELECT {columns} FROM calls{where}", values
            ).fetchone()
            attempts = self._connection.execute("SELECT COUNT(*) FROM attempts").fetchone()[0]
        return Spent(
            calls=calls, attempts=attempts, prompt_tokens=prompt, completion_tokens=completion, cost=float(cost)
        )

    def by_stage(self) -> dict[str, dict[str, Any]]:
        """What the calls of each stage that has some have come to."""
        query = (
            "SELECT stage, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost) FROM calls "
            "GROUP BY stage ORDER BY stage"
        )
        with self._lock:
            found = self._connection.execute(query).fetchall()
        return {
            stage: {"calls": calls, "prompt_tokens": prompt, "completion_tokens": completion, "money": round(cost, 9)}
            for stage, calls, prompt, completion, cost in found
        }

    def check(self, budget: Budget) -> None:
        """Raise `Stopped` where the calls so far have reached a limit."""
        if budget == Budget():
            return
        spent = self.spent()
        used = {
            "calls": (spent.calls, budget.calls),
            "tokens": (spent.prompt_tokens + spent.completion_tokens, budget.tokens),
            "money": (spent.cost, budget.money),
        }
        for what, (amount, limit) in used.items():
            if limit is not None and amount >= limit:
                raise Stopped(
                    f"the budget is used up: {amount:,.6g} {what} of {limit:,.6g}.\n"
                    f"  What was answered is kept; raise budget.{what} to go on."
                )


def _json(value: Any) -> str:
    """JSON in which half a surrogate pair stands as its escape: SQLite takes no text that holds one."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="backslashreplace").decode()


def _answer(text: str) -> Answer:
    body = json.loads(text)
    return Refusal(**body["refusal"]) if "refusal" in body else Completion(**body["completion"])
