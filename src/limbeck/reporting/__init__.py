"""What people read: reductions of rows to numbers with intervals, tables, curves, cases, one HTML page."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.reporting.cases import Answer, Case, cases_html, word_difference
    from limbeck.reporting.clipping import Distribution
    from limbeck.reporting.linking import Links
    from limbeck.reporting.looks import look_sections
    from limbeck.reporting.page import (
        CasesSection,
        ClippingSection,
        CurvesSection,
        Page,
        TableSection,
        TextSection,
        TokensSection,
        render_page,
        write_page,
    )
    from limbeck.reporting.plots import Chart, Series, chart_html, series_from
    from limbeck.reporting.questions import KeyAnswer
    from limbeck.reporting.reduce import Interval, Summary, by_example, mean_interval, paired_bootstrap, summarise
    from limbeck.reporting.tables import Column, Number, Row, Table
    from limbeck.reporting.tokens import Response, Token

_HOMES = {
    "cases": ["Answer", "Case", "cases_html", "word_difference"],
    "clipping": ["Distribution"],
    "linking": ["Links"],
    "looks": ["look_sections"],
    "page": [
        "CasesSection",
        "ClippingSection",
        "CurvesSection",
        "Page",
        "TableSection",
        "TextSection",
        "TokensSection",
        "render_page",
        "write_page",
    ],
    "plots": ["Chart", "Series", "chart_html", "series_from"],
    "questions": ["KeyAnswer"],
    "reduce": ["Interval", "Summary", "by_example", "mean_interval", "paired_bootstrap", "summarise"],
    "tables": ["Column", "Number", "Row", "Table"],
    "tokens": ["Response", "Token"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "Case",
    "CasesSection",
    "Chart",
    "ClippingSection",
    "Column",
    "CurvesSection",
    "Distribution",
    "Interval",
    "KeyAnswer",
    "Links",
    "Number",
    "Page",
    "Response",
    "Row",
    "Series",
    "Summary",
    "Table",
    "TableSection",
    "TextSection",
    "Token",
    "TokensSection",
    "by_example",
    "cases_html",
    "chart_html",
    "look_sections",
    "mean_interval",
    "paired_bootstrap",
    "render_page",
    "series_from",
    "summarise",
    "word_difference",
    "write_page",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
