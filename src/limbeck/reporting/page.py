"""A report as one HTML file that needs nothing else, no network and no script; for a phone, the dark and paper too."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from limbeck.errors import ConfigError
from limbeck.files import write_whole
from limbeck.reporting.anchors import RowAnchors
from limbeck.reporting.cases import Case, cases_html
from limbeck.reporting.clipping import Distribution, clipping_html
from limbeck.reporting.linking import slug
from limbeck.reporting.plots import Chart, chart_html
from limbeck.reporting.questions import KeyAnswer
from limbeck.reporting.tables import Table
from limbeck.reporting.templating import packaged, render
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


# What sorts, filters, compares and listens to keys.
_SCRIPTS = ("page.js", "rows.js")
# Longer tables scroll in a box that is no higher than the window.
_MOST_ROWS_AT_ONCE = 200

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

    Every text of the page is escaped. A content security policy forbids requests, and every script but the packaged
    one, which it knows by its hash: without scripts the page tells the same, and lacks sorting, filters and keys.
    """
    idents = [each.ident or f"s{place}-{slug(each.title)}" for place, each in enumerate(page.sections, start=1)]
    anchors, bodies = RowAnchors(), {}
    # A link to a row leads to its answers before it leads to its tokens.
    for place in sorted(range(len(idents)), key=lambda place: not isinstance(page.sections[place], CasesSection)):
        bodies[place] = Markup(_body(page.sections[place], ident=idents[place], anchors=anchors))
    sections = [
        {"ident": ident, "title": section.title, "body": bodies[place]}
        for place, (ident, section) in enumerate(zip(idents, page.sections, strict=True))
    ]
    script = _script()
    values = {"title": page.title, "summary": page.summary, "facts": page.facts, "footer": page.footer}
    values |= {"script": Markup(script), "script_hash": _source_hash(script)}
    titles = {ident: section.title for ident, section in zip(idents, page.sections, strict=True)}
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
    """Writes the page to `path` (folders are made, an older page is replaced at once or not at all); returns `path`.

    Raises `ConfigError` where a file lies there that is no page: a slip of the name should not cost a recipe or rows.
    """
    if path.is_file() and not _is_page(path):
        raise ConfigError(f"{path} exists and is no page; name another file, or remove it")
    # A model's text may hold half a surrogate pair, which UTF-8 cannot: it becomes a numeric reference.
    content = render_page(page).encode("utf-8", errors="xmlcharrefreplace")
    write_whole(path, content)
    return path


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(64).lstrip().lower()
    return not begin or begin.startswith((b"<!doctype html", b"<html"))


def _body(section: Section, *, ident: str, anchors: RowAnchors) -> str:
    match section:
        case TextSection():
            return render("text.html.j2", {"paragraphs": section.paragraphs, "code": section.code, "ident": ident})
        case TableSection():
            is_long = len(section.table.rows) > _MOST_ROWS_AT_ONCE
            body, kind = section.table.html(), "scroll long" if is_long else "scroll"
            if section.folded:
                values = {"rows": len(section.table.rows), "kind": kind, "is_long": is_long, "ident": ident}
                body, kind = render("folded.html.j2", {**values, "body": Markup(body)}), "folded"
        case CurvesSection():
            body = "".join(chart_html(chart, ident=f"{ident}-{n}") for n, chart in enumerate(section.charts))
            kind = "charts small" if section.small else "charts"
        case CasesSection():
            body, kind = cases_html(section.cases, open_first=section.open_first, anchors=anchors), "rows"
        case TokensSection():
            body, kind = tokens_html(section.responses, ident=ident, anchors=anchors), "by-token"
        case ClippingSection():
            body, kind = clipping_html(section.distributions, ident=ident), "cases"
    return render("block.html.j2", {"intro": section.intro, "body": Markup(body), "kind": kind, "ident": ident})


@cache
def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(map(packaged, _SCRIPTS)) + "})();\n"


def _source_hash(script: str) -> str:
    """What a content security policy calls this script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
