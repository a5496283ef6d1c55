"""From the plain dictionary of a recipe to a component: what may stand in each slot, and how a part is made."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError, UnknownName
from limbeck.files import file_hash
from limbeck.losses import CLIP_NETWORKS, DIVERGENCES, SPAN_TERMS, TARGETS, TOKEN_TERMS, TOKEN_WEIGHTS
from limbeck.registry import Registry
from limbeck.revision import DETECTORS, REVISERS
from limbeck.sequences import SCHEDULES, SOURCES
from limbeck.spans import EXTRACTORS

SLOTS: dict[str, Registry[Any]] = {
    "sequences": SOURCES,
    "first": SOURCES,
    "second": SOURCES,
    "source": SOURCES,
    "schedule": SCHEDULES,
    "token": TOKEN_TERMS,
    "divergence": DIVERGENCES,
    "target": TARGETS,
    "weight": TOKEN_WEIGHTS,
    "clip": CLIP_NETWORKS,
    "revision": REVISERS,
    "detector": DETECTORS,
    "span": SPAN_TERMS,
    "extractor": EXTRACTORS,
}


def merged_parts(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `whole`; a part whose kind changes is replaced, not merged."""
    merged = dict(whole)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(value, str) and isinstance(old, dict) and "kind" in old:
            value = {"kind": value}
        if isinstance(value, Mapping) and isinstance(old, dict):
            same = value.get("kind", old.get("kind")) == old.get("kind")
            merged[key] = merged_parts(old, value) if same else dict(value)
        else:
            merged[key] = value
    return merged


def component_of(slot: str, plain: Any, where: str, allow_import: bool) -> Any:
    """The component that a recipe states for a slot, its parts included; `where` is its dotted key.

    Raises `UnknownName` for a kind or field that does not exist, `ConfigError` for a value out of range and for a
    `kind` of the form "module:Class" without `allow_import`.
    """
    if isinstance(plain, str):
        plain = {"kind": plain}
    if not isinstance(plain, Mapping) or "kind" not in plain:
        raise ConfigError(f"{where} is {plain!r}; write {{kind: ...}}\n  known: {', '.join(sorted(SLOTS[slot]))}")
    kind = str(plain["kind"])
    if ":" in kind and kind not in SLOTS[slot]:
        entry = _imported(kind, where, allow_import)
    elif kind in SLOTS[slot]:
        entry = SLOTS[slot][kind]
    else:
        raise UnknownName.among(SLOTS[slot].what, kind, SLOTS[slot], f"{where}.kind")
    known = {part.name: part.type for part in dataclasses.fields(entry)}
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key == "kind":
            continue
        if key not in known:
            raise UnknownName.among(f"field of '{kind}'", key, [*known, "kind"], f"{where}.{key}")
        # A part of one's own may call a text as a slot is called.
        is_part = key in SLOTS and isinstance(value, str | Mapping) and known[key] not in (str, "str")
        values[key] = component_of(key, value, f"{where}.{key}", allow_import) if is_part else value
    try:
        return entry(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} ('{kind}') does not take these values: {_reason(error)}") from error


def _imported(kind: str, where: str, allow_import: bool) -> Any:
    if not allow_import:
        raise ConfigError(
            f"{where}.kind is '{kind}', code outside Limbeck; it is taken from hand-written recipes only.\n"
            "  Pass your recipe file again instead of the run's own copy."
        )
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}.kind is '{kind}', which cannot be imported: {error}") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(
            f"{where}.kind is '{kind}', which is no dataclass; a part of a method is one, and its fields are its keys"
        )
    return found


def own_code(plain: Any) -> dict[str, str]:
    """The modules of one's own parts ("module:Class") in the plain dictionary of a method, each with the hash of its
    file."""
    if isinstance(plain, list | tuple):
        return {name: code for each in plain for name, code in own_code(each).items()}
    if not isinstance(plain, Mapping):
        return {}
    found = own_code(list(plain.values()))
    name, colon, _ = str(plain.get("kind", "")).partition(":")
    # A program of one's own, or a module that was made in memory, has no spec.
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name) if colon else None
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            found[name] = file_hash(Path(spec.origin))
    return found


def _reason(error: Exception) -> str:
    """pydantic's findings on one line each, without its web links."""
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    return "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in found())
