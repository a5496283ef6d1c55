"""A typed dictionary of named things whose KeyError helps."""

from __future__ import annotations

from typing import TypeVar

from limbeck.errors import ConfigError, UnknownName

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dictionary literal of the variants of one kind; looking up an unknown name suggests the nearest.

    Nothing registers itself by being imported: the literal in the package's `__init__` is the whole list.

    >>> Registry("colour", {"red": 1})["red"]
    1
    >>> Registry("colour", {"red": 1})["rde"]
    Traceback (most recent call last):
    limbeck.errors.UnknownName: no colour is called 'rde'. Did you mean 'red'?
      known: red
    """

    def __init__(self, what: str, entries: dict[str, T]) -> None:
        super().__init__(entries)
        self.what = what

    def __missing__(self, name: str) -> T:
        raise UnknownName.among(self.what, name, self)

    def add(self, name: str, entry: T) -> None:
        """Register an entry of your own; a name that is taken raises `ConfigError`."""
        if name in self:
            raise ConfigError(f"the {self.what} '{name}' exists already; choose another name for yours")
        self[name] = entry
