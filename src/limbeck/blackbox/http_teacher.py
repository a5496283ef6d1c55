"""A teacher behind an OpenAI-compatible HTTP endpoint: asked with patience, within a budget, and once for each call."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from limbeck.blackbox.asking import Answer, Refusal, Request
from limbeck.blackbox.endpoints import Budget, Endpoint, Prices
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.pacing import Gate
from limbeck.blackbox.replies import Later, Replies, whole
from limbeck.errors import ConfigError, Stopped
from limbeck.reporting.durations import duration

# What says that a server is asked more than it can take.
_TOO_MUCH = frozenset({"429", "503", "529", "timeout"})
# Seconds that a server may ask to wait; beyond, a person should know.
_LONGEST_OBEYED = 900.0
# As many rejections and no answer are no chance: the settings are wrong.
_TRIAL = 8


class HttpTeacher:
    """Answers requests through `POST {url}/chat/completions`; what the ledger holds is not asked again.

    What may fare better later (time-out, broken connection or body, 429, 5xx, any status that nobody knows) is asked up
    to `attempts` times, after `Retry-After` or twice the wait before. A server that is asked too much (429, 503, 529,
    time-out) gets half as many calls at once, and slowly more again with each answer (`Gate`). A wrong key or address
    raises `ConfigError`; a server that stays away or asks to wait for more than 15 minutes, a budget or a credit that
    is used up, `Stopped`: every answer that came is in the ledger. A request that the server will never take (400, 413,
    422) comes back as `Refusal`; where it rejects all of a stage's first ones, `ConfigError` says so and none is
    recorded. A budget may be passed by the calls that were under way; tokens that a server does not count are taken to
    be four letters each. `sleep` takes the place of waiting, which ends early when another call fails.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ledger: Ledger,
        stage: str,
        budget: Budget | None = None,
        prices: Prices | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._endpoint, self._ledger, self._stage = endpoint, ledger, stage
        self._budget = budget or Budget()
        self._sleep = sleep
        self._replies = Replies(endpoint, _key(endpoint), prices or Prices())
        self._gate = Gate(endpoint.concurrency)
        # A server that answered an earlier stage is down, not misnamed.
        self._has_answered = ledger.has_completion(self.name)

    @property
    def name(self) -> str:
        """Address and model."""
        return f"{self._endpoint.url.rstrip('/')} {self._endpoint.model}"

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order; equal requests are one call. Raises `ConfigError`, `Stopped`."""
        wanted = {request.key(self.name): request for request in requests}
        known = {key: self._ledger.answer(self.name, request) for key, request in wanted.items()}
        missing = [request for key, request in wanted.items() if known[key] is None]
        if missing:
            self._ask_all(missing)
        answers = [self._ledger.answer(self.name, request) for request in requests]
        assert all(answer is not None for answer in answers), "every answer is recorded before it is used"
        return [answer for answer in answers if answer is not None]

    def _ask_all(self, missing: Sequence[Request]) -> None:
        """Record an answer to each request."""
        key = self._replies.key
        is_trusted = self._ledger.has_completion(self.name, stage=self._stage)
        trial = [] if is_trusted else missing[:_TRIAL]
        failed = threading.Event()
        with (
            httpx.Client(
                timeout=self._endpoint.timeout, headers={"Authorization": f"Bearer {key}"} if key else {}
            ) as client,
            ThreadPoolExecutor(self._endpoint.concurrency) as pool,
        ):
            ask = functools.partial(self._ask, client, failed)
            try:
                rejected = [refusal for refusal in pool.map(functools.partial(ask, True), trial) if refusal]
                if len(rejected) == _TRIAL:
                    raise ConfigError(self._all_rejected(rejected[-1][1]))
                for request, refusal in rejected:
                    self._record(request, refusal)
                for _ in pool.map(functools.partial(ask, False), missing[len(trial) :]):
                    pass
            except BaseException:
                failed.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _record(self, request: Request, answer: Answer) -> None:
        self._ledger.record(self.name, request, answer, stage=self._stage)

    def _all_rejected(self, refusal: Refusal) -> str:
        return (
            f"the teacher at {self._endpoint.url} rejects each of the first {_TRIAL} requests of '{self._stage}': "
            f"{refusal.message}\n"
            "  is something in teacher (model, max_tokens, temperature, prompts) what this server does not take?\n"
            "  these are not recorded, and what was answered before is kept: set the server right and resume the run,\n"
            "  or start another with other settings"
        )

    def _ask(
        self, client: httpx.Client, failed: threading.Event, is_trial: bool, request: Request
    ) -> tuple[Request, Refusal] | None:
        """Record an answer, or in a trial return what was rejected; neither once another call has `failed` for good,
        which a failure here makes known."""
        try:
            return self._ask_patiently(client, failed, is_trial, request)
        except BaseException:
            failed.set()
            raise

    def _ask_patiently(
        self, client: httpx.Client, failed: threading.Event, is_trial: bool, request: Request
    ) -> tuple[Request, Refusal] | None:
        wait = self._endpoint.first_wait
        last = Later("", "")
        for attempt in range(self._endpoint.attempts):
            with self._gate.turn() as halvings:
                # Another call may have failed, or spent the budget, while this one waited for its turn.
                if failed.is_set():
                    return None
                self._ledger.check(self._budget)
                found = self._once(client, request)
            if not isinstance(found, Later):
                self._has_answered = True
                self._gate.faster()
                if is_trial and isinstance(found, Refusal) and found.reason == "rejected":
                    return request, found
                self._record(request, found)
                return None
            if found.outcome in _TOO_MUCH:
                self._gate.slower(halvings)
            last = found
            if last.wait is not None and last.wait > _LONGEST_OBEYED:
                break
            if attempt + 1 < self._endpoint.attempts:
                # Calls that failed together should not all come back together.
                spread = 1.0 + int(request.key(self.name)[:2], 16) / 1024
                # An interrupt of the main thread, or a failure, should not wait for this one.
                (self._sleep or failed.wait)(wait * spread if last.wait is None else last.wait)
                wait = min(self._endpoint.longest_wait, 2 * wait)
        raise self._given_up(last)

    def _given_up(self, last: Later) -> Stopped | ConfigError:
        where = f"the teacher at {self._endpoint.url}"
        if last.wait is not None and last.wait > _LONGEST_OBEYED:
            return Stopped(
                f"{where} asks to wait for {duration(last.wait)}: {last.message}\n"
                "  What was answered is kept; run the same command then to go on."
            )
        message = f"{where} gave no answer in {self._endpoint.attempts} attempts: {last.message}"
        if last.outcome == "unreachable" and not self._has_answered:
            return ConfigError(f"{message}\n  Is the address right, and does the server run?")
        return Stopped(f"{message}\n  What was answered is kept; run the same command again to go on.")

    def _once(self, client: httpx.Client, request: Request) -> Answer | Later:
        started = time.monotonic()
        try:
            response = client.post(f"{self._endpoint.url.rstrip('/')}/chat/completions", json=self._body(request))
        except httpx.TimeoutException:
            return self._later(request, "timeout", f"no answer within {self._endpoint.timeout:g} seconds")
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            return self._later(request, "unreachable", str(error) or type(error).__name__)
        except httpx.HTTPError as error:
            return self._later(request, "broken", self._replies.quoted(str(error)) or type(error).__name__)
        self._ledger.attempted(self.name, request, str(response.status_code))
        return self._replies.read(response, request, seconds=time.monotonic() - started)

    def _later(self, request: Request, outcome: str, message: str) -> Later:
        self._ledger.attempted(self.name, request, outcome)
        return Later(outcome, message)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": turn.role, "content": whole(turn.content)} for turn in request.turns],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        body |= {"stop": list(request.stop)} if request.stop else {}
        return body | ({"seed": request.seed} if request.seed is not None else {})


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
