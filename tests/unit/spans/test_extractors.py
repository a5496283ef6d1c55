from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from textblob.en import parser

from limbeck.errors import UnknownName
from limbeck.spans import EXTRACTORS, Extractor, Phrases


def found(text: str, **settings: object) -> list[str]:
    return [text[start:end] for start, end in Phrases(**settings)(text)]


def test_noun_verb_and_prepositional_phrases() -> None:
    text = "Anna has seen the very old house near the quiet river."
    assert found(text) == ["Anna", "has seen", "the very old house", "near the quiet river"]


def test_a_preposition_stands_alone_if_it_is_not_attached() -> None:
    text = "The cat sat on the mat."
    assert found(text) == ["The cat", "sat", "on the mat"]
    assert found(text, attach_prepositions=False) == ["The cat", "sat", "on", "the mat"]


def test_prepositional_phrases_that_follow_one_another_are_apart() -> None:
    assert found("in the house of the king") == ["in the house", "of the king"]


def test_adjectives_and_adverbs_alone_are_no_phrases() -> None:
    assert found("The soup is very hot.") == ["The soup", "is"]


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_contractions_are_words_of_their_verb_phrase(apostrophe: str) -> None:
    text = f"He didn{apostrophe}t see it. They{apostrophe}ve gone."
    assert found(text) == ["He", f"didn{apostrophe}t see", "it", "They", f"{apostrophe}ve gone"]


def test_a_phrase_ends_with_its_line() -> None:
    assert found("Red apples\nGreen pears\r\nOld plums") == ["Red apples", "Green pears", "Old plums"]
    assert found("Red apples Green pears") != ["Red apples", "Green pears"]


def test_list_marks_are_in_no_phrase() -> None:
    text = "Things:\n\n- fresh apples\n* red cherries\n• green tea\n1. the cold milk\n| a table | a chair |"
    assert found(text) == [
        "Things", "fresh apples", "red cherries", "green tea", "the cold milk", "a table", "a chair",
    ]  # fmt: skip


def test_words_of_other_scripts_are_located() -> None:
    text = "😀 The café near Zürich sells 北京烤鸭 — the best duck!"
    assert found(text) == ["The café", "near Zürich", "sells", "北京烤鸭", "the best duck"]


def test_code_gives_intervals_of_the_code() -> None:
    text = "def area(width):\n    return width * 2  # the old rule\n"
    assert "the old rule" in found(text)


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\n", "...", "?!", "-", "😀", "\u200b\n"])
def test_a_text_without_words_has_no_spans(text: str) -> None:
    assert found(text) == []


def test_what_the_parser_writes_otherwise_is_found_as_it_was_written() -> None:
    assert found("the mark &slash; the sign") == ["the mark", "slash", "the sign"]
    assert found("the new and/or clause") == ["the new and/or clause"]
    assert found("the old house : ) the new garden") == ["the old house", "the new garden"]
    # Here the parser leaves out two full stops, and a word of the text that it takes for its own mark.
    text = "the old house..... the new rules END-OF-SENTENCE the garden"
    assert found(text) == ["the old house", "the new rules", "the garden"]


def test_a_word_that_is_not_in_the_text_ends_the_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "find_tokens", lambda text: ["the old big house ."])
    assert found("the old house.") == ["the old", "house"]


def test_phrases_of_many_words_are_split_evenly() -> None:
    text = " ".join(["dog"] * 25)
    assert [len(piece.split()) for piece in found(text)] == [8, 8, 9]
    assert [len(piece.split()) for piece in found(text, max_words=25)] == [25]
    assert [len(piece.split()) for piece in found(text, max_words=24)] == [12, 13]
    assert [len(piece.split()) for piece in found(text, max_words=1)] == [1] * 25


words = st.sampled_from(
    ["the", "old", "dog", "dogs", "runs", "in", "of", "quickly", "don't", "it's", "can’t", "U.S.", "Mr.", "and", "12",
     "$5", "é", "漢字", "😀", "...", ".....", ".", "?!", ":)", ": )", "( ! )", '"', "“", "”", "'", "*", "-", "#", "|",
     "&slash;", "a/b", "END-OF-SENTENCE", "\n", "\n\n", "\r\n", "\t", "\u2028", "\xa0", "\x1c", "_x_", "f(x)"]
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=60), st.lists(words, max_size=20).map(" ".join), st.lists(words, max_size=20).map("".join)
)


@given(texts, st.booleans(), st.integers(1, 5))
def test_intervals_are_disjoint_in_order_and_of_few_words(text: str, attach: bool, most: int) -> None:
    before = 0
    for start, end in Phrases(attach_prepositions=attach, max_words=most)(text):
        assert before <= start < end <= len(text)
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        assert "\n" not in text[start:end]
        before = end


@given(texts)
def test_no_word_of_a_phrase_is_lost_by_splitting(text: str) -> None:
    def covered(most: int) -> set[int]:
        return {
            place
            for start, end in Phrases(max_words=most)(text)
            for place in range(start, end)
            if not text[place].isspace()
        }

    assert covered(1) == covered(3) == covered(1000)


@given(texts)
def test_the_same_text_has_the_same_spans(text: str) -> None:
    assert Phrases()(text) == Phrases()(text)


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        Phrases(max_words=0)
    with pytest.raises(ValidationError):
        Phrases(longest=3)


def test_the_registry_holds_it() -> None:
    assert EXTRACTORS["phrases"] is Phrases
    assert isinstance(EXTRACTORS["phrases"](max_words=3), Extractor)
    with pytest.raises(UnknownName, match="extractor of spans"):
        EXTRACTORS["phrase"]


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, limbeck.spans; limbeck.spans.EXTRACTORS['phrases'](); limbeck.spans.SpanFinder;"
        "print(*sorted({'torch', 'transformers', 'datasets', 'nltk', 'textblob'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
