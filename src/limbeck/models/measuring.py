"""Measuring which layers of a model matter, on a few rows of a corpus: `python -m limbeck.models.measuring MODEL`."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.data.corpora import load_corpus
from limbeck.data.loader import batch
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.shrinking import drop_importance, drop_order
from limbeck.seeds import Seeds


def measure_layers(
    name: str,
    *,
    corpus: str = "starter",
    rows: int = 16,
    max_length: int = 128,
    keep: int = 10,
    at_once: int = 2,
    device: str = "auto",
) -> dict[str, Any]:
    """The record that `shrink` reads: the importance of every layer, and the order in which to drop layers.

    Rows are chosen by seed 0; those whose prompt does not fit in half of `max_length` tokens are left out. SmolLM2's
    30 layers down to 10 take some 12 minutes on one core.
    """
    tokenizer, model = load_tokenizer(name), load_model(name, device=device)
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=max_length // 2, max_length=max_length)
    encoded = encoder.rows(load_corpus(corpus, max_rows=rows, seeds=Seeds(0)).examples)
    sequences = batch([((0, i), row) for i, row in enumerate(encoded)], pad_id=tokenizer.eos_token_id or 0)
    importance = drop_importance(model, sequences)
    order = drop_order(model, sequences, keep=keep, at_once=at_once)
    return {
        "model": name,
        "rows": len(encoded),
        "response_tokens": sequences.num_scored,
        "importance": [round(value, 5) for value in importance],
        "drop_order": list(order),
        "keep": {
            str(len(importance) - gone): [i for i in range(len(importance)) if i not in order[:gone]]
            for gone in range(1, len(order) + 1)
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: measure, write the record as JSON, print what would be kept."""
    parser = argparse.ArgumentParser(prog="python -m limbeck.models.measuring", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--corpus", default="starter")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--keep", type=int, default=10, help="the smallest number of layers wanted")
    parser.add_argument("--at-once", type=int, default=2, help="layers dropped between two measurements")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    record = measure_layers(
        given.model,
        corpus=given.corpus,
        rows=given.rows,
        max_length=given.max_length,
        keep=given.keep,
        at_once=given.at_once,
        device=given.device,
    )
    command = (
        f"python -m limbeck.models.measuring {given.model} --corpus {given.corpus} --rows {given.rows}"
        f" --max-length {given.max_length} --keep {given.keep} --at-once {given.at_once}"
    )
    text = _one_list_a_line({"command": command, "seconds": round(time.perf_counter() - started), **record})
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text + "\n", encoding="utf-8")
        print(f"{record['rows']} rows, {record['response_tokens']} response tokens: {given.out}")


def _one_list_a_line(record: dict[str, Any]) -> str:
    """JSON that people can read too."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[[^\]{}]*\]", lambda found: " ".join(found.group().split()), text)


if __name__ == "__main__":
    main()
