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
from limbeck.models.shrinking import drop_importance, keep_most_important
from limbeck.seeds import Seeds


def measure_layers(
    name: str, *, corpus: str = "starter", rows: int = 16, max_length: int = 192, device: str = "auto"
) -> dict[str, Any]:
    """The record that `shrink` reads: importance of every layer, and the layers to keep for each smaller number.

    Rows are chosen by seed 0; those whose prompt does not fit in half of `max_length` tokens are left out. Takes one
    forward per layer: about a minute for a model of 135 million parameters on two cores.
    """
    tokenizer, model = load_tokenizer(name), load_model(name, device=device)
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=max_length // 2, max_length=max_length)
    examples = load_corpus(corpus, max_rows=rows, seeds=Seeds(0)).examples
    encoded = encoder.rows(examples)
    sequences = batch([((0, i), row) for i, row in enumerate(encoded)], pad_id=tokenizer.eos_token_id or 0)
    started = time.perf_counter()
    importance = drop_importance(model, sequences)
    return {
        "model": name,
        "corpus": corpus,
        "rows": len(encoded),
        "response_tokens": sequences.num_scored,
        "seconds": round(time.perf_counter() - started),
        "importance": [round(value, 6) for value in importance],
        "keep": {str(count): list(keep_most_important(importance, count)) for count in range(1, len(importance))},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: measure, write the record as JSON, print what would be kept."""
    parser = argparse.ArgumentParser(prog="python -m limbeck.models.measuring", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--corpus", default="starter")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    record = measure_layers(
        given.model, corpus=given.corpus, rows=given.rows, max_length=given.max_length, device=given.device
    )
    command = f"python -m limbeck.models.measuring {given.model} --corpus {given.corpus} --rows {given.rows}"
    record = {"command": f"{command} --max-length {given.max_length}", **record}
    text = _one_list_a_line(record)
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text + "\n", encoding="utf-8")
        print(f"{record['rows']} rows, {record['response_tokens']} response tokens, {record['seconds']} s: {given.out}")


def _one_list_a_line(record: dict[str, Any]) -> str:
    """JSON that people can read too."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[[^\]{}]*\]", lambda found: " ".join(found.group().split()), text)


if __name__ == "__main__":
    main()
