"""How many calls a server gets at once."""

from __future__ import annotations

import threading

from limbeck.blackbox.pacing import Gate


def test_a_burst_that_fails_together_halves_once_and_one_call_is_always_let_through() -> None:
    gate = Gate(5)
    with gate.turn() as first, gate.turn() as second:
        gate.slower(first)
        gate.slower(second)
    assert gate.limit == 2
    for _ in range(4):
        with gate.turn() as each:
            gate.slower(each)
    assert gate.limit == 1
    with gate.turn():
        pass


def test_it_grows_by_one_in_as_many_answers_as_calls_and_no_further_than_it_may() -> None:
    gate = Gate(4)
    with gate.turn() as halvings:
        gate.slower(halvings)
    limits = []
    for _ in range(7):
        gate.faster()
        limits.append(gate.limit)
    assert limits == [2, 3, 3, 3, 4, 4, 4]


def test_no_more_than_the_limit_are_under_way() -> None:
    gate, lock = Gate(3), threading.Lock()
    under_way = most = 0

    def call() -> None:
        nonlocal under_way, most
        with gate.turn():
            with lock:
                under_way += 1
                most = max(most, under_way)
            threading.Event().wait(0.005)
            with lock:
                under_way -= 1

    threads = [threading.Thread(target=call) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (most, under_way) == (3, 0)
