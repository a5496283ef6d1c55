"""A report as one HTML file that needs nothing else: no network, no script; for a phone, the dark and paper too."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from limbeck.reporting.cases import Case, cases_html
from limbeck.reporting.clipping import Distribution, clipping_html
from limbeck.reporting.linking import slug
from limbeck.reporting.plots import Chart, chart_html
from limbeck.reporting.questions import KeyAnswer
from limbeck.reporting.tables import Table
from limbeck.reporting.templating import render
from limbeck.reporting.tokens import Response, tokens_html


@dataclass(frozen=True, kw_only=True)
class TextSection:
    """Paragraphs, then lines shown as typed: how to repeat a run, what a number means.

    `ident`, of every kind of section: the id of its place on the page, by which answers and cells lead to it.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    code: str = ""
    ident: str = ""


@dataclass(frozen=True, kw_only=True)
class TableSection:
    """A sentence and a table; a long one may be `folded` away until it is asked for."""

    title: str
    table: Table
    intro: str = ""
    folded: bool = False
    ident: str = ""


@dataclass(frozen=True, kw_only=True)
class CurvesSection:
    """A sentence and charts, beside each other where the window is wide; more of them where they are `small`."""

    title: str
    charts: tuple[Chart, ...]
    intro: str = ""
    small: bool = False
    ident: str = ""


@dataclass(frozen=True, kw_only=True)
class CasesSection:
    """A sentence and cases; the first `open_first` are unfolded."""

    title: str
    cases: tuple[Case, ...]
    intro: str = ""
    open_first: int = 3
    ident: str = ""


@dataclass(frozen=True, kw_only=True)
class TokensSection:
    """A sentence and responses token by token, one row at a time."""

    title: str
    responses: tuple[Response, ...]
    intro: str = ""
    ident: str = ""


@dataclass(frozen=True, kw_only=True)
class ClippingSection:
    """A sentence and what a clip keeps at single tokens, one at a time."""

    title: str
    distributions: tuple[Distribution, ...]
    intro: str = ""
    ident: str = ""


Section = TextSection | TableSection | CurvesSection | CasesSection | TokensSection | ClippingSection


@dataclass(frozen=True, kw_only=True)
class Page:
    """A title, what to know first (one sentence a line), answers to the eight questions, short facts (name, value),
    sections, a last line."""

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...] = ()
    footer: str = ""
    answers: tuple[KeyAnswer, ...] = ()


def render_page(page: Page) -> str:
    """The page as HTML text.

    Every text of the page is escaped; a content security policy forbids scripts and requests besides.
    """
    sections: list[dict[str, object]] = []
    for place, section in enumerate(page.sections, start=1):
        ident = section.ident or f"s{place}-{slug(section.title)}"
        sections.append({"ident": ident, "title": section.title, "body": Markup(_body(section, ident=ident))})
    values = {"title": page.title, "summary": page.summary, "facts": page.facts, "footer": page.footer}
    titles = {str(section["ident"]): section["title"] for section in sections}
    answers = [
        {
            "about": answer.about,
            "question": answer.question,
            "says": answer.says,
            "command": answer.command,
            "links": [(ident, titles[ident]) for ident in answer.see],
        }
        for answer in page.answers
    ]
    return render("page.html.j2", {**values, "sections": sections, "answers": answers})


def write_page(page: Page, path: Path) -> Path:
    """Writes the page to `path` (folders are made, an older page is replaced at once or not at all); returns `path`."""
    # A model's text may hold half a surrogate pair, which UTF-8 cannot: it becomes a numeric reference.
    content = render_page(page).encode("utf-8", errors="xmlcharrefreplace")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    os.replace(beside, path)
    return path


def _body(section: Section, *, ident: str) -> str:
    match section:
        case TextSection():
            return render("text.html.j2", {"paragraphs": section.paragraphs, "code": section.code, "ident": ident})
        case TableSection():
            body, kind = section.table.html(), "scroll"
            if section.folded:
                body = f"<details><summary>{len(section.table.rows):,} rows</summary>{body}</details>"
        case CurvesSection():
            body = "".join(chart_html(chart, ident=f"{ident}-{n}") for n, chart in enumerate(section.charts))
            kind = "charts small" if section.small else "charts"
        case CasesSection():
            body, kind = cases_html(section.cases, open_first=section.open_first), "cases"
        case TokensSection():
            body, kind = tokens_html(section.responses, ident=ident), "by-token"
        case ClippingSection():
            body, kind = clipping_html(section.distributions, ident=ident), "cases"
    return render("block.html.j2", {"intro": section.intro, "body": Markup(body), "kind": kind, "ident": ident})
