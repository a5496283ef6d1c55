from __future__ import annotations

import csv
import io
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.reporting import Column, Interval, Number, Row, Table
from limbeck.reporting.layout import shown_width


def table() -> Table:
    def row(name: str, score: float, kl: float, *, ranked: bool = True) -> Row:
        cells = (name, Number(value=score, low=score - 1, high=score + 1), Number(value=kl, digits=2, error=0.05), None)
        return Row(cells=cells, ranked=ranked)

    return Table(
        columns=(
            Column(title="Model"),
            Column(title="ROUGE-L", better="higher"),
            Column(title="KL(teacher‖student)", better="lower"),
            Column(title="Missing"),
        ),
        rows=(
            row("teacher", 40, 0, ranked=False),
            row("sft", 21.71, 1.39),
            row("kd", 21.74, 1.25),
            row("gkd", 19.0, 0.97),
        ),
        notes=("95 % intervals.",),
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(value=23.44), "23.4"),
        (Number(value=23.44, error=1.23), "23.4 ±1.2"),
        (Number(value=23.44, low=22.1, high=24.79), "23.4 [22.1, 24.8]"),
        (Number(value=0.2, digits=2, signed=True, low=-0.1, high=0.5), "+0.20 [-0.10, +0.50]"),
        (Number(value=-0.04), "0.0"),
        (Number(value=134515008, digits=0), "134,515,008"),
        (Number(value=math.nan), "nan"),
        (Number.of(Interval(mean=0.234, low=-math.inf, high=math.inf, num_examples=1), scale=100), "23.4 [-∞, ∞]"),
    ],
)
def test_numbers_with_their_uncertainty(number: Number, text: str) -> None:
    assert number.text() == text


def test_best_and_second_count_ranked_rows_only_and_what_is_shown() -> None:
    lines = table().markdown().splitlines()
    assert lines[2].startswith("| teacher | 40.0 [39.0, 41.0] | 0.00 ±0.05 | – |")
    assert "**21.7** [20.7, 22.7] | 1.39" in lines[3]
    assert "**21.7** [20.7, 22.7] | <u>1.25</u> ±0.05" in lines[4]
    assert "| 19.0 [18.0, 20.0] | **0.97** ±0.05" in lines[5]


@pytest.mark.parametrize("values", [(1.0,), (1.0, 1.04), (math.nan, 1.0)])
def test_nothing_stands_best_without_something_to_beat(values: tuple[float, ...]) -> None:
    rows = tuple(Row(cells=("arm", Number(value=value))) for value in values)
    columns = (Column(title="arm"), Column(title="score", better="higher"))
    assert "**" not in Table(columns=columns, rows=rows).markdown()


def test_nothing_is_marked_unasked() -> None:
    rows = tuple(Row(cells=(name, Number(value=value))) for name, value in [("a", 1.0), ("b", 2.0), ("c", 3.0)])
    plain = Table(columns=(Column(title="arm"), Column(title="score")), rows=rows)
    assert "**" not in plain.markdown()
    assert "*" not in plain.text()
    assert "<strong>" not in plain.html()


def test_markdown_escapes_what_would_change_the_table() -> None:
    rows = (Row(cells=("a|b\n*c* <img>",)),)
    line = Table(columns=(Column(title="x"),), rows=rows).markdown().splitlines()[2]
    assert line == r"| a\|b \*c\* \<img\> |"


def test_html_escapes_and_names_rows_and_columns() -> None:
    evil = "<script>alert(1)</script>"
    html = Table(columns=(Column(title=evil),), rows=(Row(cells=(evil,)),), notes=(evil,)).html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3
    assert 'scope="col"' in html
    assert 'scope="row"' in html
    assert '<tr class="reference">' in table().html()
    assert "<strong>0.97</strong> <small>±0.05</small>" in table().html()
    assert "<u>1.25</u>" in table().html()


def test_text_marks_and_explains() -> None:
    text = table().text()
    assert re.search(r"gkd +19\.0 \[18\.0, 20\.0\] +0\.97 ±0\.05 \* +–", text)
    assert text.endswith("95 % intervals.\n* best, + second\n")


words = st.text("abcXYZ-漢é", min_size=1, max_size=30)


@settings(deadline=None)
@given(
    names=st.lists(st.lists(words, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=4),
    headings=st.lists(st.lists(words, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=9),
    value=st.floats(-1e6, 1e6),
    width=st.sampled_from([60, 80, 120]),
)
def test_text_fits_and_loses_no_number(names: list[str], headings: list[str], value: float, width: int) -> None:
    number = Number(value=value, digits=2, low=value - 1, high=value + 1)
    columns = (Column(title="name"), *(Column(title=title, better="higher") for title in headings))
    rows = tuple(Row(cells=(name, *[number] * len(headings))) for name in names)
    text = Table(columns=columns, rows=rows).text(width=width)
    assert max(map(shown_width, text.splitlines())) <= width
    assert text.count(number.text()) == len(names) * len(headings)


def test_a_long_word_is_folded_not_cut() -> None:
    name = "a" * 200
    text = Table(columns=(Column(title="name"), Column(title="n")), rows=(Row(cells=(name, "b" * 90)),)).text()
    assert text.count("a") == 200 + 1
    assert text.count("b") == 90
    assert max(map(len, text.splitlines())) <= 80


def test_cells_must_match_the_headings() -> None:
    with pytest.raises(AssertionError, match="2 cells under 1 headings"):
        Table(columns=(Column(title="x"),), rows=(Row(cells=("a", "b")),))


def test_latex() -> None:
    table = Table(
        columns=(Column(title="arm_1 & co"), Column(title="KL(t‖s) %", better="lower")),
        rows=(
            Row(cells=("a#b", Number(value=1.25, digits=2, low=-1.0, high=2.0))),
            Row(cells=("kd", Number(value=0.5, digits=2, error=0.1))),
            Row(cells=("x{y}<z>|", Number(value=2.0, digits=2))),
            Row(cells=("none", None)),
        ),
        notes=("50 % of all",),
    )
    assert table.latex() == (
        "\\begin{tabular}{lr}\n\\toprule\n"
        "arm\\_1 \\& co & KL(t$\\Vert$s) \\% $\\downarrow$ \\\\\n\\midrule\n"
        "a\\#b & \\underline{1.25} {\\scriptsize [-1.00, 2.00]} \\\\\n"
        "kd & \\textbf{0.50} {\\scriptsize $\\pm$0.10} \\\\\n"
        "x\\{y\\}\\textless{}z\\textgreater{}\\textbar{} & 2.00 \\\\\n"
        "none & – \\\\\n"
        "\\bottomrule\n\\end{tabular}\n% 50 % of all\n"
    )


def test_csv_keeps_every_digit_and_quotes() -> None:
    table = Table(
        columns=(Column(title="arm"), Column(title="score")),
        rows=(
            Row(cells=('a, "b"', Number(value=1 / 3, low=0.1, high=0.5))),
            Row(cells=("kd", Number(value=2, error=0.25))),
            Row(cells=("none", None)),
        ),
    )
    lines = list(csv.reader(io.StringIO(table.csv())))
    assert lines == [
        ["arm", "score", "score error", "score low", "score high"],
        ['a, "b"', "0.3333333333333333", "", "0.1", "0.5"],
        ["kd", "2", "0.25", "", ""],
        ["none", "", "", "", ""],
    ]


def test_a_cell_holds_what_its_digits_leave_out() -> None:
    cells = (
        Number(value=23.44),
        Number(value=23.5),
        Number(value=1234.0),
        Number(value=float("nan")),
        Number(value=0.04),
    )
    html = Table(columns=(Column(title="a"),) * 5, rows=(Row(cells=cells),)).html()
    assert re.findall(r'data-value="([^"]*)"', html) == ["23.44", "0.04"]
