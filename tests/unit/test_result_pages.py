"""Tables of docs/results are those of the committed rows."""

from __future__ import annotations

from types import ModuleType

import pytest

from docs_kit import ROOT, program

RESULTS = ROOT / "docs" / "results"
PAGES = sorted(page.name for page in RESULTS.glob("*.md") if "<!-- study " in page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return program("tools/result_pages.py")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_tables_that_its_rows_give(name: str, tool: ModuleType) -> None:
    text = (RESULTS / name).read_text(encoding="utf-8")
    assert tool.refreshed(text, rows=RESULTS / "rows") == text, "run: python tools/result_pages.py"


def test_there_are_such_pages() -> None:
    assert {"methods.md", "table1.md"} <= set(PAGES)


def test_a_stale_table_is_replaced_and_what_is_around_it_stays(tool: ModuleType) -> None:
    stale = "# Mine\n\n<!-- study methods -->\nSTALE\n<!-- end -->\n\nAfter.\n"
    fresh = tool.refreshed(stale, rows=RESULTS / "rows")
    assert fresh.startswith("# Mine\n\n<!-- study methods -->\n\n| arm |")
    assert fresh.endswith("<!-- end -->\n\nAfter.\n")
    assert "STALE" not in fresh
