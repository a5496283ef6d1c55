"""One request to stop told from a second one, and SIGTERM as Ctrl-C."""

from __future__ import annotations

import signal
import threading

import pytest

from limbeck import interrupts
from limbeck.interrupts import Requests, interrupting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    return now


def test_a_signal_that_a_launcher_passes_on_is_no_second_request(clock: list[float]) -> None:
    requests = Requests()
    assert requests.is_new(signal.SIGINT)
    clock[0] += 0.2
    assert not requests.is_new(signal.SIGTERM)
    clock[0] += 5
    assert requests.is_new(signal.SIGTERM)
    assert not requests.is_new(signal.SIGTERM)


def test_a_second_control_c_is_a_second_request(clock: list[float]) -> None:
    requests = Requests()
    assert [requests.is_new(signal.SIGINT) for _ in range(3)] == [True, True, True]


@pytest.fixture
def handlers() -> object:
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_once(number: int, handlers: object) -> None:
    with pytest.raises(KeyboardInterrupt), interrupting():
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.default_int_handler


def test_an_interruption_is_not_interrupted_by_the_same_request(handlers: object) -> None:
    cleaned = False

    def work() -> None:
        nonlocal cleaned
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True

    with pytest.raises(KeyboardInterrupt), interrupting():
        work()
    assert cleaned


def test_what_is_ignored_stays_ignored(handlers: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupting():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_sets_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with interrupting():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
