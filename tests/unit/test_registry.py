from __future__ import annotations

import pytest

from limbeck.errors import ConfigError, UnknownName
from limbeck.registry import Registry


def colours() -> Registry[int]:
    return Registry("colour", {"red": 1, "green": 2})


def test_it_is_a_dictionary() -> None:
    assert dict(colours()) == {"red": 1, "green": 2}
    assert "red" in colours()
    assert "blue" not in colours()
    assert colours().get("blue") is None


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known() -> None:
    with pytest.raises(UnknownName, match=r"no colour is called 'gren'\. Did you mean 'green'\?\n  known: green, red"):
        colours()["gren"]
    with pytest.raises(KeyError):
        colours()["blue"]


def test_an_entry_can_be_added_once() -> None:
    registry = colours()
    registry.add("blue", 3)
    assert registry["blue"] == 3
    with pytest.raises(ConfigError, match="the colour 'blue' exists already"):
        registry.add("blue", 4)
    assert registry["blue"] == 3


def test_a_lookup_that_fails_adds_nothing() -> None:
    registry = colours()
    with pytest.raises(UnknownName):
        registry["blue"]
    assert list(registry) == ["red", "green"]
