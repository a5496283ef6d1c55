"""docs/troubleshooting.md has an entry for every failure signature, and names keys that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from limbeck.config.sections import SECTIONS, LoraSection, keys_of
from limbeck.methods import PRESETS, to_config
from limbeck.training.signatures import SIGNATURES

_PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
_ENTRIES = dict(re.findall(r"^### `([\w-]+)`\n(.*?)(?=^##|\Z)", _PAGE, re.M | re.S))
_KEY = re.compile(rf"(?<![\w-])((?:method|{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[a-z_]+)*)")


def _keys_in(text: str) -> set[str]:
    return {key for key in _KEY.findall(text) if not key.endswith((".md", ".jsonl"))}


def _paths(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}.{key}")


def test_every_signature_has_its_entry_and_no_other() -> None:
    assert list(_ENTRIES) == list(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_entry_says_symptom_causes_and_what_to_do(name: str) -> None:
    entry, signature = _ENTRIES[name], SIGNATURES[name]
    parts = [part.strip() for part in re.split(r"\*\*(?:Symptom|Likely causes|What to do)\.\*\*", entry)]
    assert len(parts) == 4
    assert all(len(part.split()) >= 8 for part in parts[1:])
    assert f"`watch.{signature.key}`" in entry
    # What the warning tells people to set stands in the entry too.
    assert _keys_in(signature.advice) <= _keys_in(parts[3]), name


def test_every_key_on_the_page_exists() -> None:
    known = {f"{name}.{key}" for name, section in SECTIONS.items() for key in keys_of(section)}
    known |= {f"models.lora.{key}" for key in keys_of(LoraSection)}
    for preset in PRESETS.values():
        known |= set(_paths(to_config(preset()), "method"))
    known |= {"method.base", "method.weights.supervised", "method.weights.span"}
    assert _keys_in(_PAGE) - known == set()
