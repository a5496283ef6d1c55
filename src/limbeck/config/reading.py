"""Recipe text: YAML and overrides into plain values, with the place where each was set; and back to YAML.

Scalars are read as YAML 1.2 reads them: 5e-4 is a number, yes and on are words, dates are text.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import ConfigError

Where = tuple[str, ...]

WAY_OUT = "write one with: limbeck init --data FILE"
RECORDED = "# Written by Limbeck: the complete recipe of a run, every default included.\n"
"""The first line of a run's own recipe, by which it is told from one that a person wrote."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        tuple("-+0123456789."),
    ),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with other scalars."""


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what `_Loader` would not read as text."""


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _name, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))


def _text(dumper: Any, text: str) -> Any:
    # PyYAML writes some line breaks as they are and reads them back as spaces; in double quotes it escapes them.
    style = '"' if any(sign in text for sign in "\n\r\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """The values of a recipe that nobody has checked yet, and where each was set ("recipe.yaml line 19").

    `is_recorded`: they come from a run's own recipe, not from a person's.
    """

    values: dict[str, Any]
    places: dict[Where, str] = dataclasses.field(default_factory=dict)
    overrides: dict[Where, str] = dataclasses.field(default_factory=dict)
    is_recorded: bool = False

    def where(self, path: Where) -> str:
        """The last line of an error message about this key.

        >>> Draft(values={}, places={("train", "epochs"): "a.yaml line 3"}).where(("train", "epochs"))
        'set at train.epochs, a.yaml line 3'
        """
        inside = [text for to, text in self.overrides.items() if to[: len(path)] == path]
        if inside:
            return f"set on the command line: {inside[-1]}"
        for end in range(len(path), 0, -1):
            if path[:end] in self.overrides:
                return f"set on the command line: {self.overrides[path[:end]]}"
            if path[:end] in self.places:
                return f"set at {'.'.join(path)}, {self.places[path[:end]]}"
        return f"set at {'.'.join(path)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """One `section.key=value`."""

    path: Where
    value: Any
    text: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """The override of this text; its value is read as YAML. Raises `ConfigError`.

        >>> Override.parse("train.learning_rate=1e-4").value
        0.0001
        """
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ConfigError(f"'{text}' is no override; write section.key=value, e.g. train.learning_rate=1e-4")
        return cls(path=path, value=_parsed(value, name=f"'{text}'", places={}), text=text)


def read_recipe(path: Path, *, way_out: str = WAY_OUT) -> Draft:
    """The values of a recipe file; `ConfigError` for a file that is missing, not text, not YAML or not a mapping.

    `way_out` says in these errors how one comes by a recipe of this kind.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise ConfigError(f"the recipe {path} does not exist.{_near(path, way_out)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the recipe {path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from error
    places: dict[Where, str] = {}
    values = _parsed(text, name=str(path), places=places)
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"holds a {_kind(values)}"
        raise ConfigError(f"{path} {found}; it must hold sections.\n  {way_out}")
    # An editor may have put a byte order mark before the first line, and a carriage return behind it.
    first = text.removeprefix("\ufeff").partition("\n")[0].strip()
    return Draft(values=values, places=places, is_recorded=first == RECORDED.strip())


def overridden(draft: Draft, override: Override) -> Draft:
    """The draft with one key set. What stood there is replaced; a whole section is laid over key by key.

    A part of the method whose `kind` changes loses the fields of the old kind. Raises `ConfigError`.
    """
    values, path = copy.deepcopy(draft.values), override.path
    inner: Any = values
    for depth, key in enumerate(path[:-1], start=1):
        if inner.get(key) is None:
            inner[key] = {}
        elif isinstance(inner[key], str) and path[0] == "method":
            inner[key] = {"kind": inner[key]}
        if not isinstance(inner[key], dict):
            raise ConfigError(
                f"{'.'.join(path[:depth])} is {inner[key]!r}, which has no key '{path[depth]}'.\n"
                f"  set on the command line: {override.text}"
            )
        inner = inner[key]
    last, old = path[-1], inner.get(path[-1])
    if len(path) == 1 and last != "method" and isinstance(old, dict) and isinstance(override.value, dict):
        inner[last] = {**old, **override.value}
        changed: list[Where] = [(last, str(key)) for key in override.value]
    else:
        if path[0] == "method" and last == "kind" and old != override.value:
            inner.clear()
        inner[last] = override.value
        changed = [path]
    kept = {at: place for at, place in draft.places.items() if not any(at[: len(to)] == to for to in changed)}
    texts = {**draft.overrides, **dict.fromkeys(changed, override.text)}
    return dataclasses.replace(draft, values=values, places=kept, overrides=texts)


def to_yaml(values: Mapping[str, Any], *, header: str = "") -> str:
    """YAML that `read_recipe` reads back to equal values."""
    body: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return header + body


def scalar(value: object) -> str:
    """One value on one line, as a recipe holds it.

    >>> scalar("1e-4"), scalar(0.0001), scalar({"a": None})
    ("'1e-4'", '0.0001', '{a: null}')
    """
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _near(path: Path, way_out: str) -> str:
    if not path.parent.is_dir():
        return f"\n  there is no folder {path.parent} either"
    found = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml"))
    beside = f"{path.parent} holds {', '.join(found[:5])}" if found else way_out
    return f"\n  {beside}"


def _kind(value: object) -> str:
    return "list" if isinstance(value, list) else "single value"


def _parsed(text: str, *, name: str, places: dict[Where, str]) -> Any:
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), name, places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"broken YAML: {error.problem or error.context}.\n  in {name}{line}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"broken YAML: {str(error) or 'nested without end'}.\n  in {name}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _value(loader: Any, node: yaml.Node, path: Where, name: str, places: dict[Where, str]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(loader, item, (*path, str(i)), name, places) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or node.tag != _TAG + "map":
        raise ConfigError(f"the tag '{node.tag}' is not taken in recipes.\n  in {name} line {node.start_mark.line + 1}")
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = f"{name} line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"a key must be one word.\n  in {line}")
        key = str(loader.construct_object(key_node))
        here = (*path, key)
        if key in values:
            raise ConfigError(f"{'.'.join(here)} is set twice; keep one.\n  first at {places[here]}\n  again at {line}")
        places[here] = line
        values[key] = _value(loader, value_node, here, name, places)
    return values
