"""One table, five ways to write it: Markdown, plain text for a terminal, HTML, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from html import escape
from typing import Literal

from limbeck.reporting.layout import lay_out
from limbeck.reporting.linking import Links, linked
from limbeck.reporting.reduce import Interval

Standing = Literal["best", "second", ""]
_PARTS = ("error", "low", "high")


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number and what is known of its uncertainty: "23.4", "23.4 ±1.2" or "23.4 [22.1, 24.8]".

    `error` is a standard error, `low` and `high` bound an interval (give both or neither; with them `error` is not
    shown). `signed` shows a plus, for differences. NaN reads "nan" and never stands best. On a page a click leads `to`
    the rows behind it: "#" and an id, or a path beside the page.

    >>> Number(value=23.44, error=1.2).text(), Number(value=-0.01, digits=1, signed=True).text()
    ('23.4 ±1.2', '0.0')
    """

    value: int | float
    digits: int = 1
    error: int | float | None = None
    low: int | float | None = None
    high: int | float | None = None
    signed: bool = False
    to: str = ""

    @classmethod
    def of(
        cls, interval: Interval, *, scale: int | float = 1, digits: int = 1, signed: bool = False, to: str = ""
    ) -> Number:
        """An interval's mean and bounds, each times `scale` (100 for scores in [0, 1] shown as percentages)."""
        low, high = interval.low * scale, interval.high * scale
        return cls(value=interval.mean * scale, digits=digits, low=low, high=high, signed=signed, to=to)

    @property
    def centre(self) -> str:
        """The number alone."""
        return self._shown(self.value)

    @property
    def spread(self) -> str:
        """The uncertainty alone; empty without one."""
        if self.low is not None and self.high is not None:
            return f"[{self._shown(self.low)}, {self._shown(self.high)}]"
        return f"±{self.error:,.{self.digits}f}" if self.error is not None else ""

    def text(self) -> str:
        """Number and uncertainty."""
        return f"{self.centre} {self.spread}".rstrip()

    def _shown(self, value: int | float) -> str:
        if not math.isfinite(value):
            return {math.inf: "∞", -math.inf: "-∞"}.get(value, "nan")
        # Adding zero turns the -0.0 that rounding leaves into 0.0.
        rounded = round(value, self.digits) + 0.0
        return f"{rounded:{'+' if self.signed and rounded else ''},.{self.digits}f}"


Cell = str | Number | Links | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading. `better` asks for the best number in bold and the second underlined, and says which way is better."""

    title: str
    better: Literal["higher", "lower"] | None = None

    @property
    def heading(self) -> str:
        """The title with an arrow towards better."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.title + arrow


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells from left to right; the first names the row. A row that is not `ranked` (a teacher, a published number)
    never stands best."""

    cells: tuple[Cell, ...]
    ranked: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns, rows and notes below. Missing cells (None) read "–".

    Numbers are ranked as they are shown: two that look alike stand alike. Best needs two different ranked numbers,
    second three.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row.cells) == len(self.columns), f"{len(row.cells)} cells under {len(self.columns)} headings"

    def markdown(self) -> str:
        """A GitHub table; notes as lines below it."""
        marks = {"best": ("**", "**"), "second": ("<u>", "</u>"), "": ("", "")}
        lines = [[_escape_markdown(column.heading) for column in self.columns]]
        lines.append(["---:" if numeric else "---" for numeric in self._numeric()])
        for row, standings in zip(self.rows, self._standings(), strict=True):
            cells = []
            for cell, standing in zip(row.cells, standings, strict=True):
                before, after = marks[standing]
                text = f"{cell.centre}{after} {cell.spread}" if isinstance(cell, Number) else _plain(cell) + after
                cells.append(before + (text.rstrip() if isinstance(cell, Number) else _escape_markdown(text)))
            lines.append(cells)
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n".join([table, *(f"\n{_escape_markdown(note)}" for note in self.notes)]) + "\n"

    def text(self, *, width: int = 80) -> str:
        """Plain text of at most `width` columns: cells wrap at words, and what still does not fit goes into a second
        block of columns under the same row names. The best number carries `*`, the second `+`."""
        marks = {"best": " *", "second": " +", "": "  "}
        rows = []
        for row, standings in zip(self.rows, self._standings(), strict=True):
            columns = zip(self.columns, row.cells, standings, strict=True)
            rows.append(
                [_plain(cell) + (marks[standing] if column.better else "") for column, cell, standing in columns]
            )
        headings = [column.heading + ("  " if column.better else "") for column in self.columns]
        legend = ["* best, + second"] if any(map(any, self._standings())) else []
        return lay_out(headings, rows, right=self._numeric(), notes=[*self.notes, *legend], width=width)

    def html(self) -> str:
        """A `<table>` with row and column headers, everything escaped. The page's style sheet knows its classes."""
        titles = {"higher": "higher is better", "lower": "lower is better"}
        numeric = self._numeric()
        head = "".join(
            f'<th scope="col"{_class("number" if is_number else "")}>{escape(column.title)}'
            + (f'&nbsp;<abbr title="{titles[column.better]}">{column.heading[-1]}</abbr>' if column.better else "")
            + "</th>"
            for column, is_number in zip(self.columns, numeric, strict=True)
        )
        body = "".join(
            f"<tr{_class('' if row.ranked else 'reference')}>"
            + "".join(
                _html_cell(cell, standing=standing, numeric=is_number, first=position == 0)
                for position, (cell, standing, is_number) in enumerate(zip(row.cells, standings, numeric, strict=True))
            )
            + "</tr>\n"
            for row, standings in zip(self.rows, self._standings(), strict=True)
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        notes = f'<div class="notes">{notes}</div>' if notes else ""
        return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>{notes}"

    def latex(self) -> str:
        """A `tabular` of the booktabs package: best in bold, second underlined, uncertainty small beside it."""
        marks = {"best": (r"\textbf{", "}"), "second": (r"\underline{", "}"), "": ("", "")}
        lines = [" & ".join(_escape_latex(column.heading) for column in self.columns) + r" \\", r"\midrule"]
        for row, standings in zip(self.rows, self._standings(), strict=True):
            cells = []
            for cell, standing in zip(row.cells, standings, strict=True):
                before, after = marks[standing]
                if isinstance(cell, Number):
                    spread = rf" {{\scriptsize {_escape_latex(cell.spread)}}}" if cell.spread else ""
                    cells.append(f"{before}{_escape_latex(cell.centre)}{after}{spread}")
                else:
                    cells.append(_escape_latex(_plain(cell)))
            lines.append(" & ".join(cells) + r" \\")
        letters = "".join("r" if numeric else "l" for numeric in self._numeric())
        notes = [rf"% {note}" for note in self.notes]
        body = [rf"\begin{{tabular}}{{{letters}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", *notes]
        return "\n".join(body) + "\n"

    def csv(self) -> str:
        """Comma-separated values with every digit: a number's uncertainty stands in columns of its own beside it."""
        numeric = self._numeric()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        titles: list[str] = []
        for column, is_number in zip(self.columns, numeric, strict=True):
            titles += [column.title, *(f"{column.title} {part}" for part in _PARTS if is_number)]
        writer.writerow(titles)
        for row in self.rows:
            fields: list[object] = []
            for cell, is_number in zip(row.cells, numeric, strict=True):
                if isinstance(cell, Number):
                    fields += [cell.value, *(getattr(cell, part) for part in _PARTS)]
                else:
                    fields += ["" if cell is None else _plain(cell), *([None] * len(_PARTS) if is_number else [])]
            writer.writerow(fields)
        return out.getvalue()

    def values(self) -> list[dict[str, object]]:
        """One dictionary a row by column title, for JSON: numbers with every digit, and what is known beside them.

        >>> Table(columns=(Column(title="a"),), rows=(Row(cells=(Number(value=0.25, low=0, high=1),)),)).values()
        [{'a': {'value': 0.25, 'low': 0, 'high': 1}}]
        """
        return [
            {column.title: _json_cell(cell) for column, cell in zip(self.columns, row.cells, strict=True)}
            for row in self.rows
        ]

    def _numeric(self) -> list[bool]:
        columns = [[row.cells[position] for row in self.rows] for position in range(len(self.columns))]
        return [any(isinstance(cell, Number) for cell in cells) for cells in columns]

    def _standings(self) -> list[list[Standing]]:
        by_column = [self._column_standings(position) for position in range(len(self.columns))]
        return [[standings[place] for standings in by_column] for place in range(len(self.rows))]

    def _column_standings(self, position: int) -> list[Standing]:
        better = self.columns[position].better
        values: list[float | None] = []
        for row in self.rows:
            cell = row.cells[position]
            counts = better and row.ranked and isinstance(cell, Number) and not math.isnan(cell.value)
            values.append(round(cell.value, cell.digits) + 0.0 if counts and isinstance(cell, Number) else None)
        order = sorted({value for value in values if value is not None}, reverse=better == "higher")
        best = order[0] if len(order) > 1 else None
        second = order[1] if len(order) > 2 else None
        return [
            "" if value is None else "best" if value == best else "second" if value == second else ""
            for value in values
        ]


def _json_cell(cell: Cell) -> object:
    if not isinstance(cell, Number):
        return cell.text() if isinstance(cell, Links) else cell
    beside = {part: value for part in _PARTS if (value := getattr(cell, part)) is not None}
    return {"value": cell.value, **beside}


def _plain(cell: Cell) -> str:
    if isinstance(cell, Number | Links):
        return cell.text()
    return "–" if cell is None else " ".join(cell.split())


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "‖": r"$\Vert$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "−": "$-$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _html_cell(cell: Cell, *, standing: Standing, numeric: bool, first: bool) -> str:
    tag, scope = ("th", ' scope="row"') if first else ("td", "")
    value = ""
    if isinstance(cell, Number):
        value = _exactly(cell)
        centre = {"best": f"<strong>{cell.centre}</strong>", "second": f"<u>{cell.centre}</u>", "": cell.centre}[
            standing
        ]
        content = linked(centre, cell.to) + (f" <small>{cell.spread}</small>" if cell.spread else "")
    else:
        content = cell.html() if isinstance(cell, Links) else escape(_plain(cell))
    return f"<{tag}{scope}{_class('number' if numeric and not first else '')}{value}>{content}</{tag}>"


def _exactly(number: Number) -> str:
    """The value to sort by, where the digits shown are not all of it."""
    if not math.isfinite(number.value) or float(number.centre.replace(",", "")) == number.value:
        return ""
    return f' data-value="{number.value:.12g}"'
