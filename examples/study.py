"""Which method is best for your rows, and is the difference real? A study: methods x seeds, one table, intervals.

    python examples/study.py my.jsonl test.jsonl --teacher BIG --student SMALL

`limbeck study FILE.yaml` does the same from the command line; the file that this program writes is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from limbeck.studies.builtin import find_study
from limbeck.studies.places import Places
from limbeck.studies.printing import printed
from limbeck.studies.running import run_study


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of the study, and print its table; a second call prints the table at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--methods", default="sft,kd,gkd", help="the first is what the others are compared with")
    parser.add_argument("--seeds", default="0,1", help="training seeds: with one, no difference between runs is known")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    given = parser.parse_args(arguments)

    definition = {
        "title": f"Methods on {given.train.name}",
        "recipe": {
            "method": {"base": "sft"},
            "models": {"teacher": given.teacher, "student": given.student},
            "data": {"corpus": str(given.train), "max_prompt": given.max_length // 2, "max_length": given.max_length},
            "sampling": {"max_new_tokens": given.max_length // 2},
            "train": {"steps": given.steps, "batch_rows": given.batch_rows, "learning_rate": 2e-5},
            "validate": {"every": None},
        },
        "arms": {name: {"method.base": name} for name in given.methods.split(",")},
        "seeds": [int(seed) for seed in given.seeds.split(",")],
        "evaluate": {
            "corpora": {"test": str(given.test)},
            "seeds": [10, 20],
            "max_prompt": given.max_length // 2,
            "max_new_tokens": given.max_length // 2,
        },
        # Arms that must show no difference, and cost as much as others: worth it before a claim is made.
        "controls": False,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "my-methods.yaml"
    file.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    places = Places(work=given.out / "work", rows=given.out / "rows")
    outcome = run_study(find_study(str(file)), places)
    print(printed(given.out / "rows", file.stem, format="text"))
    for label, error in outcome.failures.items():
        print(f"{label} failed: {error}")


if __name__ == "__main__":
    main()
