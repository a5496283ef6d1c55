"""What a server's reply means: an answer, a refusal, something that may pass, or a setting that is wrong."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request
from limbeck.blackbox.endpoints import Endpoint, Prices
from limbeck.errors import ConfigError, Stopped

_SHOWN = 300
_LETTERS_A_TOKEN = 4
_MOST_TOKENS = 2**40
# Alone of all statuses these are about the request itself; any other may be another one tomorrow.
_ABOUT_THE_REQUEST = frozenset({400, 413, 422})
# Codes of providers, not words: a server may repeat a question in its reply.
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low")
_NO_KEY = ("invalid_api_key", "api_key_invalid", "api key not valid")
_FILTERED = ("content_filter", "content_policy", "moderation", "flagged")


@dataclass(frozen=True)
class Later:
    """The call may fare better in a while: after `wait` seconds, where the server says so."""

    outcome: str
    message: str
    wait: float | None = None


@dataclass(frozen=True)
class Replies:
    """Reads the replies of one endpoint; its `key` is hidden in everything that is told of them."""

    endpoint: Endpoint
    key: str
    prices: Prices

    def read(self, response: httpx.Response, request: Request, *, seconds: float) -> Answer | Later:
        """What a response says. Raises `ConfigError` for a wrong key or address, `Stopped` where credit is used up."""
        if response.status_code != 200:
            return self._refused(response)
        try:
            return self._completion(response.json(), request, seconds=seconds)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return Later("malformed", f"the body is no completion: {self.quoted(response.text)}")

    def quoted(self, text: str) -> str:
        """What a server said, short and without the key, which some servers repeat."""
        # Before it is cut: a part of a key is a secret too.
        hidden = text.replace(self.key, "…") if self.key else text
        return " ".join(hidden.split())[:_SHOWN]

    def _completion(self, body: Mapping[str, Any], request: Request, *, seconds: float) -> Answer:
        choice = body["choices"][0]
        text, finish = choice["message"].get("content") or "", whole(str(choice.get("finish_reason") or "stop"))
        if not isinstance(text, str):
            raise TypeError("content is no text")
        usage = body.get("usage") or {}
        # A limit on tokens or money would never be reached by a server that does not count.
        letters = {"prompt": sum(len(turn.content) for turn in request.turns), "completion": len(text)}
        tokens = {
            f"{part}_tokens": _counted(usage.get(f"{part}_tokens")) or math.ceil(count / _LETTERS_A_TOKEN)
            for part, count in letters.items()
        }
        cost = self.prices.cost(**tokens)
        if finish == "content_filter":
            return Refusal(reason="content_filter", message="the server filtered the answer", cost=cost, **tokens)
        # A reasoning model may be cut in its thoughts, which a server that parses them leaves out of the answer.
        if not text.strip() and finish != "length":
            return Refusal(reason="empty", message=f"an empty answer, finished by '{finish}'", cost=cost, **tokens)
        return Completion(text=whole(text), finish=finish, seconds=seconds, cost=cost, **tokens)

    def _refused(self, response: httpx.Response) -> Answer | Later:
        """What a status other than 200 means."""
        status, said, text = response.status_code, self.quoted(response.text), response.text.lower()
        where = f"the teacher at {self.endpoint.url}"
        if status == 402 or (status in (400, 403, 429) and any(code in text for code in _NO_CREDIT)):
            raise Stopped(
                f"the teacher's credit or quota is used up ({status}): {said}\n"
                "  What was answered is kept; go on when there is more."
            )
        if status in (400, 403) and any(code in text for code in _FILTERED):
            return Refusal(reason="content_filter", message=f"{status}: {said}")
        if status in (401, 403) or (status == 400 and any(code in text for code in _NO_KEY)):
            variable = self.endpoint.key_variable
            way_out = f"the environment variable {variable} holds its key" if variable else "set teacher.key_variable"
            raise ConfigError(f"{where} refuses the key ({status}): {said}\n  {way_out}")
        if status == 404:
            raise ConfigError(
                f"{where} knows no '{self.endpoint.model}' there (404): {said}\n"
                "  the address usually ends in /v1; check the model's name"
            )
        if status == 405 or 300 <= status < 400:
            elsewhere = self.quoted(response.headers.get("location", ""))
            raise ConfigError(
                f"{where} takes no questions there ({status}): {f'it sends to {elsewhere}' if elsewhere else said}\n"
                "  check teacher.url; it usually ends in /v1 and begins with https:// outside this machine"
            )
        if status not in _ABOUT_THE_REQUEST:
            return Later(str(status), f"{status}: {said}", wait=_retry_after(response))
        if status == 413 or ("context" in text and "length" in text):
            return Refusal(reason="context", message=said)
        return Refusal(reason="rejected", message=f"{status}: {said}")


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no file and no server takes.

    >>> whole("a \\ud83d b"), whole("\\N{OK HAND SIGN}") == "\\N{OK HAND SIGN}"
    ('a � b', True)
    """
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _counted(number: object) -> int:
    """The tokens that a server says it counted; 0 for what is no such number, and would lower or break the sums."""
    return int(number) if isinstance(number, int | float) and 0 < number < _MOST_TOKENS else 0


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that a server asks to wait, given as a number or as a date; None where it says nothing sensible."""
    given = response.headers.get("retry-after", "")
    try:
        seconds = float(given)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
