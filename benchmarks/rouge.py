"""ROUGE-L with stemming: Limbeck against the `rouge_score` package, both timed in this process.

    python benchmarks/rouge.py                        # generated text
    python benchmarks/rouge.py --data dolly/test.jsonl
    python benchmarks/rouge.py --quick                # few rows; its ratios mean little

An answer is the reference of another row, so lengths and words are those of real answers. Imports are not counted;
every timing of Limbeck begins with an empty memory. Prints `one pass` (each answer once) and `five seeds` (five
different answers a row, one scorer, as an evaluation does it), each side's best of three, in turns. Fails unless all
scores are equal bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe
from rouge_score.rouge_scorer import RougeScorer

from limbeck.evaluation import RougeL

TARGETS = {1: 8.0, 5: 20.0}
REPEATS = 3


def read_references(path: Path, rows: int) -> list[list[str]]:
    """The references of the first rows of a JSONL file with `output`: text or a list of texts."""
    lines = path.read_text(encoding="utf-8").splitlines()[:rows]
    outputs = [json.loads(line)["output"] for line in lines if line.strip()]
    return [output if isinstance(output, list) else [output] for output in outputs]


def generated_references(rows: int) -> list[list[str]]:
    """English-looking text: 8,000 word forms whose frequencies fall as 1/rank, 10 to 130 words a row."""
    draw = random.Random(0)
    onsets, vowels = (
        ["b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "st", "tr", "pl", "ch", "sh"],
        ["a", "e", "i", "o", "u", "ea", "ou"],
    )
    endings = ["", "s", "ed", "ing", "er", "ation", "al", "ly", "ness", "able", "y", "e"]
    roots = ["".join(draw.choice(onsets) + draw.choice(vowels) for _ in range(draw.randint(1, 3))) for _ in range(2000)]
    words = [root + draw.choice("nrtlmd") + draw.choice(endings) for root in roots for _ in range(4)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [[" ".join(draw.choices(words, weights, k=draw.randint(10, 130))) + "."] for _ in range(rows)]


def timed(score: Callable[[], list[float]]) -> tuple[list[float], float]:
    began = time.perf_counter()
    scores = score()
    return scores, time.perf_counter() - began


def theirs(answers: list[str], references: list[list[str]]) -> list[float]:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(answers, references, strict=True)
    return [float(scorer.score_multi(known, answer)["rougeL"].fmeasure) for answer, known in pairs]


def ours(answers: list[str], references: list[list[str]]) -> list[float]:
    return RougeL().many(answers, references)


def compare(references: list[list[str]], *, seeds: int, judged: bool) -> None:
    """Prints both times for `seeds` answers a row, and rouge_score's divided by Limbeck's."""
    count = len(references)
    answers = [references[(i + 7 * seed + 1) % count][0] for seed in range(seeds) for i in range(count)]
    known = references * seeds
    slow = fast = float("inf")
    for _ in range(REPEATS):
        expected, seconds = timed(lambda: theirs(answers, known))
        slow = min(slow, seconds)
        scores, seconds = timed(lambda: ours(answers, known))
        fast = min(fast, seconds)
        if scores != expected:
            raise SystemExit("scores differ from rouge_score")
    ratio = slow / fast
    name = {1: "one pass", 5: "five seeds"}[seeds]
    target = TARGETS[seeds]
    verdict = f"   target {target:.0f} {'met' if ratio >= target else 'MISSED'}" if judged else ""
    print(
        f"{name:<10}  {len(answers):>6} answers   rouge_score {slow:7.3f} s   limbeck {fast:7.3f} s"
        f"   ratio {ratio:5.1f}{verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="JSONL with `output`; generated text without it")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="50 rows")
    arguments = parser.parse_args()
    data, rows = arguments.data, 50 if arguments.quick else arguments.rows
    references = read_references(data, rows) if data else generated_references(rows)
    RougeL().many(["imports"], [["are not counted"]])
    source = data.name if data else "generated text"
    print(describe())
    print(f"{len(references)} rows of {source}; equal bit for bit to rouge_score or this program fails")
    for seeds in (1, 5):
        compare(references, seeds=seeds, judged=not arguments.quick)


if __name__ == "__main__":
    main()
