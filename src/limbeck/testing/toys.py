"""Toy instruction data, made by rule from a seed: reverse a word, copy a word, add two numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from limbeck.records import Example, Message
from limbeck.seeds import Seeds

_LETTERS = "abcdefgh"


def _word(draw: np.random.Generator) -> str:
    return "".join(_LETTERS[i] for i in draw.integers(0, len(_LETTERS), size=int(draw.integers(2, 6))))


def _reverse(draw: np.random.Generator) -> tuple[str, str, str]:
    word = _word(draw)
    return "Reverse it.", word, word[::-1]


def _copy(draw: np.random.Generator) -> tuple[str, str, str]:
    word = _word(draw)
    return f"Say {word}.", "", word


def _add(draw: np.random.Generator) -> tuple[str, str, str]:
    left, right = (int(number) for number in draw.integers(0, 50, size=2))
    return f"{left}+{right}?", "", str(left + right)


_TASKS: dict[str, Callable[[np.random.Generator], tuple[str, str, str]]] = {
    "reverse": _reverse,
    "copy": _copy,
    "add": _add,
}


def toy_examples(count: int, *, seed: int = 0) -> list[Example]:
    """`count` short examples with one reference each; example i depends on the seed and on i alone.

    >>> example = toy_examples(3)[2]
    >>> example.category, example.messages[0].content, example.references
    ('add', '33+1?', ('34',))
    """
    examples = []
    for i in range(count):
        category = list(_TASKS)[i % len(_TASKS)]
        instruction, context, answer = _TASKS[category](Seeds(seed).child("toy", i).generator())
        examples.append(
            Example(
                id=f"toy-{i}",
                messages=(Message(role="user", content=instruction, input=context),),
                references=(answer,),
                category=category,
                corpus="toy",
                source=f"toy_examples row {i + 1}",
            )
        )
    return examples


def save_toy(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write `toy_examples(count)` as JSONL rows of id, instruction, input, output, category; returns the path."""
    with path.open("w", encoding="utf-8") as file:
        for example in toy_examples(count, seed=seed):
            message = example.messages[0]
            row = {
                "id": example.id,
                "instruction": message.content,
                "input": message.input,
                "output": example.references[0],
                "category": example.category,
            }
            file.write(json.dumps(row) + "\n")
    return path
