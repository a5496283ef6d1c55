from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from limbeck.reporting import (
    Answer,
    Case,
    CasesSection,
    Chart,
    Column,
    CurvesSection,
    KeyAnswer,
    Number,
    Page,
    Response,
    Row,
    Series,
    Table,
    TableSection,
    TextSection,
    TokensSection,
    render_page,
    write_page,
)
from limbeck.reporting.questions import QUESTIONS, all_answered

EVIL = '"><script>alert(1)</script><img src=https://example.org/x onerror=alert(2)>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


def page(text: str = "words") -> Page:
    table = Table(
        columns=(Column(title=text),), rows=(Row(cells=(Number(value=1.0),)), Row(cells=(text,))), notes=(text,)
    )
    chart = Chart(title=text, series=(Series(name=text, points=((0.0, 1.0), (1.0, 2.0))),), y_label=text)
    case = Case(title=text, instruction=text, references=(text,), answers=(Answer(arm=text, text=text),))
    return Page(
        title=text,
        summary=(text, text),
        facts=((text, text),),
        sections=(
            TableSection(title=text, table=table, intro=text, ident="table"),
            CurvesSection(title=text, charts=(chart, chart), intro=text),
            CasesSection(title=text, cases=(case, case), intro=text),
            TextSection(title=text, paragraphs=(text,), code=text),
        ),
        footer=text,
        answers=all_answered(
            [KeyAnswer(about=about, says=(text, text), see=("table", "gone"), command=text) for about in QUESTIONS],
            shown=["table"],
        ),
    )


class Reader(HTMLParser):
    """Collects tags and ids, and fails on tags that are closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("aria-labelledby", "href"):
                self.named += (value or "").lstrip("#").split()
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def close(self) -> None:
        super().close()
        assert self._open == []


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def test_hostile_text_adds_no_element() -> None:
    assert read(render_page(page(EVIL))).tags == read(render_page(page("words"))).tags
    assert read(render_page(page(EVIL))).tags.count("script") == 1
    assert "img" not in read(render_page(page(EVIL))).tags


def test_no_request_leaves_the_page() -> None:
    html = render_page(page())
    assert not re.search(r"(?:src|href|srcset|action|poster|data)\s*=\s*[\"']?\s*(?:https?:)?//", html)
    assert not re.search(r"@import|url\(", html)
    assert "http://" not in html
    assert "https://" not in html
    assert {"link", "img", "iframe", "object", "form"}.isdisjoint(read(html).tags)
    assert "default-src 'none'" in html


def test_only_the_packaged_script_may_run() -> None:
    html = render_page(page(EVIL))
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert not re.search(r"eval\(|Function\(|fetch\(|XMLHttpRequest|WebSocket|import\(|<!--", script)


def test_a_long_list_and_a_long_table_are_text_until_they_are_needed() -> None:
    cases = tuple(
        Case(title=f"row {n % 250}", instruction=EVIL, answers=(Answer(arm="a", text="</noscript>"),))
        for n in range(251)
    )
    table = Table(columns=(Column(title="row"),), rows=tuple(Row(cells=(EVIL,)) for _ in range(201)))
    sections = (CasesSection(title="Long", cases=cases), TableSection(title="Table", table=table, folded=True))
    html = render_page(Page(title="t", summary=(), sections=sections))
    held = re.findall(r"<noscript>(.*?)</noscript>", html, flags=re.DOTALL)
    assert [part.count('<details class="case"') for part in held] == [50] * 5 + [1, 0]
    assert read("".join(held[:-1])).ids == [f"row-row-{n}" for n in range(250)] + ["row-row-0-2"]
    assert held[-1].count("<tr>") == 202
    assert "script" not in read("".join(held)).tags


def test_a_link_to_a_row_leads_to_its_answers_before_its_tokens() -> None:
    case = Case(title="a", instruction="i", answers=())
    tokens = TokensSection(title="Tokens", responses=(Response(step=1, id="a", prompt="p", tokens=()),))
    html = render_page(Page(title="t", summary=(), sections=(tokens, CasesSection(title="Answers", cases=(case,)))))
    assert html.index('id="row-a-2"') < html.index('id="row-a"')


def test_ids_are_unique_and_every_reference_has_its_id() -> None:
    reader = read(render_page(page()))
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.named) <= set(reader.ids)


def test_made_for_phones_darkness_paper_and_keyboards() -> None:
    html = render_page(page())
    for needed in ("width=device-width", "prefers-color-scheme: dark", "@media print", ":focus-visible", 'lang="en"'):
        assert needed in html
    assert "Skip to the content" in html


def test_written_at_once_into_new_folders(tmp_path: Path) -> None:
    path = write_page(page("first"), tmp_path / "new" / "report.html")
    write_page(page("second ä 漢"), path)
    assert "second ä 漢" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    path = write_page(page("broken \ud800 text"), tmp_path / "report.html")
    assert "broken &#55296; text" in path.read_text(encoding="utf-8")


def test_the_same_page_is_the_same_file() -> None:
    assert render_page(page()) == render_page(page())


@pytest.mark.parametrize("num_sections", [0, 1])
def test_small_pages(num_sections: int) -> None:
    html = render_page(Page(title="t", summary=(), sections=(TextSection(title="s"),) * num_sections))
    assert read(html).tags.count("section") == num_sections
    assert "<nav" not in html


def test_reporting_imports_nothing_heavy() -> None:
    code = (
        "import sys, limbeck.reporting as r; [getattr(r, name) for name in r.__all__]; r.render_page; "
        "print(sorted({'torch', 'transformers', 'datasets', 'nltk'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
