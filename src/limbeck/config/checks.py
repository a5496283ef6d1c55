"""What is wrong with a recipe, said so that it can be put right: unknown keys, wrong values, settings nobody reads."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from limbeck.config.reading import WAY_OUT, Draft, Where, read_recipe
from limbeck.config.sections import SECTIONS, keys_of, section_inside
from limbeck.errors import ConfigError, UnknownName

TOP_KEYS = ("method", *SECTIONS, "run")
_HALF = ("fp16", "float16", "half", "fp16-mixed")


def plain(value: object, path: Where = ()) -> Any:
    """A value of Python code as YAML would hold it; parts of a method become `{kind: ...}`. Raises `ConfigError`."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, (*path, str(key))) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, (*path, str(index))) for index, inner in enumerate(value)]
    if path[:1] == ("method",) and dataclasses.is_dataclass(value):
        from limbeck.methods import CUSTOM, PRESETS, Method, to_config

        stated: Any = plain(to_config(value), path)
        if not isinstance(value, Method):
            return stated
        same = (name for name, preset in PRESETS.items() if preset() == value)
        return {"base": next(same, CUSTOM), **stated}
    raise ConfigError(
        f"{'.'.join(path)} is a {type(value).__name__}; a recipe holds text, numbers, lists and mappings.\n"
        "  Save models to a folder and name the folder; pass rows with limbeck.train(..., rows=...)"
    )


def check_keys(draft: Draft) -> None:
    """Raise `UnknownName` for a key that no section has, `ConfigError` where a section holds something else."""
    for key, value in draft.values.items():
        if key not in TOP_KEYS:
            raise _unknown("section of a recipe", (key,), TOP_KEYS, draft)
        if key in SECTIONS:
            _check_section(SECTIONS[key], _mapping(value, (key,), draft), (key,), draft)
    _mapping(draft.values.get("method", {}), ("method",), draft)


def _check_section(section: type, values: Mapping[str, Any], path: Where, draft: Draft) -> None:
    known = keys_of(section)
    for key, value in values.items():
        here = (*path, key)
        if key not in known:
            raise _unknown(f"key of {'.'.join(path)}", here, known, draft)
        inner = section_inside(section, key)
        if inner is not None and isinstance(value, dict):
            _check_section(inner, value, here, draft)
        elif inner is not None and isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    _check_section(inner, entry, (*here, str(index)), draft)


def _mapping(value: object, path: Where, draft: Draft) -> dict[str, Any]:
    name = ".".join(path)
    if isinstance(value, dict):
        return value
    example = "method: {base: gkd}"
    if name in SECTIONS:
        example = f"{name}: {{{next(iter(keys_of(SECTIONS[name])))}: ...}}"
    raise ConfigError(f"{name} is {value!r}; a section of keys is expected, e.g. {example}\n  {draft.where(path)}")


def _unknown(what: str, path: Where, known: Any, draft: Draft) -> UnknownName:
    error = UnknownName.among(what, path[-1], known)
    homes = [f"{name}.{path[-1]}" for name, section in SECTIONS.items() if path[-1] in keys_of(section)]
    lines = [str(error)]
    if homes and not difflib.get_close_matches(path[-1], list(known), n=1, cutoff=0.8):
        lines.append(f"  '{path[-1]}' belongs elsewhere: {', '.join(homes)}")
    return UnknownName("\n".join([*lines, f"  {draft.where(path)}"]))


def check_text(values: Mapping[str, Any], draft: Draft) -> None:
    """Raise `ConfigError` for text that UTF-8 cannot hold, such as a file's name with bytes of another encoding."""
    for path, text in _texts(values):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            name = ".".join(path)
            raise ConfigError(
                f"{name} is {text!r}, which is no UTF-8 text, and a recipe is written in UTF-8.\n"
                f"  Rename the file or folder, or give {name} another value\n  {draft.where(path)}"
            ) from error


def _texts(value: object, path: Where = ()) -> Iterator[tuple[Where, str]]:
    """Every text in these values with the key that it stands at, keys themselves included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield path, key
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, str(index)))


def value_error(error: ValidationError, draft: Draft) -> ConfigError:
    """pydantic's findings as one message: each key once, with its value and what it may be."""
    messages: dict[Where, str] = {}
    for finding in error.errors():
        path, allowed = _leaf(tuple(str(part) for part in finding["loc"]))
        if path in messages:
            continue
        name, value = ".".join(path), _at(draft.values, path)
        if finding["type"] == "missing" and value is None:
            messages[path] = f"{name} is missing; {allowed} is expected.\n  {draft.where(path)}"
        elif str(value) in _HALF:
            messages[path] = (
                f"{name} is {value!r}, which is refused: half precision overflows at 65,504 without a sign.\n"
                f"  use bf16-mixed or bf16 on an accelerator, else fp32; allowed: {allowed}\n  {draft.where(path)}"
            )
        else:
            messages[path] = f"{name} is {value!r}; allowed: {allowed}\n  {draft.where(path)}"
    deepest = [path for path in messages if not any(other != path and other[: len(path)] == path for other in messages)]
    return ConfigError("\n".join(messages[path] for path in deepest))


def _leaf(location: Where) -> tuple[Where, str]:
    """The key that a finding is about, without pydantic's names of union members, and what it may be."""
    path: list[str] = [location[0]]
    section, allowed = SECTIONS.get(location[0]), "the folder of the run"
    for part in location[1:]:
        if section is None:
            break
        known = keys_of(section)
        if part in known:
            path.append(part)
            allowed, section = known[part].allowed, section_inside(section, part)
        elif part.isdigit():
            path.append(part)
            allowed = f"{{{', '.join(known)}}}"
    return tuple(path), allowed


def _at(values: Any, path: Where) -> Any:
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
    return values


def method_error(error: Exception, draft: Draft) -> ConfigError:
    """An error of the method section with the place where its key was set."""
    text = re.sub(r"\n  set at .*$", "", str(error))
    named = re.search(r"method(\.\w+)+", str(error))
    path = tuple(named.group().split(".")) if named else ("method", "base")
    field = re.search(r"does not take these values: (\w+):", text)
    path = (*path, field.group(1)) if field else path
    kind = UnknownName if isinstance(error, UnknownName) else ConfigError
    return kind(f"{text}\n  {draft.where(path)}")


def draft_of(source: Mapping[str, Any] | Path | str, *, way_out: str = WAY_OUT) -> tuple[Draft, str]:
    """The unchecked values of a mapping, of a file or of a run's folder, and the name that a run gets from its file.

    `way_out`: how one comes by a recipe, for the error where there is none.
    """
    if isinstance(source, Mapping):
        return Draft(values={str(key): plain(value, (str(key),)) for key, value in source.items()}), ""
    path = Path(source)
    if not path.is_dir():
        return read_recipe(path, way_out=way_out), path.stem
    # A run may have been moved since it wrote its recipe, and its first line lost: what lies in a folder may have come
    # from anywhere.
    draft = read_recipe(path / "recipe.yaml", way_out=way_out)
    return dataclasses.replace(draft, values={**draft.values, "run": str(path)}, is_recorded=True), ""
