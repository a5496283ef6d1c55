"""Mathematical answers: equal as texts, as numbers, or by math-verify in a process that can be killed."""

from __future__ import annotations

import atexit
import functools
import re
import sys
from collections import Counter
from pathlib import Path

from limbeck.blackbox.checkers import Mode, Verdict, places_of
from limbeck.blackbox.items import Item
from limbeck.blackbox.numbers import read_number, same_number
from limbeck.blackbox.workers import WorkerPool

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("latex_worker.py")))
_ADVICE = "the latex checker needs math-verify: pip install limbeck[eval]"
_DROPPED = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;:! ]|\\displaystyle|\$|\s+")
_MATH = re.compile(r"\$([^$\n]+)\$")
_PLAIN_NUMBER = re.compile(r"[-+]?[\d.,/]+")
_LONGEST = 500


class LatexChecker:
    """Whether an answer is equal to the gold one as mathematics.

    The answer is read where answers are said: the line after the last ####, what the last \\boxed{} holds, the line
    after "answer is", else the last $…$, or the last line. Spaces and sizes of brackets aside, equal texts are equal;
    plain numbers are compared as the numeric checker does. All else goes to the pool: math-verify reads both as LaTeX,
    in a process that is killed after five seconds. Where that ends without a verdict, the answer is unknown and counts
    as wrong; `unknown` counts those by reason. Model text is never evaluated. Raises `ConfigError` without
    math-verify, once it is needed.
    """

    def __init__(self, pool: WorkerPool | None = None) -> None:
        self._pool = pool or WorkerPool(_COMMAND, advice=_ADVICE)
        self.unknown: Counter[str] = Counter()

    def __call__(self, text: str, item: Item) -> Verdict:
        """The verdict on a text."""
        for mode, said in places_of(text):
            answer = _answer(mode, said)
            if answer:
                return self._judged(answer, mode, gold=item.gold)
        return Verdict(extracted="", mode="none", correct=False)

    def close(self) -> None:
        """End the processes; they start again when they are needed."""
        self._pool.close()

    def _judged(self, answer: str, mode: Mode, *, gold: str) -> Verdict:
        if normalised(answer) == normalised(gold):
            return Verdict(extracted=answer, mode=mode, correct=True)
        if _PLAIN_NUMBER.fullmatch(answer) and _PLAIN_NUMBER.fullmatch(gold.strip()):
            one, other = read_number(answer), read_number(gold)
            if one is not None and other is not None:
                return Verdict(extracted=answer, mode=mode, correct=same_number(one, other))
        if len(answer) > _LONGEST:
            return self._unknown("unparsed", answer, mode)
        reply = self._pool.ask({"gold": gold, "answer": answer})
        verdict = reply.body.get("verdict")
        if verdict in ("equal", "different"):
            return Verdict(extracted=answer, mode=mode, correct=verdict == "equal")
        if reply.outcome != "answered":
            return self._unknown(reply.outcome, answer, mode)
        return self._unknown("unparsed" if verdict == "unparsed" else "failed", answer, mode)

    def _unknown(self, reason: str, answer: str, mode: Mode) -> Verdict:
        self.unknown[reason] += 1
        return Verdict(extracted=answer, mode=mode, correct=False, unknown=reason)


@functools.cache
def default_checker() -> LatexChecker:
    """The checker that the registry uses; its process ends with the program."""
    checker = LatexChecker()
    atexit.register(checker.close)
    return checker


def normalised(text: str) -> str:
    """A mathematical text without what does not change it: spaces, dollars, sizes of brackets and fractions.

    >>> normalised("$ \\\\left( \\\\dfrac{1}{2},\\\\, 3 \\\\right) $.") == normalised("(\\\\frac{1}{2},3)")
    True
    """
    return _DROPPED.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").rstrip(".")


def _answer(mode: Mode, said: str) -> str:
    """What may be the answer in one place of a text."""
    lines = [line.strip() for line in said.strip().split("\n")]
    if mode == "boxed":
        return said.strip()
    if mode != "fallback":
        return lines[0].rstrip(".").strip("$").strip()
    written = _MATH.findall(said)
    return (written[-1] if written else lines[-1].rstrip(".")).strip()
