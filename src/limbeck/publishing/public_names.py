"""What a card may call things that lie on this machine: by their last part alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def without_folders(part: Any) -> Any:
    """A part of a recipe with each folder or file by its last name alone."""
    if isinstance(part, Mapping):
        return {key: without_folders(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [without_folders(value) for value in part]
    return public(part) if isinstance(part, str) and os.sep in part and is_path(part) else part
