"""One response token by token: colours, the token in error, what was kept, what was redrawn."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.reporting import Page, Response, Token, TokensSection, look_sections, render_page
from limbeck.reporting.tokens import named, shown, tokens_html


class Pieces(HTMLParser):
    """The pieces of each paragraph with their classes, and the chosen radio buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.paragraphs: list[list[tuple[str, set[str]]]] = []
        self.labels: list[str] = []
        self._classes: set[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = set(given.get("class", "").split())
        if tag == "p":
            self.paragraphs.append([])
        if tag == "input" and "aria-label" in given:
            self.labels.append(given["aria-label"])
        elif self.paragraphs and classes & {"piece", "flag"}:
            self._classes = classes

    def handle_endtag(self, tag: str) -> None:
        self._classes = None

    def handle_data(self, data: str) -> None:
        if self._classes is not None and self.paragraphs:
            self.paragraphs[-1].append((data, self._classes))


def _token(text: str = "a", *, kl: float = 1.0, teacher: str = "b") -> Token:
    return Token(text=text, teacher=teacher, kl_student_teacher=kl, kl_teacher_student=kl, rank=0)


def _response(*tokens: Token, step: int = 1, id: str = "row", corrected: tuple[int, ...] = ()) -> Response:
    return Response(
        step=step, id=id, prompt="p", tokens=tokens, corrected=corrected, revised=("r",) * 9 if corrected else ()
    )


def _with(pieces: list[tuple[str, set[str]]], name: str) -> list[str]:
    return [text for text, classes in pieces if name in classes and "flag" not in classes]


def test_the_error_is_marked_the_teachers_token_put_and_what_is_before_it_kept(
    revised_rows: list[dict[str, Any]],
) -> None:
    html = tokens_html([Response.of(revised_rows[0])], ident="t")
    drawn, teacher, redrawn = [each for each in Pieces(html).paragraphs if each]
    assert _with(drawn, "error") == [" is"]
    assert ("error", {"flag", "error"}) in drawn
    assert _with(teacher, "put") == [" has"]
    assert _with(redrawn, "put") == [" has"]
    assert _with(redrawn, "dim") == ["Men", "'s", " lac", "rosse"]
    kept_and_put = {*_with(redrawn, "dim"), *_with(redrawn, "put")}
    assert [text for text, classes in redrawn if "flag" not in classes and text not in kept_and_put] == [
        " a", " limited", " number", " of", " players", ".", "∅",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kl", "level"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.2, 2), (0.99, 3), (1.0, 4), (3.9, 5), (4.0, 6), (1e9, 6)]
)
def test_a_colour_is_a_range_of_nats(kl: float, level: int) -> None:
    (piece,) = Pieces(tokens_html([_response(_token(kl=kl))], ident="t")).paragraphs[1]
    assert f"heat-{level}" in piece[1]


def test_a_divergence_that_is_no_number_has_no_colour_and_says_so() -> None:
    found = Pieces(tokens_html([_response(_token(kl=float("nan")))], ident="t"))
    assert found.paragraphs[1][0][1] == {"piece"}
    assert "KL nan nats" in found.labels[0]


def test_every_token_can_be_reached_by_keys_and_tells_its_numbers(revised_rows: list[dict[str, Any]]) -> None:
    html = tokens_html([Response.of(revised_rows[0])], ident="t")
    labels = Pieces(html).labels
    assert len(labels) == 12
    assert "5. “␣is”" in labels[4]
    assert "KL 2.38 nats" in labels[4]
    assert "teacher: “␣has”" in labels[4]
    assert "rank 5 for" in labels[4]
    assert "60.0 %" in labels[4]
    assert "in error" in labels[4]
    assert not any("in error" in label for place, label in enumerate(labels) if place != 4)
    # One name for all tokens of a response: one stop for the tab key, arrow keys from there.
    assert len(set(re.findall(r'type="radio" name="([^"]+)" aria-label', html))) == 1


def test_the_numbers_are_a_table_too_with_bounds_where_a_clip_measured_them(
    revised_rows: list[dict[str, Any]], plain_rows: list[dict[str, Any]]
) -> None:
    clipped = tokens_html([Response.of(revised_rows[0])], ident="t")
    assert "<td>␣has</td>" in clipped
    assert '<td class="number">2.380</td>' in clipped
    assert "kept mass" in clipped
    plain = tokens_html([Response.of(plain_rows[0])], ident="t")
    assert '<td class="number">2.380</td>' in plain
    assert "kept mass" not in plain


def test_the_last_step_is_chosen_and_the_first_row_open(revised_rows: list[dict[str, Any]]) -> None:
    html = tokens_html([Response.of(row) for row in revised_rows], ident="t")
    assert re.findall(r'class="step-(\d)"( checked)?> (\d)', html) == [("0", "", "3"), ("1", " checked", "6")]
    assert html.count('<details class="case" name="t-row" open id=') == 1
    assert html.count('<details class="case" name="t-row" id=') == 1
    assert html.count('class="look at-0"') == html.count('class="look at-1"') == 2
    assert html.count("No token was found in error") == 1


def test_one_step_needs_no_choice_and_no_correction_no_word_of_it(plain_rows: list[dict[str, Any]]) -> None:
    html = tokens_html([Response.of(plain_rows[0])], ident="t")
    assert 'class="looks only"' in html
    assert "fieldset" not in html
    assert "in error" not in html
    assert "re-generated" not in html


@given(st.integers(1, 40), st.integers(1, 400))
def test_a_long_run_keeps_its_first_and_last_step_and_the_page_small(num_steps: int, num_tokens: int) -> None:
    responses = [_response(*[_token()] * num_tokens, step=10 * step) for step in range(1, num_steps + 1)]
    html = tokens_html(responses, ident="t")
    steps = [int(step) for step in re.findall(r'class="step-\d"(?: checked)?> (\d+)', html)] or [10 * num_steps]
    assert steps == sorted(set(steps))
    assert steps[-1] == 10 * num_steps
    assert len(steps) == 1 or steps[0] == 10
    assert len(steps) <= 6
    assert html.count("data-told") <= max(3000, num_tokens)
    assert len(steps) == min(num_steps, 6) or num_tokens * (len(steps) + 1) > 3000


def test_later_rounds_redraw_what_earlier_ones_put() -> None:
    found = Pieces(tokens_html([_response(*[_token()] * 9, corrected=(6, 8, 3, 5))], ident="t"))
    drawn, _, redrawn = [each for each in found.paragraphs if each]
    places = [[n for n, (_, classes) in enumerate(p for p in part if "flag" not in p[1]) if name in classes]
              for part, name in ((drawn, "error"), (redrawn, "put"), (redrawn, "dim"))]  # fmt: skip
    assert places == [[3, 6], [3, 5], [0, 1, 2]]


def test_an_answer_without_tokens_is_said_to_be_empty() -> None:
    assert "(empty answer)" in tokens_html([_response()], ident="t")
    assert tokens_html([], ident="t").count("<details") == 0


@pytest.mark.parametrize(
    ("text", "flowing", "alone"),
    [
        (" the", " the", "␣the"),
        ("the ", "the ", "the␣"),
        ("   ", "···", "···"),
        ("\n\n", "↵\n↵\n", "↵↵"),
        ("\t", "⇥", "⇥"),
        ("", "∅", "∅"),
        ("\u00a0", "U+00A0", "U+00A0"),
        ("\u200b", "U+200B", "U+200B"),
        ("\x07", "␇", "␇"),
        ("👩\u200d🚀", "👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_white_space_can_be_seen(text: str, flowing: str, alone: str) -> None:
    assert shown(text) == flowing
    assert named(text) == alone


@given(st.text())
def test_every_token_shows_something(text: str) -> None:
    assert shown(text).strip()
    assert named(text).strip()
    assert "\n" not in named(text)


def test_hostile_tokens_add_no_element(revised_rows: list[dict[str, Any]]) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'

    def page(text: str | None) -> str:
        rows = [dict(row) for row in revised_rows]
        for row in rows if text else ():
            row |= {"id": text + row["id"], "prompt": text}
            row["tokens"] = [token | {"token": text, "teacher": text} for token in row["tokens"]]
            row["revised"] = [text for _ in row.get("revised", ())]
            for token in row["tokens"]:
                if "distribution" in token:
                    token["distribution"] = token["distribution"] | {"classes": [text] * 3}
        return render_page(Page(title="t", summary=(), sections=tuple(look_sections(rows, run=text or "run"))))

    assert re.findall(r"<([a-z0-9]+)", page(evil)) == re.findall(r"<([a-z0-9]+)", page(None))
    assert page(evil).count("<script") == 1


def test_sections_of_two_runs_have_ids_and_names_of_their_own(revised_rows: list[dict[str, Any]]) -> None:
    sections = [section for run in ("a", "b") for section in look_sections(revised_rows, run=run)]
    html = render_page(Page(title="t", summary=(), sections=tuple(sections)))
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    # Buttons of one name exclude each other: 2 runs, each with 4 responses and the choice of the step.
    assert len(set(re.findall(r'type="radio" name="([^"]+)"', html))) == 2 * (4 + 1)
    assert len(set(re.findall(r'<details class="case[^"]*" name="([^"]+)"', html))) == 2 * 2
    assert [type(section) is TokensSection for section in sections] == [True, False, True, False]
