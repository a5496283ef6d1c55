"""For all tests: what one process shares, and how tests are dealt out to several."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Test workers are told a width, which programs under test would take for a person's window.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine is no finding; examples are bounded by their number. `make test-all` takes the other profile.
hypothesis.settings.register_profile("limbeck", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile("limbeck")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file's tests stay together, since they share fixtures; so do all that start ranks, which take both cores."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = "ranks" if item.path.parent.name == "distributed" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
