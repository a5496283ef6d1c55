"""What a card may call things that lie on this machine: by their last part alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.data.corpora import is_path


def is_hub_id(name: str) -> bool:
    """Whether a name is OWNER/NAME and no folder."""
    return name.count("/") == 1 and not is_path(name)


def public(name: str) -> str:
    """A name that says nothing about the folders of this machine.

    >>> public("/home/alice/rows.jsonl"), public("owner/rows")
    ('rows.jsonl', 'owner/rows')
    """
    return name if is_hub_id(name) else Path(name).name or name


def spelled_as_places(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with a "./" before each model and corpus that is a folder or file where the run was started.

    Such a name looks like OWNER/NAME of the hub from any other working directory. A model that is the student of a run
    is spelled as that run: every one of them is called `student`.
    """
    named, path = Path(recipe.run), run.absolute()
    depth = len(named.parts)
    is_known = not named.is_absolute() and 0 < depth < len(path.parts) and path.parts[-depth:] == named.parts
    started = path.parents[depth - 1] if is_known else Path()

    def spelled_model(name: Any) -> Any:
        if name is None or Path(name).name != "student" or not (started / name).with_name("recipe.yaml").is_file():
            return spelled(name)
        return os.path.join(".", Path(name).parent)

    def spelled(name: Any) -> Any:
        is_place = isinstance(name, str) and is_hub_id(name) and (started / name).exists()
        return os.path.join(".", name) if is_place else name

    corpus: Any = recipe.data.corpus
    if isinstance(corpus, tuple):
        corpus = tuple(replace(share, corpus=spelled(share.corpus)) for share in corpus)
    models = replace(
        recipe.models, teacher=spelled_model(recipe.models.teacher), student=spelled_model(recipe.models.student)
    )
    data = replace(recipe.data, corpus=spelled(corpus), plain_text=spelled(recipe.data.plain_text))
    return replace(recipe, models=models, data=data)


def without_folders(part: Any) -> Any:
    """A part of a recipe with each folder or file by its last name alone."""
    if isinstance(part, Mapping):
        return {key: without_folders(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [without_folders(value) for value in part]
    return public(part) if isinstance(part, str) and os.sep in part and is_path(part) else part
