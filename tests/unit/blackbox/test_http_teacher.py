"""A teacher over HTTP against a scripted server on loopback: exact call counts, costs and messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any

import pytest

from limbeck.blackbox.asking import Completion, Refusal, Request, Turn
from limbeck.blackbox.endpoints import Budget, Endpoint, Prices
from limbeck.blackbox.http_teacher import HttpTeacher
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.writers import writer_of
from limbeck.errors import CheckpointError, ConfigError, Stopped

KEY = "sk-very-secret"


class Server:
    """Says the scripted replies one after another, the last again and again; keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    server.asked.append(body)
                    server.keys.append(self.headers.get("authorization"))
                    reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                status, headers, text = reply(body) if callable(reply) else reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                data = text.encode()
                if "content-length" not in headers:
                    self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                if "x-stall" in headers:
                    threading.Event().wait(float(headers["x-stall"]))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "calls.sqlite") as opened:
        yield opened


def says(text: str, *, finish: str = "stop", prompt: int = 10, completion: int = 4) -> tuple[int, dict[str, str], str]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    return 200, {}, json.dumps({"choices": choices, "usage": usage})


def ask(text: str, **rest: Any) -> Request:
    return Request(turns=(Turn(role="user", content=text),), max_tokens=8, **rest)


def teacher(server: Server, ledger: Ledger, waits: list[float] | None = None, **rest: Any) -> HttpTeacher:
    known = {"budget", "prices"}
    endpoint = Endpoint(url=server.url, model="m", **{key: value for key, value in rest.items() if key not in known})
    given = {key: value for key, value in rest.items() if key in known}
    return HttpTeacher(
        endpoint, ledger=ledger, stage="solve", sleep=(waits if waits is not None else []).append, **given
    )


def test_answers_come_in_order_and_equal_calls_are_one(server: Server, ledger: Ledger) -> None:
    server.replies = [lambda body: says(body["messages"][0]["content"].upper())]
    asks = teacher(server, ledger, prices=Prices(prompt=1e6, completion=2e6), concurrency=3)
    requests = [ask("a"), ask("b"), ask("a"), ask("a", sample=1), ask("c", stop=("x",), seed=3)]
    found = asks.complete(requests)
    assert [each.text for each in found if isinstance(each, Completion)] == ["A", "B", "A", "A", "C"]
    assert len(server.asked) == 4
    assert asks.complete(requests) == found
    assert len(server.asked) == 4
    spent = ledger.spent()
    assert (spent.calls, spent.attempts, spent.prompt_tokens, spent.completion_tokens, spent.cost) == (
        4,
        4,
        40,
        16,
        72.0,
    )
    assert (ledger.spent(stage="solve").calls, ledger.spent(stage="refine").calls) == (4, 0)
    sent = next(body for body in server.asked if body["messages"][0]["content"] == "c")
    assert (sent["stop"], sent["seed"], sent["max_tokens"], sent["model"]) == (["x"], 3, 8, "m")


def test_what_was_paid_is_not_paid_again_by_another_process(server: Server, tmp_path: Path) -> None:
    server.replies = [says("four")]
    for _ in range(2):
        with Ledger.open(tmp_path / "calls.sqlite") as opened:
            assert isinstance(teacher(server, opened).complete([ask("2+2?")])[0], Completion)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {}, "slow down"),
        (500, {}, "oops"),
        (503, {}, ""),
        (200, {}, "{truncated"),
        (200, {}, json.dumps({"choices": []})),
        (200, {"content-length": "9999"}, "{"),
        (200, {"content-length": "9999", "x-stall": "0.8"}, "{"),
    ],
    ids=["429", "500", "503", "no json", "no choice", "cut in the middle", "silent in the middle"],
)
def test_what_passes_is_asked_again_with_longer_waits(trouble: Any, server: Server, ledger: Ledger) -> None:
    server.replies = [trouble, trouble, says("ok")]
    waits: list[float] = []
    found = teacher(server, ledger, waits, timeout=0.5).complete([ask("a")])
    assert isinstance(found[0], Completion)
    assert (len(server.asked), ledger.spent().calls) == (3, 1)
    assert 1.0 <= waits[0] <= 1.25
    assert waits[1] == pytest.approx(2 * waits[0])


def test_a_server_that_is_asked_too_much_answers_all_in_the_end(server: Server, ledger: Ledger) -> None:
    lock, under_way, refused = threading.Lock(), 0, 0

    def at_most_two(body: Any) -> Any:
        nonlocal under_way, refused
        with lock:
            under_way += 1
            is_full = under_way > 2
            refused += is_full
        threading.Event().wait(0.02)
        with lock:
            under_way -= 1
        return (429, {}, "slow down") if is_full else says("ok")

    server.replies = [at_most_two]
    found = teacher(server, ledger, concurrency=8, attempts=40).complete([ask(str(number)) for number in range(16)])
    assert all(isinstance(each, Completion) for each in found)
    assert refused > 0
    assert (ledger.spent().calls, ledger.spent().attempts) == (16, 16 + refused)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(as_date: bool, server: Server, ledger: Ledger) -> None:
    given = formatdate(time() + 120, usegmt=True) if as_date else "120"
    server.replies = [(429, {"retry-after": given}, ""), says("ok")]
    waits: list[float] = []
    teacher(server, ledger, waits).complete([ask("a")])
    assert waits == [pytest.approx(120, abs=3)]


def test_a_wait_of_hours_stops_the_run_at_once(server: Server, ledger: Ledger) -> None:
    server.replies = [says("one"), (429, {"retry-after": "10800"}, "daily limit")]
    waits: list[float] = []
    asks = teacher(server, ledger, waits, concurrency=1)
    with pytest.raises(Stopped, match=r"asks to wait for 3 h 0 min: 429: daily limit[\s\S]*kept"):
        asks.complete([ask("a"), ask("b")])
    assert waits == []
    assert len(server.asked) == 2


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "http://secret@host:8000"])
def test_an_address_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url: .*key_variable") as refused:
        writer_of({"kind": "http", "url": url, "model": "m"})
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="key_variable") as at_the_teacher:
        Endpoint(url=url, model="m")
    assert "secret" not in str(at_the_teacher.value)
    assert Endpoint(url="http://host/v1/@me", model="m").url == "http://host/v1/@me"


def test_a_server_that_stays_away_stops_the_run_and_keeps_what_came(server: Server, ledger: Ledger) -> None:
    server.replies = [says("one"), (500, {}, "down")]
    asks = teacher(server, ledger, attempts=3, concurrency=1)
    with pytest.raises(Stopped, match=r"no answer in 3 attempts: 500: down[\s\S]*kept"):
        asks.complete([ask("a"), ask("b"), ask("c")])
    assert len(server.asked) == 4
    server.replies = [says("again")]
    found = asks.complete([ask("a"), ask("b"), ask("c")])
    assert [each.text for each in found if isinstance(each, Completion)] == ["one", "again", "again"]


def test_nobody_there_is_bad_input(ledger: Ledger) -> None:
    endpoint = Endpoint(url="http://127.0.0.1:9/v1", model="m", attempts=2)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/v1 gave no answer in 2 attempts[\s\S]*does the server run"):
        HttpTeacher(endpoint, ledger=ledger, stage="s", sleep=lambda seconds: None).complete([ask("a")])
    assert ledger.spent().attempts == 2


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (
            (401, {}, f"bad key {KEY}"),
            ConfigError,
            r"refuses the key \(401\): bad key …\s+the environment variable MY_KEY",
        ),
        ((404, {}, "no such model"), ConfigError, r"knows no 'm' there \(404\)"),
        ((429, {}, '{"code": "insufficient_quota"}'), Stopped, "quota is used up"),
    ],
)
def test_what_never_passes_is_not_asked_again(
    reply: Any, error: type[Exception], message: str, server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.replies = [reply]
    with pytest.raises(error, match=message) as raised:
        teacher(server, ledger, key_variable="MY_KEY", concurrency=1).complete([ask("a")])
    assert KEY not in str(raised.value)
    assert (len(server.asked), server.keys) == (1, [f"Bearer {KEY}"])
    assert KEY.encode() not in ledger.path.read_bytes()


def test_no_part_of_a_key_is_told_where_a_long_reply_is_cut(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.replies = [(422, {}, "x" * (300 - len(KEY) // 2) + f" {KEY}")]
    found = teacher(server, ledger, key_variable="MY_KEY").complete([ask("a")])[0]
    assert isinstance(found, Refusal)
    assert KEY[:4] not in found.message


def test_a_key_is_read_without_the_line_break_of_its_file(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [says("ok")]
    monkeypatch.setenv("MY_KEY", f"{KEY}\r\n")
    teacher(server, ledger, key_variable="MY_KEY").complete([ask("a")])
    assert server.keys == [f"Bearer {KEY}"]
    for key in (f"{KEY}\nand more", f"{KEY}é"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(ConfigError, match="MY_KEY holds characters") as raised:
            teacher(server, ledger, key_variable="MY_KEY")
        assert KEY not in str(raised.value)


@pytest.mark.parametrize("reply", [says("", finish="length"), says("…", finish="content_filter")])
def test_an_answer_without_a_word_is_paid_like_any_other(reply: Any, server: Server, ledger: Ledger) -> None:
    server.replies = [reply]
    asks = teacher(server, ledger, budget=Budget(money=30.0), prices=Prices(prompt=1e6, completion=2e6), concurrency=1)
    with pytest.raises(Stopped, match="36 money of 30"):
        asks.complete([ask(letter) for letter in "abcd"])
    spent = ledger.spent()
    assert (len(server.asked), spent.prompt_tokens, spent.completion_tokens, spent.cost) == (2, 20, 8, 36.0)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((400, {}, "maximum context length is 2048 tokens"), "context"),
        ((422, {}, "temperature"), "rejected"),
        (says(" "), "empty"),
        (says("…", finish="content_filter"), "content_filter"),
    ],
)
def test_a_request_that_gets_nothing_is_a_refusal_and_asked_once(
    reply: Any, reason: str, server: Server, ledger: Ledger
) -> None:
    server.replies = [reply]
    for _ in range(2):
        found = teacher(server, ledger).complete([ask("a")])[0]
        assert isinstance(found, Refusal)
        assert found.reason == reason
    assert len(server.asked) == 1


def test_a_cut_answer_says_so(server: Server, ledger: Ledger) -> None:
    server.replies = [says("half an", finish="length")]
    found = teacher(server, ledger).complete([ask("a")])[0]
    assert isinstance(found, Completion)
    assert found.finish == "length"


@pytest.mark.parametrize(
    ("budget", "calls", "message"),
    [
        (Budget(calls=2), 2, "2 calls of 2"),
        (Budget(tokens=20), 2, "28 tokens of 20"),
        (Budget(money=30.0), 2, "36 money of 30"),
        (Budget(calls=0), 0, "0 calls of 0"),
    ],
)
def test_a_budget_stops_before_the_next_call(
    budget: Budget, calls: int, message: str, server: Server, ledger: Ledger
) -> None:
    server.replies = [says("ok")]
    asks = teacher(server, ledger, budget=budget, prices=Prices(prompt=1e6, completion=2e6), concurrency=1)
    with pytest.raises(Stopped, match=message):
        asks.complete([ask(letter) for letter in "abcd"])
    assert len(server.asked) == calls


def test_a_missing_key_is_said_before_anything_is_sent(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is empty"):
        teacher(server, ledger, key_variable="MY_KEY")
    assert not server.asked


def test_a_file_that_is_no_ledger_and_one_of_the_future(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    path.write_text("not a database, but long enough to be read as the header of one" * 4)
    with pytest.raises(CheckpointError, match="is no ledger"), Ledger.open(path):
        pass
    with Ledger.open(tmp_path / "new.sqlite") as opened:
        opened._connection.execute("UPDATE about SET format = 9")
    with pytest.raises(CheckpointError, match="format 9, this Limbeck reads 1"), Ledger.open(tmp_path / "new.sqlite"):
        pass


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    def write(number: int) -> None:
        for place in range(20):
            ledger.record("t", ask(f"{number}-{place}"), Completion(text="x", finish="stop", cost=0.5), stage="s")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.spent().calls, ledger.spent().cost) == (80, 40.0)
