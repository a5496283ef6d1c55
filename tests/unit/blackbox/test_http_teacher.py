"""A teacher over HTTP against a scripted server on loopback: exact call counts, costs and messages."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, time
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
        (418, {}, "nobody knows"),
        (520, {}, "the cloud"),
        (429, {"retry-after": "inf"}, ""),
        (429, {"retry-after": "nan"}, ""),
        (200, {}, "{truncated"),
        (200, {}, json.dumps({"choices": []})),
        (200, {"content-length": "9999"}, "{"),
        (200, {"content-length": "9999", "x-stall": "0.8"}, "{"),
    ],
    ids=[
        "429",
        "500",
        "503",
        "418",
        "520",
        "retry inf",
        "retry nan",
        "no json",
        "no choice",
        "cut in the middle",
        "silent in the middle",
    ],
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


def test_a_credit_that_ends_stops_the_run_and_the_rest_is_answered_when_there_is_more(
    server: Server, ledger: Ledger
) -> None:
    server.replies = [says("one"), says("two"), (402, {}, "Insufficient Balance")]
    requests = [ask(letter) for letter in "abcdef"]
    with pytest.raises(Stopped, match="credit or quota is used up"):
        teacher(server, ledger, concurrency=1).complete(requests)
    assert (len(server.asked), ledger.spent().calls) == (3, 2)
    server.replies = [says("more")]
    found = teacher(server, ledger, concurrency=1).complete(requests)
    assert [each.text for each in found if isinstance(each, Completion)] == ["one", "two", *["more"] * 4]


def test_a_server_that_rejects_all_of_the_first_requests_is_bad_input_and_they_are_asked_again(
    server: Server, ledger: Ledger
) -> None:
    server.replies = [(400, {}, "System role not supported")]
    requests = [ask(str(number)) for number in range(50)]
    with pytest.raises(ConfigError, match=r"first 8 requests of 'solve': 400: System role not[\s\S]*resume the run"):
        teacher(server, ledger, concurrency=3).complete(requests)
    assert (len(server.asked), ledger.spent().calls) == (8, 0)
    server.replies = [says("mended")]
    found = teacher(server, ledger).complete(requests)
    assert all(isinstance(each, Completion) for each in found)
    # A stage of its own may ask in a way that the server does not take.
    server.replies = [(400, {}, "System role not supported")]
    later = HttpTeacher(Endpoint(url=server.url, model="m"), ledger=ledger, stage="refine")
    with pytest.raises(ConfigError, match="first 8 requests of 'refine'"):
        later.complete([ask(f"again {number}") for number in range(20)])


def test_requests_that_are_rejected_among_others_are_refusals_and_asked_once(server: Server, ledger: Ledger) -> None:
    server.replies = [lambda body: says("ok") if body["messages"][0]["content"] == "7" else (422, {}, "no")]
    requests = [ask(str(number)) for number in range(20)]
    for _ in range(2):
        found = teacher(server, ledger).complete(requests)
        assert [place for place, each in enumerate(found) if isinstance(each, Completion)] == [7]
    assert (len(server.asked), ledger.spent().calls) == (20, 20)
    # Others of a stage that is known to be answered may all be rejected.
    assert len(teacher(server, ledger).complete([ask(f"more {number}") for number in range(20)])) == 20


def test_a_server_that_answered_an_earlier_stage_and_is_gone_stops_the_run(ledger: Ledger) -> None:
    running = Server()
    running.replies = [says("one")]
    teacher(running, ledger).complete([ask("a")])
    running.close()
    endpoint = Endpoint(url=running.url, model="m", attempts=2, first_wait=0.0)
    with pytest.raises(Stopped, match=r"gave no answer in 2 attempts[\s\S]*kept"):
        HttpTeacher(endpoint, ledger=ledger, stage="refine").complete([ask("b")])
    another = Endpoint(url=running.url, model="other", attempts=1)
    with pytest.raises(ConfigError, match="does the server run"):
        HttpTeacher(another, ledger=ledger, stage="refine").complete([ask("b")])


def test_a_wait_ends_when_another_call_fails(server: Server, ledger: Ledger) -> None:
    def busy_or_closed(body: Any) -> Any:
        is_first = body["messages"][0]["content"] == "a"
        return (429, {"retry-after": "60"}, "") if is_first else (401, {}, "who")

    server.replies = [busy_or_closed]
    endpoint = Endpoint(url=server.url, model="m", concurrency=2)
    started = monotonic()
    with pytest.raises(ConfigError, match="refuses the key"):
        HttpTeacher(endpoint, ledger=ledger, stage="s").complete([ask("a"), ask("b")])
    assert monotonic() - started < 30


def test_control_c_does_not_wait_for_a_wait(server: Server, ledger: Ledger) -> None:
    server.replies = [(429, {"retry-after": "60"}, "")]
    asks = HttpTeacher(Endpoint(url=server.url, model="m"), ledger=ledger, stage="s")

    def interrupt() -> None:
        while not server.asked:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = monotonic()
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            asks.complete([ask("a"), ask("b")])
        assert monotonic() - started < 30
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_server_that_does_not_count_is_taken_to_use_a_token_for_four_letters(server: Server, ledger: Ledger) -> None:
    counted, answer = {"prompt_tokens": 7}, {"message": {"content": "a" * 9}, "finish_reason": "stop"}
    server.replies = [
        (200, {}, json.dumps({"choices": [answer]})),
        (200, {}, json.dumps({"choices": [answer], "usage": counted})),
        (200, {}, json.dumps({"choices": [answer], "usage": None})),
    ]
    asks = teacher(server, ledger, prices=Prices(prompt=1e6, completion=2e6), concurrency=1)
    found = asks.complete([ask("q" * 21), ask("r" * 21)])
    assert [(each.prompt_tokens, each.completion_tokens, each.cost) for each in found] == [(6, 3, 12.0), (7, 3, 13.0)]
    with pytest.raises(Stopped, match="28 tokens of 20"):
        teacher(server, ledger, budget=Budget(tokens=20), concurrency=1).complete([ask("s" * 21), ask("t" * 21)])


@pytest.mark.parametrize("number", ["-7", "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, '"many"', "[]"])
def test_a_count_that_is_none_is_not_taken(number: str, server: Server, ledger: Ledger) -> None:
    body = json.loads(says("a" * 9, completion=3)[2])
    body["usage"]["prompt_tokens"] = "HERE"
    server.replies = [(200, {}, json.dumps(body).replace('"HERE"', number))]
    found = teacher(server, ledger, prices=Prices(prompt=1e6, completion=2e6)).complete([ask("q" * 21)])[0]
    assert (found.prompt_tokens, found.completion_tokens, found.cost) == (6, 3, 12.0)


def test_half_a_surrogate_pair_is_replaced_and_paid_once(server: Server, ledger: Ledger) -> None:
    answer = {"message": {"content": "x \ud83d \U0001f600 #### 4"}, "finish_reason": "st\udc00p"}
    server.replies = [(200, {}, json.dumps({"choices": [answer]}))]
    for _ in range(2):
        found = teacher(server, ledger).complete([ask("half \ud83d")])[0]
        assert isinstance(found, Completion)
        assert (found.text, found.finish) == ("x \ufffd \U0001f600 #### 4", "st\ufffdp")
    assert [body["messages"][0]["content"] for body in server.asked] == ["half \ufffd"]
    assert ask("\ud83d").key("m") != ask("\ufffd").key("m")
    ledger.record("m", ask("\ud83d"), Completion(text="\udc00 é", finish="stop"), stage="s")
    assert ledger.answer("m", ask("\ud83d")) == Completion(text="\udc00 é", finish="stop")


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
        ((403, {}, "not for you"), ConfigError, r"refuses the key \(403\)"),
        ((400, {}, "API key not valid."), ConfigError, r"refuses the key \(400\)"),
        ((429, {}, '{"code": "insufficient_quota"}'), Stopped, "quota is used up"),
        ((402, {}, "Insufficient Balance"), Stopped, r"credit or quota is used up \(402\): Insufficient"),
        ((400, {}, "Your credit balance is too low"), Stopped, r"credit or quota is used up \(400\)"),
        ((307, {"location": "https://a.b/v1"}, ""), ConfigError, r"\(307\): it sends to https://a.b/v1\n.*teacher.url"),
        ((405, {}, "GET alone"), ConfigError, r"takes no questions there \(405\): GET alone\n.*teacher.url"),
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
    assert ledger.spent().calls == 0


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
        ((413, {}, "too large"), "context"),
        ((422, {}, "temperature"), "rejected"),
        ((403, {}, "Your input was flagged"), "content_filter"),
        ((400, {}, '{"code": "content_filter"}'), "content_filter"),
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


@pytest.mark.parametrize("text", ["half an", "", None])
def test_a_cut_answer_says_so(text: Any, server: Server, ledger: Ledger) -> None:
    server.replies = [says(text, finish="length")]
    found = teacher(server, ledger).complete([ask("a")])[0]
    assert isinstance(found, Completion)
    assert (found.text, found.finish) == (text or "", "length")


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
