from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import LlamaTokenizer

from limbeck.models.pieces import token_pieces
from limbeck.spans import Sentences, SpanFinder
from limbeck.testing import byte_tokenizer

EOS = 258


def found(text: str, **settings: object) -> list[str]:
    return [text[start:end] for start, end in Sentences(**settings)(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["The cat sat.", "It slept!", "Did it dream?", "Nobody knows…", "So it goes"],
        ["Is it so?!", "Yes...", "Well then."],
        ["“Stop!” he said.", "(It was late.)", "'Go on.'", "“Why?”", "Nobody knew."],
        ["It costs 3.50 Euro at example.com today.", "Version 2.0.1 is out."],
        ["Mr. Smith met Dr. J. R. Jones vs. Mrs. Hill.", "They spoke, e.g. Latin, in the U.S. Senate."],
        ["See Fig. 3 and No. 5 on pp. 7 and 8.", "He said no.", "Then he left."],
        ["apples, pears, etc. and the rest.", "It was I.", "It was 1999.", "A new year came."],
        ["Der Preis steigt.", "Ärger droht!", "¿Qué tal?", "¡Bien!", "Élan."],
    ],
)
def test_where_sentences_end(sentences: list[str]) -> None:
    assert found(" ".join(sentences)) == sentences
    assert found("\n\n".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天天气很好。", "你去哪里？", "太好了！", "他说：“好。”"],
        ["これはペンです。", "「本当？」", "はい．"],
        ["यह एक किताब है।", "वह कहाँ गया?", "ठीक है॥"],
        ["كيف حالك؟", "أنا بخير."],
        ["یہ کتاب ہے۔", "وہ کون ہے؟"],
        ["Սա գիրք է։", "ሰላም ነው።", "ဒါစာအုပ်ပါ။", "នេះជាសៀវភៅ។"],
    ],
)
def test_other_scripts_have_their_own_marks(sentences: list[str]) -> None:
    assert found(" ".join(sentences)) == sentences
    marks = set("。？！．।॥؟۔։።။។")
    if all(marks & set(each) and "?" not in each and "." not in each for each in sentences):
        assert found("".join(sentences)) == sentences, "these need no space"


def test_a_line_break_ends_a_sentence_and_a_number_before_an_item_does_not() -> None:
    text = "Three things:\n1. Fresh apples. They are red.\r\n2. pears\n\n- plums\n---\n 😀 \n* * *\n"
    assert found(text) == ["Three things:", "1. Fresh apples.", "They are red.", "2. pears", "- plums"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\n", "...", "?!", "。", "- \n * \n", "😀", "\u2028"])
def test_a_text_without_words_has_no_sentence(text: str) -> None:
    assert found(text) == []


def test_long_sentences_are_split_evenly() -> None:
    text = " ".join(["word"] * 90)
    assert [len(each.split()) for each in found(text)] == [30, 30, 30]
    assert [len(each.split()) for each in found(text, max_words=100)] == [90]
    assert [len(each) for each in found("漢" * 90 + "。")] == [30, 30, 31]
    assert [len(each) for each in found("ก" * 50)] == [25, 25]


pieces_of_text = st.sampled_from(
    ["The", "cat", "Dr.", "e.g.", "U.S.", "I.", "3.14", "5", "5.", ".", "!", "?", "…", "...", "。", "！", "？", "।",
     "؟", '"', "”", "(", ")", "「", "」", "漢字", "कि", "é", "😀", " ", "  ", "\n", "\r\n", "\t", "\u2028", "\xa0",
     "\x1c"]
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=60),
    st.lists(pieces_of_text, max_size=25).map("".join),
    st.lists(pieces_of_text, max_size=25).map(" ".join),
)


@given(texts, st.integers(1, 6))
def test_intervals_are_disjoint_in_order_and_of_few_words(text: str, most: int) -> None:
    before = 0
    for start, end in Sentences(max_words=most)(text):
        assert before <= start < end <= len(text)
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        assert not set("\n\r\v\f\u2028\u2029\x85") & set(text[start:end])
        assert len(text[start:end].split()) <= most
        before = end


@given(texts)
def test_no_letter_is_lost_and_none_by_splitting(text: str) -> None:
    letters = {place for place, character in enumerate(text) if character.isalnum()}
    for most in (1, 3, 1000):
        covered = {place for start, end in Sentences(max_words=most)(text) for place in range(start, end)}
        assert letters <= covered


@given(texts, texts)
def test_lines_are_apart(first: str, second: str) -> None:
    extractor = Sentences()
    moved = tuple((start + len(first) + 1, end + len(first) + 1) for start, end in extractor(second))
    assert extractor(f"{first}\n{second}") == extractor(first) + moved


def test_byte_level_tokens_of_many_byte_characters() -> None:
    parts = ["今天很好。", "Café ☕!", " Ça va?"]
    ids = [*"".join(parts[:2]).encode(), *parts[2].encode(), EOS]
    spans = SpanFinder(Sentences(), token_pieces(byte_tokenizer())).spans(ids)
    assert [bytes(ids[first:end]).decode() for first, end in spans] == ["今天很好。", "Café ☕!", "Ça va?"]


def test_sentencepiece_tokens_of_many_byte_characters() -> None:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁It", "▁is", ".", "É", "?"]
    tokenizer = LlamaTokenizer(vocab={token: id for id, token in enumerate(names)}, merges=[])
    pieces = token_pieces(tokenizer)
    written = ["▁It", "▁is", "<0xE6>", "<0xBC>", "<0xA2>", ".", "▁", "É", "<0xE0>", "<0xA4>", "<0x95>", "?", "</s>"]
    ids = [names.index(token) for token in written]
    assert pieces.text_of(ids)[0] == "It is漢. Éक?"
    # The bytes of 漢 are three tokens of one sentence; the space between the sentences is a token of neither.
    assert SpanFinder(Sentences(), pieces).spans(ids) == ((0, 6), (7, 12))


def test_settings_are_checked() -> None:
    for wrong in ({"max_words": 0}, {"longest": 3}):
        with pytest.raises(ValidationError):
            Sentences(**wrong)
