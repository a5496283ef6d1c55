"""Tables of studies inside pages of docs/, made again from the committed rows.

    python tools/result_pages.py            # between <!-- study NAME --> and <!-- end -->

No model, no data and no torch are needed. A test holds the pages to what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

from limbeck.studies.builtin import INJECTED_ERRORS
from limbeck.studies.printing import printed

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"(<!-- study ([\w.+-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(text: str, *, rows: Path) -> str:
    """The page with every study's table as the rows give it now; deeper headings, since the page has its own."""

    def table(found: re.Match[str]) -> str:
        made = printed(rows, found[2], format="markdown").strip()
        # A study's first heading is its title; those of injected errors name their tables.
        made = made if found[2] == INJECTED_ERRORS else re.sub(r"^## .*\n\n?", "", made, count=1)
        made = re.sub(r"^## ", "### ", made, flags=re.MULTILINE)
        return f"{found[1]}\n{made}\n\n{found[3]}"

    return _BLOCK.sub(table, text)


def main() -> None:
    """Every page, in place."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _BLOCK.search(text):
            page.write_text(refreshed(text, rows=DOCS / "results/rows"), encoding="utf-8")


if __name__ == "__main__":
    main()
