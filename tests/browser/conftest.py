"""A browser for the tests of this folder, and pages of real runs: a pair of trained runs, a study, an UNDO run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser_kit import ARGUMENTS, CHROMIUM, made_page
from limbeck.reporting import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here need the browser, and `-m` has to know it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


def _missing() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed; make setup-browser installs it"
    return "" if CHROMIUM.exists() else f"{CHROMIUM} is not there; make setup-browser installs it"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    reason = _missing()
    if reason and os.environ.get("LIMBECK_BROWSER") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(made_page(), tmp_path_factory.mktemp("made") / "page.html")


@pytest.fixture(scope="session")
def run_page(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """Two runs, one of which revises, clips and looks at single tokens."""
    from limbeck.reporting.runs import report
    from training_kit import Models, recipe, start

    folder = tmp_path_factory.mktemp("runs")
    models = Models.save(folder)
    runs = [folder / name for name in ("sft", "mgsr")]
    for run, sections in zip(runs, ({}, {"watch": {"rows": 2}}), strict=True):
        start(recipe(models, run.name, train={"steps": 3}, **sections), run)
    return report(runs, folder / "page.html")


@pytest.fixture(scope="session")
def study_page(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """The table of two arms and a seed."""
    from limbeck.studies.printing import printed
    from limbeck.studies.running import run_study
    from study_kit import Ground

    ground = Ground.make(tmp_path_factory.mktemp("study"))
    places = ground.places()
    arms = {"sft": {"method.base": "sft"}, "kd": {"method.base": "kd"}}
    outcome = run_study(ground.study(arms=arms, seeds=[0]), places, say=lambda text: None)
    assert outcome.failures == {}
    page = ground.folder / "page.html"
    page.write_text(printed(places.rows, "mine", format="html"), encoding="utf-8")
    return page


@pytest.fixture(scope="session")
def undo_page(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """One round and a control."""
    from limbeck.blackbox.loop import run_undo
    from undo_kit import undo_values

    values = undo_values(tmp_path_factory.mktemp("undo"), controls=["blind"])
    return run_undo(values, say=lambda line: None).directory / "report.html"
