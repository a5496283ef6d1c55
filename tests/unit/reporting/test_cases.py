from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.reporting import Answer, Case, cases_html, word_difference
from limbeck.reporting.cases import visible

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def test_every_text_of_a_case_is_escaped() -> None:
    case = Case(
        title=EVIL,
        category=EVIL,
        instruction=EVIL,
        input=EVIL,
        references=(EVIL,),
        answers=(Answer(arm=EVIL, text=EVIL, scores=((EVIL, EVIL),)), Answer(arm="b", text=EVIL + " more")),
        compare=((EVIL, "b"),),
    )
    html = cases_html((case,))
    assert "<script" not in html
    assert "<img" not in html
    assert "49" not in html
    # Twelve places, and the names of the arms to choose from.
    assert html.count("&lt;script&gt;") == 13


def test_only_the_first_cases_are_open() -> None:
    case = Case(title="t", instruction="i", answers=(Answer(arm="a", text="x"),))
    assert cases_html((case, case, case), open_first=2).count('<details class="case" open id=') == 2


def test_of_a_long_list_none_is_open_and_words_are_compared_in_the_browser() -> None:
    answers = (Answer(arm="a", text="x"), Answer(arm="b", text="y"))
    html = cases_html((Case(title="t", instruction="i", answers=answers, compare=(("a", "b"),)),) * 201)
    assert '<details class="case" open' not in html
    assert "<del>" not in html
    assert 'data-compare="[&#34;a&#34;, &#34;b&#34;]"' in html


def test_an_empty_answer_is_said_to_be_empty() -> None:
    assert "(empty answer)" in cases_html((Case(title="t", instruction="i", answers=(Answer(arm="a", text=" \n"),)),))


def test_several_references_are_numbered() -> None:
    html = cases_html((Case(title="t", instruction="i", answers=(), references=("one", "two")),))
    assert "Reference 1" in html
    assert "Reference 2" in html


def test_control_characters_and_direction_marks_become_visible() -> None:
    assert visible("a\x1b[31mb\u202ec\r\nd\te\x7f") == "a␛[31mb\ufffdc\nd\te\ufffd"


texts = st.lists(st.sampled_from(["a", "b", "cc", "<b>"]), max_size=8).map(" ".join)


@settings(deadline=None)
@given(before=texts, after=texts)
def test_a_difference_can_be_read_back(before: str, after: str) -> None:
    pieces = word_difference(before, after)
    old = "".join(piece.text for piece in pieces if piece.kind != "added")
    new = "".join(piece.text for piece in pieces if piece.kind != "removed")
    assert old.split() == before.split()
    assert new.split() == after.split()
    assert all(piece.kind == "same" for piece in word_difference(after, after))


def test_very_long_texts_are_not_matched() -> None:
    assert [piece.kind for piece in word_difference("a " * 2000, "b")] == ["removed", "added"]


def test_comparing_an_arm_that_did_not_answer() -> None:
    case = Case(title="t", instruction="i", answers=(Answer(arm="sft", text=""),), compare=(("sft", "gkd"),))
    with pytest.raises(DataError, match="compares 'gkd', which did not answer"):
        cases_html((case,))
