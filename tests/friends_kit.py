"""Students of tiny runs for the tests that hand them to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import limbeck
from limbeck.testing import byte_tokenizer, save_tiny, save_toy

TEXT = "Say abc."


def train_student(folder: Path, *, lora: bool = False, chat: bool = True) -> Path:
    """The folder of a run of two steps."""
    tokenizer = byte_tokenizer(chat=chat)
    models = {
        "teacher": str(save_tiny(folder / "teacher", seed=1, layers=3, tokenizer=tokenizer)),
        "student": str(save_tiny(folder / "start", seed=2, tokenizer=tokenizer)),
        "device": "cpu",
        "lora": {"rank": 2} if lora else None,
    }
    recipe = {
        "method": {"base": "kd"},
        "models": models,
        # Without a chat template the prompt is the papers' layout, some 200 bytes.
        "data": {"corpus": str(save_toy(folder / "toy.jsonl", 12)), "max_prompt": 230, "max_length": 250},
        "sampling": {"max_new_tokens": 4},
        "train": {"steps": 2, "batch_rows": 4, "learning_rate": 1e-2},
        "validate": {"every": None},
        "watch": {"rows": 0},
        "run": str(folder / "run"),
    }
    return limbeck.train(recipe).directory


@torch.no_grad()
def logits(model: Any, text: str = TEXT) -> torch.Tensor:
    """[S, V] in float32 behind the bytes of the text."""
    ids = torch.tensor([list(text.encode())])
    return model.eval()(input_ids=ids).logits[0].float()
