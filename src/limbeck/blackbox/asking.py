"""What is asked of a teacher and what comes back: one interface for every kind of teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a request."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a teacher. `sample` tells several draws of one prompt apart; `seed` is passed on where it is known.

    >>> one = Request(turns=(Turn(role="user", content="2+2?"),), max_tokens=8)
    >>> one.key("m") == Request(turns=(Turn(role="user", content="2+2?"),), max_tokens=8).key("m"), len(one.key("m"))
    (True, 32)
    """

    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sample: int = 0

    def key(self, teacher: str) -> str:
        """A hash of the teacher and of everything that decides the answer: equal calls are paid once."""
        body = json.dumps([teacher, asdict(self)], sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(body.encode("utf-8", errors="surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a teacher said. `finish`: "stop", "length" (cut, maybe before a first word), or what the server calls it.

    Tokens as the server counts them; where it does not, one for every four letters of the texts. `cost` in the price
    list's money, 0 without one.
    """

    text: str
    finish: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `Completion(**...)` takes."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A call that gave nothing to learn from, and will not when it is made again. `reason`: "empty", "content_filter",
    "context" (the prompt is too long), "rejected" (the server says the request is wrong).

    Tokens and cost as in `Completion`: an answer without a word may have been paid like any other.
    """

    reason: Literal["empty", "content_filter", "context", "rejected"]
    message: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


Answer = Completion | Refusal


@runtime_checkable
class Teacher(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str:
        """What tells it from other teachers: part of the key of a call."""
        ...

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order. Raises where no later call would fare better: see the implementations."""
        ...
