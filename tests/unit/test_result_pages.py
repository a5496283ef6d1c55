"""Tables of studies in docs/ are those of the committed rows."""

from __future__ import annotations

from types import ModuleType

import pytest

from docs_kit import ROOT, program

DOCS = ROOT / "docs"
ROWS = DOCS / "results" / "rows"
PAGES = sorted(
    str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "<!-- study " in page.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return program("tools/result_pages.py")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_tables_that_its_rows_give(name: str, tool: ModuleType) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert tool.refreshed(text, rows=ROWS) == text, "run: python tools/result_pages.py"


def test_there_are_such_pages() -> None:
    assert {"results/methods.md", "results/table1.md", "limits.md"} <= set(PAGES)


def test_a_stale_table_is_replaced_and_what_is_around_it_stays(tool: ModuleType) -> None:
    stale = "# Mine\n\n<!-- study methods -->\nSTALE\n<!-- end -->\n\nAfter.\n"
    fresh = tool.refreshed(stale, rows=ROWS)
    assert fresh.startswith("# Mine\n\n<!-- study methods -->\n\n| arm |")
    assert fresh.endswith("<!-- end -->\n\nAfter.\n")
    assert "STALE" not in fresh
