"""Distil a big model into a small one on your own rows, and see what it gained.

    python examples/own_data.py my.jsonl --teacher BIG --student SMALL

Rows are JSON lines: {"prompt": ..., "completion": ...}, {"instruction": ..., "output": ...} or {"messages": [...]}.
A model is a hub id, a local folder, or a packaged name such as smollm2-135m-instruct.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import limbeck


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on nine rows of ten, score what the student was and what it has become on the tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--method", default="gkd", help="limbeck explain METHOD says what it is made of")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and answer together")
    parser.add_argument("--out", type=Path, default=Path("runs/own-data"))
    given = parser.parse_args(arguments)

    # The rows that scores are taken on are never trained on.
    lines = [line for line in given.data.read_text(encoding="utf-8").splitlines() if line.strip()]
    given.out.mkdir(parents=True, exist_ok=True)
    test = given.out / "test.jsonl"
    test.write_text("\n".join(lines[::10]) + "\n", encoding="utf-8")
    rows = [json.loads(line) for place, line in enumerate(lines) if place % 10]

    recipe = {
        "method": {"base": given.method},
        "models": {"teacher": given.teacher, "student": given.student},
        "data": {"max_prompt": given.max_length // 2, "max_length": given.max_length},
        "sampling": {"max_new_tokens": given.max_length // 2},
        "train": {"steps": given.steps, "batch_rows": given.batch_rows, "learning_rate": 2e-5},
        "run": str(given.out / "run"),
    }
    # The same command goes on with a run that was stopped.
    run = limbeck.train(recipe, rows=rows, resume=(given.out / "run" / "recipe.yaml").exists())

    for name, model in (("before", given.student), ("after", run)):
        results = limbeck.evaluate(
            model,
            [str(test)],
            seeds=(10,),
            out=given.out / "answers" / name,
            max_prompt=given.max_length // 2,
            max_new_tokens=given.max_length // 2,
        )
        print(f"{name}: ROUGE-L {100 * results.mean():.1f} % over {len(lines[::10])} rows that were not trained on")
    print(f"student: {run.directory / 'student'}")


if __name__ == "__main__":
    main()
