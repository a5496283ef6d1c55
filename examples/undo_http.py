"""Learn from a model that can only be talked to: UNDO against any OpenAI-compatible server.

    python examples/undo_http.py questions.jsonl --url http://127.0.0.1:8000/v1 --model NAME --student SMALL

Questions are JSON lines: {"question": ..., "answer": ...}. The server may be vLLM, llama.cpp, `transformers serve` or a
provider; a key is read from the environment variable that --key-variable names, and is never written anywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from limbeck.blackbox.loop import run_undo
from limbeck.blackbox.page import summary_lines
from limbeck.blackbox.planning import plan


def main(arguments: Sequence[str] | None = None) -> None:
    """Say what it will cost, then let the teacher write, the student learn, and the teacher rewrite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key-variable")
    parser.add_argument("--student", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--calls", type=int, default=10_000, help="the most that may be asked, over all rounds")
    parser.add_argument(
        "--probe", type=int, default=20, help="questions that the teacher sees the student's answers to"
    )
    parser.add_argument("--held-out", type=int, default=100, help="questions for choosing the round, and for the test")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--max-prompt", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("runs/undo-http"))
    given = parser.parse_args(arguments)

    recipe = {
        "teacher": {"kind": "http", "url": given.url, "model": given.model, "key_variable": given.key_variable},
        "task": {
            "file": str(given.questions),
            "probe": given.probe,
            "stop": given.held_out,
            "test": given.held_out,
        },
        "student": {
            "model": given.student,
            "max_prompt": given.max_prompt,
            "max_new_tokens": given.max_new_tokens,
        },
        "method": {"base": "undo-v1", "rounds": given.rounds},
        "train": {"epochs": 1, "batch_rows": 8, "learning_rate": 2e-5},
        "controls": ["one-shot"],
        "budget": {"calls": given.calls},
        "run": str(given.out),
    }
    for line in plan(recipe).lines():
        print(line)
    # Every answer is kept before it is used: the same command goes on, and asks for none of them again.
    done = run_undo(recipe, resume=(given.out / "recipe.yaml").exists())
    for line in summary_lines(done.directory):
        print(line)
    print(f"page: {done.directory / 'report.html'}")


if __name__ == "__main__":
    main()
