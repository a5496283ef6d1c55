"""Pages of real runs on a phone and a wide screen, in both themes: no complaint, no request, nothing unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser_kit import SCREENSHOTS, texts, unreadable, wait_for, watched, words

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# Real pages, real waits: `make test-browser` and `make test-all` run them.
pytestmark = pytest.mark.slow
PAGES = ("made", "run_page", "study_page", "undo_page")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable_everywhere(name: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    page: Path = request.getfixturevalue(name)
    for theme in ("light", "dark"):
        for width in (400, 1600):
            with watched(browser, color_scheme=theme, viewport={"width": width, "height": 900}) as seen:
                tab = seen.read(page)
                shot = SCREENSHOTS / f"{name.removesuffix('_page')}-{width}-{theme}.png"
                tab.screenshot(path=shot, full_page=True)
                assert unreadable(tab) == [], shot
                for button in tab.get_by_role("button", name="Open all").all():
                    button.click()
                assert unreadable(tab) == [], shot


@pytest.mark.parametrize("name", PAGES)
def test_every_table_of_a_page_sorts_and_nothing_is_lost(
    name: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    with watched(browser) as seen:
        tab = seen.read(request.getfixturevalue(name))
        sorted_tables = 0
        for table in tab.locator("main > section > .scroll > table").all():
            rows = words(table.locator("tbody tr"))
            for heading in table.locator("thead button").all():
                heading.click()
                assert sorted(words(table.locator("tbody tr"))) == sorted(rows)
                sorted_tables += 1
        assert sorted_tables


def test_the_answers_of_two_runs_are_compared(browser: Browser, run_page: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(run_page)
        answers = tab.locator("section").filter(has=tab.get_by_role("heading", name="Answers", exact=True))
        assert texts(answers.locator("details.case").first.locator(".answer:not(.known) h4")) == ["sft", "mgsr"]
        answers.get_by_label("Compare").select_option("sft")
        answers.get_by_label("with").select_option("mgsr")
        wait_for(tab, lambda: answers.locator(".chosen").count() > 0)


def test_a_token_is_read_with_the_keys(browser: Browser, run_page: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(run_page)
        look = tab.locator(".look:visible").first
        look.locator("input").first.focus()
        tab.keyboard.press("ArrowRight")
        assert look.locator("input").nth(1).is_checked()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_without_scripts_says_the_same(name: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    page: Path = request.getfixturevalue(name)
    said = []
    for scripts in (True, False):
        with watched(browser, java_script_enabled=scripts) as seen:
            tab = seen.read(page)
            said.append(words(tab.locator("h1, main h2, .summary p, .prose, td, .said, figcaption")))
    assert said[0] == said[1]
    assert len(said[0]) > 10
