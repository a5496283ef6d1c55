"""What a person does with a page: sorts, filters, opens, compares, switches, prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser_kit import HOSTILE, texts, wait_for, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as Tab


@pytest.fixture
def tab(browser: Browser, made: Path) -> Iterator[Tab]:
    with watched(browser) as seen:
        yield seen.read(made)


def section(tab: Tab, title: str) -> Locator:
    return tab.locator("section").filter(has=tab.get_by_role("heading", name=title, exact=True))


def names(tab: Tab, title: str = "Scores") -> list[str]:
    return texts(section(tab, title).locator("tbody tr:visible th"))


WRITTEN = ["sft", "gkd", "kd", "teacher", "untouched"]


def test_a_heading_sorts_by_value_best_first_then_backwards_then_as_written(tab: Tab) -> None:
    heading = section(tab, "Scores").get_by_role("columnheader", name="ROUGE-L")
    assert heading.get_attribute("aria-sort") == "none"
    heading.get_by_role("button").click()
    # 23.44 and 23.4 look alike; what is missing comes last either way.
    assert names(tab) == ["gkd", "kd", "sft", "teacher", "untouched"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").click()
    assert names(tab) == ["teacher", "sft", "kd", "gkd", "untouched"]
    heading.get_by_role("button").click()
    assert names(tab) == WRITTEN
    assert heading.get_attribute("aria-sort") == "none"


def test_enter_sorts_and_another_heading_takes_over(tab: Tab) -> None:
    scores = section(tab, "Scores")
    scores.get_by_role("button", name="ROUGE-L").click()
    scores.get_by_role("button", name="seconds").focus()
    tab.keyboard.press("Enter")
    assert names(tab) == ["teacher", "kd", "gkd", "sft", "untouched"]
    sorts = [each.get_attribute("aria-sort") for each in scores.get_by_role("columnheader").all()]
    assert sorts == ["none", "none", "ascending"]


def test_words_with_numbers_sort_as_people_count(tab: Tab) -> None:
    button = section(tab, "Names").get_by_role("button", name="row")
    button.click()
    assert names(tab, "Names") == [f"row {n}" for n in range(12)]
    button.click()
    assert names(tab, "Names")[:2] == ["row 11", "row 10"]


def test_a_filter_counts_what_it_leaves_and_escape_empties_it(tab: Tab) -> None:
    rows = section(tab, "Names")
    box, count = rows.get_by_role("searchbox"), rows.get_by_role("status")
    assert count.inner_text() == "12 rows"
    assert count.get_attribute("aria-live") == "polite"
    box.fill("ODD row")
    wait_for(tab, lambda: count.inner_text() == "6 of 12 rows")
    assert names(tab, "Names") == [f"row {n}" for n in range(1, 12, 2)]
    box.press("Escape")
    wait_for(tab, lambda: count.inner_text() == "12 rows")
    assert len(names(tab, "Names")) == 12
    # A filter is plain text: this is no pattern.
    box.fill(".*")
    wait_for(tab, lambda: count.inner_text() == "0 of 12 rows")
    # A table that fits a glance has none.
    assert section(tab, "Scores").get_by_role("searchbox").count() == 0


def test_cases_are_filtered_by_what_they_say(tab: Tab) -> None:
    answers = section(tab, "Answers")
    answers.get_by_role("searchbox").fill("say 3 & more")
    wait_for(tab, lambda: answers.get_by_role("status").inner_text() == "1 of 5 rows")
    assert texts(answers.locator(".case-title:visible")) == ["row/3"]


def test_all_rows_open_and_close(tab: Tab) -> None:
    answers = section(tab, "Answers")
    opened = answers.locator("details.case[open]")
    assert opened.count() == 1
    answers.get_by_role("button", name="Open all").click()
    assert opened.count() == 5
    assert answers.locator(".answer:visible").count() == 15
    answers.get_by_role("button", name="Close all").click()
    assert opened.count() == 0


def test_two_runs_are_compared_word_by_word(tab: Tab) -> None:
    answers = section(tab, "Answers")
    answers.get_by_label("Compare").select_option("sft")
    answers.get_by_label("with").select_option("gkd")
    chosen = answers.locator(".difference.chosen")
    wait_for(tab, lambda: chosen.count() == 1)
    assert texts(chosen.locator("del")) == ["red"]
    assert texts(chosen.locator("ins")) == ["down"]
    assert chosen.locator("p").inner_text().split() == ["the", "red", "cat", "sat", "down"]
    assert answers.locator("details.difference:visible").count() == 0
    # Rows that are opened later are compared too, a hostile answer as text, an empty one as nothing.
    answers.get_by_role("button", name="Open all").click()
    tab.locator("#row-row-1").scroll_into_view_if_needed()
    wait_for(tab, lambda: tab.locator("#row-row-1 .chosen").count() == 1)
    assert "".join(texts(tab.locator("#row-row-1 ins"))) == HOSTILE
    answers.get_by_label("with").select_option("Reference")
    wait_for(tab, lambda: texts(tab.locator("#row-row-1 .chosen h4")) == ["Word by word: sft to Reference"])
    answers.get_by_label("with").select_option("sft")
    assert chosen.count() == 0


def test_a_hostile_answer_is_text(tab: Tab) -> None:
    tab.locator("#row-row-1 > summary").click()
    assert HOSTILE in texts(tab.locator("#row-row-1 .answer .said"))
    assert tab.title() == "Made by hand"
    assert tab.locator("img").count() == 0
    assert tab.locator("script").count() == 1


def test_a_script_that_got_in_would_not_run(browser: Browser, made: Path, tmp_path: Path) -> None:
    """The policy on its own: a page whose escaping failed."""
    broken = tmp_path / "page.html"
    html = made.read_text(encoding="utf-8")
    assert "<main" in html
    broken.write_text(html.replace("<main", f"{HOSTILE}<main"), encoding="utf-8")
    with watched(browser) as seen:
        tab = seen.read(broken)
        assert tab.locator("img").count() == 1
        assert tab.title() == "Made by hand"
        assert [complaint for complaint in seen.complaints if "Content Security Policy" not in complaint] == []
        assert seen.complaints
        seen.complaints.clear()
        seen.requests.clear()


def test_a_link_to_a_row_opens_it_even_where_a_filter_hides_it(browser: Browser, made: Path) -> None:
    with watched(browser) as seen:
        tab = seen.read(made)
        section(tab, "Answers").get_by_role("searchbox").fill("row/2")
        wait_for(tab, lambda: tab.locator("#row-row-4").is_hidden())
        tab.evaluate("location.hash = 'row-row-4'")
        row = tab.locator("#row-row-4")
        wait_for(tab, lambda: row.get_attribute("open") is not None)
        assert row.is_visible()
        assert row.get_by_role("link", name="Link to this row").get_attribute("href") == "#row-row-4"
        assert tab.evaluate("document.activeElement.closest('details').id") == "row-row-4"


def test_keys_move_open_filter_and_show_their_help(tab: Tab) -> None:
    focused = "document.activeElement.closest('details.case')?.id"
    tab.keyboard.press("j")
    assert tab.evaluate(focused) == "row-row-0"
    tab.keyboard.press("j")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(focused) == "row-row-2"
    tab.keyboard.press("k")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("k")
    assert tab.evaluate(focused) == "row-row-0"
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    assert tab.locator("#row-row-1").get_attribute("open") is not None
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.keyboard.press("/")
    tab.keyboard.type("jjj")
    assert section(tab, "Answers").get_by_role("searchbox").input_value() == "jjj"
    tab.keyboard.press("Escape")
    tab.locator("h1").click()
    tab.keyboard.press("?")
    assert tab.get_by_role("dialog", name="Keys").is_visible()
    assert "to the next row" in tab.get_by_role("dialog").inner_text()
    tab.get_by_label("no keys of one letter").check()
    tab.keyboard.press("Escape")
    tab.keyboard.press("?")
    assert not tab.get_by_role("dialog").is_visible()


def test_the_tab_key_goes_from_the_first_link_to_the_controls(tab: Tab) -> None:
    reached = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        reached.append(str(tab.evaluate("document.activeElement.textContent")).strip())
    assert reached[:3] == ["Skip to the content", "Keys", "Dark theme"]
    assert "Scores" in reached[3]


def test_the_theme_is_the_systems_until_it_is_switched_and_is_remembered(browser: Browser, made: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with watched(browser, color_scheme="dark") as seen:
        tab = seen.read(made)
        dark = tab.evaluate(paper)
        tab.get_by_role("button", name="Light theme").click()
        light = tab.evaluate(paper)
        assert light != dark
        tab.reload()
        assert tab.evaluate(paper) == light
        tab.emulate_media(color_scheme="light")
        assert tab.evaluate(paper) == light
        tab.get_by_role("button", name="Dark theme").click()
        assert tab.evaluate(paper) == dark


def test_without_scripts_everything_is_there_and_no_dead_control(browser: Browser, made: Path) -> None:
    with watched(browser, java_script_enabled=False) as seen:
        tab = seen.read(made)
        assert tab.locator("button, input, select").count() == 0
        assert names(tab) == WRITTEN
        tab.locator("#row-row-1 > summary").click()
        assert HOSTILE in texts(tab.locator("#row-row-1 .answer .said"))


def test_paper_shows_what_is_folded_in_and_no_control(tab: Tab) -> None:
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.locator("button:not(th button):visible, select:visible, input:visible, .link:visible").count() == 0
    assert tab.locator(".answer:visible").count() == 15
    assert tab.locator("details.difference p:visible").count() == 1
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
