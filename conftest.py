"""For all tests: what one process shares, and how tests are dealt out to several."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest

# Test workers are told a width, which programs under test would take for a person's window.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine is no finding; examples are bounded by their number. `make test-all` takes the other profile.
hypothesis.settings.register_profile("limbeck", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile("limbeck")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay together, since they share fixtures; so do all that start ranks, which take both cores.

    The mark for it, `xdist_group`, is read by pytest-xdist 3.8 but not obeyed under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "ranks" if file.startswith("tests/distributed/") else file

    return ByFile(config, log)
