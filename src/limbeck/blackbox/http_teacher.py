"""A teacher behind an OpenAI-compatible HTTP endpoint: asked with patience, within a budget, and once for each call."""

from __future__ import annotations

import email.utils
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request
from limbeck.blackbox.endpoints import Budget, Endpoint, Prices
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.pacing import Gate
from limbeck.errors import ConfigError, Stopped
from limbeck.reporting.durations import duration

# What says that a server is asked more than it can take.
_TOO_MUCH = frozenset({"429", "503", "529", "timeout"})
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_SHOWN = 300
# Seconds that a server may ask to wait; beyond, a person should know.
_LONGEST_OBEYED = 900.0


@dataclass(frozen=True)
class _Later:
    """The call may fare better in a while: after `wait` seconds, where the server says so."""

    outcome: str
    message: str
    wait: float | None = None


class HttpTeacher:
    """Answers requests through `POST {url}/chat/completions`; what the ledger holds is not asked again.

    What may fare better later (time-out, broken connection or body, 408, 409, 425, 429, 5xx) is asked up to `attempts`
    times, after `Retry-After` or twice the wait before. A server that is asked too much (429, 503, 529, time-out) gets
    half as many calls at once, and slowly more again with each answer (`Gate`). A wrong key or address raises
    `ConfigError`; a server that stays away or asks to wait for more than 15 minutes, or a budget that is used up,
    `Stopped`: every answer that came is in the ledger. A request that the server will never take comes back as
    `Refusal`. A budget may be passed by the calls that were under way.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ledger: Ledger,
        stage: str,
        budget: Budget | None = None,
        prices: Prices | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint, self._ledger, self._stage = endpoint, ledger, stage
        self._budget, self._prices = budget or Budget(), prices or Prices()
        self._sleep = sleep
        self._key = _key(endpoint)
        self._has_answered = False
        self._gate = Gate(endpoint.concurrency)

    @property
    def name(self) -> str:
        """Address and model."""
        return f"{self._endpoint.url.rstrip('/')} {self._endpoint.model}"

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order; equal requests are one call. Raises `ConfigError`, `Stopped`."""
        wanted = {request.key(self.name): request for request in requests}
        known = {key: self._ledger.answer(self.name, request) for key, request in wanted.items()}
        missing = [request for key, request in wanted.items() if known[key] is None]
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if missing:
            with (
                httpx.Client(timeout=self._endpoint.timeout, headers=headers) as client,
                ThreadPoolExecutor(self._endpoint.concurrency) as pool,
            ):
                failed = threading.Event()
                try:
                    for _ in pool.map(lambda request: self._ask(client, request, failed), missing):
                        pass
                except BaseException:
                    failed.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        answers = [self._ledger.answer(self.name, request) for request in requests]
        assert all(answer is not None for answer in answers), "every answer is recorded before it is used"
        return [answer for answer in answers if answer is not None]

    def _ask(self, client: httpx.Client, request: Request, failed: threading.Event) -> None:
        """Record an answer; nothing once another call has `failed` for good, which a failure here makes known."""
        try:
            self._ask_patiently(client, request, failed)
        except BaseException:
            failed.set()
            raise

    def _ask_patiently(self, client: httpx.Client, request: Request, failed: threading.Event) -> None:
        wait = self._endpoint.first_wait
        last = _Later("", "")
        for attempt in range(self._endpoint.attempts):
            with self._gate.turn() as halvings:
                # Another call may have failed, or spent the budget, while this one waited for its turn.
                if failed.is_set():
                    return
                self._check_budget()
                found = self._once(client, request)
            if not isinstance(found, _Later):
                self._has_answered = True
                self._ledger.record(self.name, request, found, stage=self._stage)
                self._gate.faster()
                return
            if found.outcome in _TOO_MUCH:
                self._gate.slower(halvings)
            last = found
            if last.wait is not None and last.wait > _LONGEST_OBEYED:
                break
            if attempt + 1 < self._endpoint.attempts:
                # Calls that failed together should not all come back together.
                spread = 1.0 + int(request.key(self.name)[:2], 16) / 1024
                self._sleep(wait * spread if last.wait is None else last.wait)
                wait = min(self._endpoint.longest_wait, 2 * wait)
        where = f"the teacher at {self._endpoint.url}"
        if last.wait is not None and last.wait > _LONGEST_OBEYED:
            raise Stopped(
                f"{where} asks to wait for {duration(last.wait)}: {last.message}\n"
                "  What was answered is kept; run the same command then to go on."
            )
        message = f"{where} gave no answer in {self._endpoint.attempts} attempts: {last.message}"
        if last.outcome == "unreachable" and not self._has_answered:
            raise ConfigError(f"{message}\n  Is the address right, and does the server run?")
        raise Stopped(f"{message}\n  What was answered is kept; run the same command again to go on.")

    def _once(self, client: httpx.Client, request: Request) -> Answer | _Later:
        started = time.monotonic()
        try:
            response = client.post(f"{self._endpoint.url.rstrip('/')}/chat/completions", json=self._body(request))
        except httpx.TimeoutException:
            return self._later(request, "timeout", f"no answer within {self._endpoint.timeout:g} seconds")
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            return self._later(request, "unreachable", str(error) or type(error).__name__)
        except httpx.HTTPError as error:
            return self._later(request, "broken", self._quoted(str(error)) or type(error).__name__)
        self._ledger.attempted(self.name, request, str(response.status_code))
        if response.status_code != 200:
            return self._refused(response)
        try:
            return self._completion(response.json(), seconds=time.monotonic() - started)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return _Later("malformed", f"the body is no completion: {self._quoted(response.text)}")

    def _later(self, request: Request, outcome: str, message: str) -> _Later:
        self._ledger.attempted(self.name, request, outcome)
        return _Later(outcome, message)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [asdict(turn) for turn in request.turns],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        body |= {"stop": list(request.stop)} if request.stop else {}
        return body | ({"seed": request.seed} if request.seed is not None else {})

    def _completion(self, body: Mapping[str, Any], *, seconds: float) -> Answer:
        choice = body["choices"][0]
        text, finish = choice["message"].get("content") or "", str(choice.get("finish_reason") or "stop")
        if not isinstance(text, str):
            raise TypeError("content is no text")
        usage = body.get("usage") or {}
        tokens = {f"{part}_tokens": int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion")}
        cost = self._prices.cost(**tokens)
        if finish == "content_filter":
            return Refusal(reason="content_filter", message="the server filtered the answer", cost=cost, **tokens)
        if not text.strip():
            return Refusal(reason="empty", message=f"an empty answer, finished by '{finish}'", cost=cost, **tokens)
        return Completion(text=text, finish=finish, seconds=seconds, cost=cost, **tokens)

    def _refused(self, response: httpx.Response) -> Answer | _Later:
        """What a status other than 200 means."""
        status, said = response.status_code, self._quoted(response.text)
        if status in (401, 403):
            variable = self._endpoint.key_variable
            way_out = f"the environment variable {variable} holds its key" if variable else "set teacher.key_variable"
            raise ConfigError(f"the teacher at {self._endpoint.url} refuses the key ({status}): {said}\n  {way_out}")
        if status == 404:
            raise ConfigError(
                f"the teacher at {self._endpoint.url} knows no '{self._endpoint.model}' there (404): {said}\n"
                "  the address usually ends in /v1; check the model's name"
            )
        if status == 429 and "insufficient_quota" in response.text:
            raise Stopped(
                f"the teacher's quota is used up: {said}\n  What was answered is kept; go on when there is more."
            )
        if status in _AGAIN:
            return _Later(str(status), f"{status}: {said}", wait=_retry_after(response))
        if "context" in response.text.lower() and "length" in response.text.lower():
            return Refusal(reason="context", message=said)
        return Refusal(reason="rejected", message=f"{status}: {said}")

    def _quoted(self, text: str) -> str:
        """What a server said, short and without the key, which some servers repeat."""
        # Before it is cut: a part of a key is a secret too.
        hidden = text.replace(self._key, "…") if self._key else text
        return " ".join(hidden.split())[:_SHOWN]

    def _check_budget(self) -> None:
        spent, budget = self._ledger.spent(), self._budget
        tokens = spent.prompt_tokens + spent.completion_tokens
        used = {
            "calls": (spent.calls, budget.calls),
            "tokens": (tokens, budget.tokens),
            "money": (spent.cost, budget.money),
        }
        for what, (amount, limit) in used.items():
            if limit is not None and amount >= limit:
                raise Stopped(
                    f"the budget is used up: {amount:,.6g} {what} of {limit:,.6g}.\n"
                    f"  What was answered is kept; raise budget.{what} to go on."
                )


def _key(endpoint: Endpoint) -> str:
    if endpoint.key_variable is None:
        return ""
    # A line break at its end, as files have it, is no part of a key, and no header may hold one.
    key = os.environ.get(endpoint.key_variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {endpoint.key_variable} is empty; it should hold the key of {endpoint.url}\n"
            f"  export {endpoint.key_variable}=…, or set teacher.key_variable to null for a server without keys"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the environment variable {endpoint.key_variable} holds characters that no key has; is all of it the key?"
        )
    return key


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that a server asks to wait, given as a number or as a date; None where it says nothing sensible."""
    given = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
