from __future__ import annotations

import subprocess
import sys

import pytest

import limbeck

_HEAVY = ("torch", "transformers", "datasets", "nltk")


@pytest.mark.parametrize(
    "module",
    ["limbeck", "limbeck.cli", "limbeck.reporting", "limbeck.reporting.runs", "limbeck.records", "limbeck.errors",
     "limbeck.config.recipes", "limbeck.preflight.starting"],
)  # fmt: skip
def test_importing_it_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_load_on_first_use():
    assert limbeck.__version__
    assert limbeck.methods.METHODS["gkd"]
    for name in limbeck.__all__:
        assert getattr(limbeck, name) is not None
    assert set(limbeck.__all__) <= set(dir(limbeck))
    with pytest.raises(AttributeError, match="nothing"):
        limbeck.nothing  # noqa: B018
