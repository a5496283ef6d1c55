"""A page of 10,000 rows: written in 10 seconds, below 15 MB, opened in 3."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser_kit import HOSTILE, texts, wait_for, watched
from limbeck.reporting import (
    Answer,
    Case,
    CasesSection,
    Column,
    Number,
    Page,
    Row,
    Table,
    TableSection,
    write_page,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROWS = 10_000
_WORDS = [
    "the",
    "a",
    "model",
    "student",
    "teacher",
    "answer",
    "token",
    "loss",
    "because",
    "therefore",
    "however",
    "number",
    "of",
    "in",
    "to",
    "and",
    "is",
    "was",
]

# Real pages, real waits: `make test-browser` and `make test-all` run them.
pytestmark = pytest.mark.slow


def _said(chance: random.Random, count: int) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(count))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs' answers to every row, one of them hostile, and a table of all scores."""
    chance = random.Random(0)
    cases, rows = [], []
    for n in range(ROWS):
        score = 100 * chance.random()
        answers = (
            Answer(arm="sft", text=_said(chance, 25), scores=(("ROUGE-L", f"{score:.1f}"),)),
            Answer(arm="gkd", text=HOSTILE if n == ROWS - 1 else _said(chance, 25)),
        )
        cases.append(
            Case(title=f"dolly-{n}", instruction=_said(chance, 15), answers=answers, compare=(("sft", "gkd"),))
        )
        rows.append(Row(cells=(f"dolly-{n}", Number(value=score))))
    table = Table(columns=(Column(title="row"), Column(title="ROUGE-L", better="higher")), rows=tuple(rows))
    sections = (CasesSection(title="Answers", cases=tuple(cases)), TableSection(title="Row by row", table=table))
    path = tmp_path_factory.mktemp("many") / "page.html"
    started = time.process_time()
    write_page(Page(title="Many", summary=("Many rows.",), sections=sections), path)
    assert time.process_time() - started < 10
    assert path.stat().st_size < 15e6
    return path


def _seconds(tab: object) -> float:
    """What the page's process worked; on a machine with a free core that is what a person waits for."""
    session = tab.context.new_cdp_session(tab)  # type: ignore[attr-defined]
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ProcessTime"])


def test_it_opens_in_three_seconds_and_reaches_its_last_row(browser: Browser, many: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(many)
        tab.locator(".case-title").first.wait_for()
        assert _seconds(tab) < 3
        counts = tab.get_by_role("status")
        assert texts(counts) == ["10,000 rows", "10,000 rows"]
        # Rows are made where they are looked at.
        assert tab.locator("details.case").count() < 500
        tab.get_by_role("searchbox").first.fill(f"dolly-{ROWS - 1} onerror=")
        wait_for(tab, lambda: counts.first.inner_text() == "1 of 10,000 rows")
        assert texts(tab.locator(".case-title:visible")) == [f"dolly-{ROWS - 1}"]
        tab.locator(".case:visible summary").first.click()
        last = tab.locator(f"#row-dolly-{ROWS - 1}")
        assert HOSTILE in texts(last.locator(".answer .said"))
        # The two runs that the page was written to compare are compared from the start.
        wait_for(tab, lambda: last.locator(".chosen ins").count() > 0)
        assert tab.title() == "Many"
        assert tab.locator("img").count() == 0


def test_a_link_finds_a_row_that_is_not_made_yet_and_all_can_be_opened(browser: Browser, many: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(many)
        tab.evaluate("location.hash = 'row-dolly-7654'")
        row = tab.locator("#row-dolly-7654")
        wait_for(tab, lambda: row.get_attribute("open") is not None)
        assert tab.evaluate("document.activeElement.closest('details').id") == "row-dolly-7654"
        tab.get_by_role("button", name="Open all").first.click()
        tab.evaluate("location.hash = 'row-dolly-3210'")
        near = tab.locator("#row-dolly-3211")
        wait_for(tab, lambda: near.count() == 1 and near.get_attribute("open") is not None)
        assert tab.locator("details.case").count() < 2_000


def test_the_table_of_all_rows_sorts(browser: Browser, many: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(many)
        tab.get_by_role("button", name="ROUGE-L").click()
        shown = [float(each) for each in texts(tab.locator("tbody tr:nth-child(-n+50) td"))]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] > 99


def test_without_scripts_every_row_is_there(browser: Browser, many: Path) -> None:
    with watched(browser, java_script_enabled=False) as seen:
        tab = seen.read(many)
        assert tab.locator("details.case").count() == ROWS
        last = tab.locator(f"#row-dolly-{ROWS - 1}")
        last.locator("summary").click()
        assert HOSTILE in texts(last.locator(".answer .said"))
