"""The values of a study's file, checked one by one; what is wrong is told with its line. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.config.reading import Draft, Where, read_recipe
from limbeck.errors import ConfigError, UnknownName

# Of the keys of a recipe the one that is no section.
_RUN = "run"


def recipe_sections(value: Any, draft: Draft, where: Where) -> dict[str, Any]:
    """A recipe written out, or that of a file; a section with nothing in it is an empty one. Raises `ConfigError`."""
    if isinstance(value, str):
        draft, where = read_recipe(Path(value)), ()
        value = draft.values
    if not isinstance(value, Mapping):
        raise ConfigError(f"{'.'.join(where)} is {value!r}; write sections, or a recipe's file\n  {draft.where(where)}")
    return {name: _section(name, each, draft, (*where, name)) for name, each in value.items()}


def arm_changes(value: Any, draft: Draft, where: Where) -> dict[str, Any]:
    """What an arm changes: dotted keys, or whole sections, of which an empty one changes nothing. Raises
    `ConfigError`."""
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(
            f"the arm '{where[-1]}' is {value!r}; write {{key: value}}, {{}} for none\n  {draft.where(where)}"
        )
    changes = {}
    for key, each in (value or {}).items():
        changed = each if "." in key else _section(key, each, draft, (*where, key))
        if key == "train.seed" or (key == "train" and "seed" in changed):
            # One run would stand in a table once for each training seed of the study.
            raise ConfigError(
                "train.seed is nothing that arms differ in; `seeds: [0, 1, 2]` trains every arm with each of them\n"
                f"  {draft.where((*where, key))}"
            )
        if "." in key or changed != {}:
            changes[key] = changed
    return changes


def _section(name: str, value: Any, draft: Draft, where: Where) -> Any:
    if name == _RUN or isinstance(value, Mapping):
        return value
    if value is None:
        return {}
    raise ConfigError(
        f"{'.'.join(where)} is {value!r}; {name} is a section of a recipe, write {name}: {{key: value}}\n"
        f"  {draft.where(where)}"
    )


def named_corpora(value: Any, draft: Draft, where: Where) -> dict[str, str]:
    """The corpora to score on by their names; of a list each has the stem of its file. Raises `ConfigError`."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list) and given and all(isinstance(each, str) for each in given):
        names = [Path(each).stem if "." in each else each for each in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            alike = [each for name, each in zip(names, given, strict=True) if name == twice]
            written = ", ".join(f"NAME{number}: {each}" for number, each in enumerate(alike, start=1))
            raise ConfigError(
                f"{'.'.join(where)} has {len(alike)} corpora that are called '{twice}'; give each a name of its own: "
                f"{{{written}}}\n  {draft.where(where)}"
            )
        return dict(zip(names, given, strict=True))
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{'.'.join(where)} is {given!r}; name at least one corpus or file\n  {draft.where(where)}")
    for name, each in given.items():
        if not isinstance(each, str):
            at = (*where, name)
            raise ConfigError(f"{'.'.join(at)} is {each!r}; write the name of a corpus or a file\n  {draft.where(at)}")
    return dict(given)


def whole_numbers(value: Any, draft: Draft, where: Where, *, least: int = 0) -> tuple[int, ...]:
    """A list of different whole numbers. Raises `ConfigError`."""
    is_good = isinstance(value, list) and bool(value)
    is_good = is_good and all(isinstance(each, int) and not isinstance(each, bool) and each >= least for each in value)
    if not is_good or len(set(value)) < len(value):
        raise ConfigError(
            f"{'.'.join(where)} is {value!r}; allowed: different whole numbers of at least {least}\n"
            f"  {draft.where(where)}"
        )
    return tuple(value)


def one_of(value: Any, allowed: Sequence[str], draft: Draft, where: Where) -> str:
    """One of the allowed values. Raises `ConfigError`."""
    if value not in allowed:
        raise ConfigError(f"{'.'.join(where)} is {value!r}; allowed: {', '.join(allowed)}\n  {draft.where(where)}")
    return str(value)


def check_keys(values: Mapping[str, Any], known: Sequence[str], what: str, where: Where, draft: Draft) -> None:
    """Raises `UnknownName` for a key that is none of the known ones."""
    for key in values:
        if key not in known:
            raise UnknownName.among(what, str(key), known, draft.where((*where, str(key))).removeprefix("set at "))
