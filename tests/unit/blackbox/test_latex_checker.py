"""Mathematical answers, and the processes that judge them: hanging, crashing, missing."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck.blackbox import CHECKERS, Item
from limbeck.blackbox.latex_checker import LatexChecker, normalised
from limbeck.blackbox.workers import WorkerPool
from limbeck.errors import ConfigError

WORKER = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    answer = asked["answer"]
    if answer == "hang":
        time.sleep(60)
    if answer == "crash":
        os._exit(9)
    if answer == "noise":
        print("no JSON", flush=True)
        continue
    if answer == "raise":
        print(json.dumps({"failed": "ValueError"}), flush=True)
        continue
    if answer == "odd":
        print(json.dumps({"verdict": "unparsed"}), flush=True)
        continue
    said = "equal" if answer == f"same as {asked['gold']}" else "different"
    print(json.dumps({"verdict": said, "pid": os.getpid()}), flush=True)
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WorkerPool]:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    with WorkerPool([sys.executable, str(path)], seconds=1.0) as made:
        yield made


def item(gold: str) -> Item:
    return Item(id="1", question="?", gold=gold, kind="latex")


@pytest.mark.parametrize(
    ("text", "gold", "mode", "correct"),
    [
        ("so \\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}", "boxed", True),
        ("#### $x^2 + 1$.", "x^2+1", "marker", True),
        ("The answer is $\\left( 1, 2 \\right)$.", "(1,2)", "phrase", True),
        ("thus $x = 1$ and $y$", "y", "fallback", True),
        ("so\nx+1.", "x+1", "fallback", True),
        ("\\boxed{1,000}", "1000", "boxed", True),
        ("\\boxed{0.5}", "1/2", "boxed", True),
        ("\\boxed{3}", "4", "boxed", False),
        ("\\boxed{}", "4", "fallback", False),
        ("", "4", "none", False),
    ],
)
def test_what_needs_no_worker(text: str, gold: str, mode: str, correct: bool) -> None:
    asked_no_one = LatexChecker(WorkerPool(["no such program"]))
    if text == "\\boxed{}":
        text = "4.0\\boxed{} 5"
        with pytest.raises(FileNotFoundError):
            asked_no_one(text, item(gold))
        return
    verdict = asked_no_one(text, item(gold))
    assert (verdict.mode, verdict.correct, verdict.unknown) == (mode, correct, "")


def test_the_worker_decides_what_is_not_plainly_equal(pool: WorkerPool) -> None:
    check = LatexChecker(pool)
    assert check("\\boxed{same as x}", item("x")).strict
    assert not check("\\boxed{y}", item("x")).correct
    assert not check.unknown
    assert pool.outcomes == {"answered": 2}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("hang", "timeout"), ("crash", "crash"), ("noise", "crash"), ("raise", "failed"), ("odd", "unparsed")],
)
def test_no_verdict_is_unknown_and_wrong_and_the_next_question_is_judged(
    pool: WorkerPool, answer: str, reason: str
) -> None:
    check = LatexChecker(pool)
    verdict = check(f"\\boxed{{{answer}}}", item("x"))
    assert (verdict.correct, verdict.unknown, verdict.extracted) == (False, reason, answer)
    assert check.unknown == {reason: 1}
    assert check("\\boxed{same as x}", item("x")).correct


def test_an_endless_answer_is_not_handed_on() -> None:
    check = LatexChecker(WorkerPool(["no such program"]))
    assert check("\\boxed{" + "x+" * 400 + "1}", item("x")).unknown == "unparsed"


def test_one_worker_serves_many_questions_and_threads_share_it(pool: WorkerPool) -> None:
    pids: list[object] = []

    def ask() -> None:
        pids.extend(pool.ask({"gold": "x", "answer": str(i)}).body["pid"] for i in range(5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(pids), len(set(pids))) == (20, 1)
    first = pids[0]
    pool.close()
    assert pool.ask({"gold": "x", "answer": "y"}).body["pid"] != first


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ('print(\'{"missing": "no math_verify"}\')', "cannot do its work: no math_verify\n  install it"),
        ("raise SystemExit(1)", "did not start"),
        ("import time; time.sleep(30)", "not ready within 0.5 seconds"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_with_a_way_out(program: str, message: str) -> None:
    with (
        WorkerPool(
            [sys.executable, "-c", program], start_seconds=0.5 if "sleep" in program else 30.0, advice="install it"
        ) as pool,
        pytest.raises(ConfigError, match=message),
    ):
        pool.ask({})
    with pytest.raises(ConfigError, match="0 workers"):
        WorkerPool(["x"], size=0)


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is not None, reason="math-verify is installed")
def test_without_math_verify_the_error_names_the_extra() -> None:
    check = LatexChecker()
    with pytest.raises(ConfigError, match=r"math_verify.*\n.*pip install limbeck\[eval\]"):
        check("\\boxed{x+1}", item("1+x"))


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify (extra eval) is not installed")
@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("1 + x", "x + 1", True),
        ("\\frac{2}{4}", "0.5", True),
        ("\\{1, 2\\}", "\\{2, 1\\}", True),
        ("x + 2", "x + 1", False),
        ("__import__('os').system('true')", "1", False),
    ],
)
def test_math_verify_judges(answer: str, gold: str, correct: bool) -> None:
    check = LatexChecker()
    assert check(f"\\boxed{{{answer}}}", item(gold)).correct == correct
    check.close()


def test_the_registry_has_it() -> None:
    assert CHECKERS["latex"]("\\boxed{ x }", item("x")).strict
    assert normalised("\\tfrac{1}{2}") == normalised(" \\frac {1}{2}.")
    assert normalised("\\leftarrow") == "\\leftarrow"
