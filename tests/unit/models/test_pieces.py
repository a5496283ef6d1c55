from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Tokenizer,
)

from limbeck.errors import ConfigError
from limbeck.models.pieces import token_pieces
from limbeck.testing import byte_tokenizer
from reference import spans as reference

ASCII = [chr(code) for code in range(33, 127)]
WORDS = ["▁the", "▁cat", "at", "ca"]
MERGES = [("c", "a"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("a", "t"), ("▁", "c"), ("▁c", "at")]


def byte_level_merged(*decoding: decoders.Decoder) -> PreTrainedTokenizerBase:
    """Byte-level BPE with tokens across the bytes of characters: the ends of é and ü with a letter, half an emoji."""
    letter = {value: key for key, value in byte_tokenizer().get_vocab().items() if value < 256}
    pairs = [b"th", b"\xa9s", b"\xf0\x9f", b"\x98\x80", b" \xc3", b"\xe6\xbc", b"\n\n", b" t"]
    merges = [(letter[first], letter[second]) for first, second in pairs]
    vocabulary = [letter[byte] for byte in range(256)] + [first + second for first, second in merges]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(vocabulary)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *decoding])
    tokenizer.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def _bpe_vocabulary(*specials: str) -> dict[str, int]:
    parts = {part for pair in MERGES for part in (*pair, "".join(pair))}
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *ASCII, "é", "\n"]
    return {token: id for id, token in enumerate([*tokens, *sorted(parts - set(tokens))])}


def llama() -> PreTrainedTokenizerBase:
    return LlamaTokenizer(vocab=_bpe_vocabulary("<unk>", "<s>", "</s>"), merges=MERGES)


def gemma() -> PreTrainedTokenizerBase:
    return GemmaTokenizer(vocab=_bpe_vocabulary("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), merges=MERGES)


def t5() -> PreTrainedTokenizerBase:
    regular = [(token, -3.0) for token in ["▁", *ASCII, "é", "漢", *WORDS]]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *regular], extra_ids=0)


MAKERS = {"bytes": byte_tokenizer, "byte-level": byte_level_merged, "llama": llama, "gemma": gemma, "t5": t5}


@cache
def made(name: str) -> PreTrainedTokenizerBase:
    return MAKERS[name]()


pieces_of = cache(lambda name: token_pieces(made(name)))

texts = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(["the", " cat", " ", "  ", "\n", "é", "és", "漢", "😀", "▁", "<s>", "<eos>", "12", "\t"])
    ).map("".join),
)


@pytest.mark.parametrize("name", MAKERS)
@given(text=texts)
def test_the_text_is_what_the_tokenizer_decodes_and_tokens_cover_its_words(name: str, text: str) -> None:
    tokenizer, pieces = made(name), pieces_of(name)
    ids = tokenizer.encode(text)
    found, intervals = pieces.text_of(ids)
    if not (name == "t5" and text[:1].isspace()):
        assert found == tokenizer.decode(ids, skip_special_tokens=True)
    covered = {place for start, end in intervals for place in range(start, end)}
    assert covered >= {place for place, character in enumerate(found) if not character.isspace()}
    assert list(intervals) == sorted(intervals)
    assert all(start < end or not pieces.pieces[id].strip() for id, (start, end) in zip(ids, intervals, strict=True))


@pytest.mark.parametrize("name", ["bytes", "byte-level"])
@given(data=st.data())
def test_generated_ids_need_not_be_an_encoding(name: str, data: st.DataObject) -> None:
    tokenizer, pieces = made(name), pieces_of(name)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    found, intervals = pieces.text_of(ids)
    assert found == tokenizer.decode(ids, skip_special_tokens=True)
    assert (found, list(intervals)) == reference.text_of([pieces.pieces[id] for id in ids])


def test_byte_level_letters_are_bytes() -> None:
    pieces = pieces_of("byte-level")
    assert pieces.pieces[:256] == tuple(bytes([byte]) for byte in range(256))
    assert pieces.pieces[256:] == (
        b"th",
        b"\xa9s",
        b"\xf0\x9f",
        b"\x98\x80",
        b" \xc3",
        b"\xe6\xbc",
        b"\n\n",
        b" t",
        b"",
    )
    ids = made("byte-level").encode("th és😀")
    assert ids == [256, 260, 257, 258, 259]
    assert pieces.text_of(ids) == ("th és😀", ((0, 2), (3, 4), (3, 5), (5, 6), (5, 6)))


def test_llama_drops_the_first_space_and_falls_back_to_bytes() -> None:
    tokenizer, pieces = made("llama"), pieces_of("llama")
    ids = tokenizer.encode("the 漢é", add_special_tokens=False)
    names = tokenizer.convert_ids_to_tokens(ids)
    assert names == ["▁the", "▁", "<0xE6>", "<0xBC>", "<0xA2>", "é"]
    assert pieces.text_of(ids) == ("the 漢é", ((0, 3), (3, 4), (4, 5), (4, 5), (4, 5), (5, 6)))
    assert pieces.text_of([1, *ids, 2])[0] == "the 漢é"


def test_gemma_keeps_the_first_space() -> None:
    tokenizer = made("gemma")
    ids = tokenizer.convert_tokens_to_ids(["▁the", "▁cat"])
    assert pieces_of("gemma").text_of(ids) == (" the cat", ((1, 4), (5, 8)))
    assert pieces_of("llama").text_of(made("llama").convert_tokens_to_ids(["▁the", "▁cat"]))[0] == "the cat"


@pytest.mark.parametrize("name", MAKERS)
def test_special_tokens_stand_for_no_text(name: str) -> None:
    tokenizer, pieces = made(name), pieces_of(name)
    assert {*tokenizer.all_special_ids} == pieces.special
    assert pieces.text_of([tokenizer.eos_token_id]) == ("", ((0, 0),))


def test_a_word_that_serves_as_padding_is_text_and_one_that_ends_a_text_is_not() -> None:
    tokenizer = byte_tokenizer(pad=False)
    tokenizer.pad_token, tokenizer.eos_token = "!", "~"
    pieces = token_pieces(tokenizer)
    ids = list(b"Hi!~")
    assert pieces.text_of(ids)[0] == "Hi!"
    assert [pieces.is_special(id) for id in ids] == [False, False, False, True]


def test_a_byte_level_token_with_other_letters_stands_for_itself() -> None:
    letters = {letter: id for letter, id in made("bytes").get_vocab().items() if id < 256}
    tokenizer = Tokenizer(models.BPE(vocab=letters | {"aé漢": 256}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert token_pieces(fast).text_of([256])[0] == fast.decode([256]) == "aé漢"


def test_other_added_tokens_stand_for_what_they_say() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<tool>", "é!", "a b", "▁x", AddedToken("<think>", special=False)])
    tokenizer.add_tokens([AddedToken("<mark>", special=True)], special_tokens=True)
    pieces = token_pieces(tokenizer)
    assert [piece.decode() for piece in pieces.pieces[261:]] == ["<tool>", "é!", "a b", "▁x", "<think>", ""]
    assert pieces.special == frozenset([*range(256, 261), 266])


def test_added_tokens_of_sentencepiece_may_be_spaces() -> None:
    tokenizer = gemma()
    tokenizer.add_tokens(["▁▁", "\n\n"])
    ids = tokenizer.convert_tokens_to_ids(["▁the", "▁▁", "\n\n", "▁cat"])
    found, intervals = token_pieces(tokenizer).text_of(ids)
    assert found == tokenizer.decode(ids) == " the  \n\n cat"
    assert intervals == ((1, 4), (4, 6), (6, 8), (9, 12))


def test_ids_without_a_token_stand_for_no_text() -> None:
    vocabulary = {token: id * 2 for token, id in _bpe_vocabulary("<unk>", "<s>", "</s>").items()}
    pieces = token_pieces(LlamaTokenizer(vocab=vocabulary, merges=MERGES))
    assert pieces.text_of([7]) == ("", ((0, 0),))
    assert pieces.is_special(7)
    assert len(pieces.pieces) == max(vocabulary.values()) + 1


def test_wordpiece_is_refused() -> None:
    vocabulary = {token: id for id, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##re"])}
    with pytest.raises(ConfigError, match=r"BertTokenizer(.|\n)*byte-level BPE(.|\n)*without a span term"):
        token_pieces(BertTokenizer(vocab=vocabulary))


def test_a_tokenizer_without_a_decoder_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ConfigError, match="neither byte-level nor SentencePiece"):
        token_pieces(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))


def test_a_tokenizer_that_decodes_another_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"its tokens give .The 2nd.* where it decodes .THE 2nd"):
        token_pieces(byte_level_merged(decoders.Replace("The", "THE")))


class InPython(PreTrainedTokenizer):
    """A tokenizer without the `tokenizers` library: one token a character, or a byte where there is none for it."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        super().__init__(unk_token="<unk>", eos_token="</s>")

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def get_vocab(self) -> dict[str, int]:
        return {token: id for id, token in enumerate(self.tokens)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: object) -> list[str]:
        letters = text.replace(" ", "▁")
        known = set(self.tokens)
        return [
            part
            for letter in letters
            for part in ([letter] if letter in known else [f"<0x{byte:02X}>" for byte in letter.encode()])
        ]

    def _convert_token_to_id(self, token: str) -> int:
        return self.tokens.index(token) if token in self.tokens else 0

    def _convert_id_to_token(self, index: int) -> str:
        return self.tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        parts = [bytes([int(token[3:5], 16)]) if token.startswith("<0x") else token.encode() for token in tokens]
        return b"".join(parts).decode(errors="replace").replace("▁", " ").removeprefix(" ")


def test_tokenizers_in_python_are_known_by_their_tokens() -> None:
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = InPython(["<unk>", "</s>", *fallback, "▁", "▁the", *ASCII])
    pieces = token_pieces(tokenizer)
    assert pieces.drops_first_space
    assert pieces.text_of(tokenizer.encode("é a"))[0] == "é a"
    assert pieces.special == {0, 1}
    with pytest.raises(ConfigError, match="neither byte-level nor SentencePiece"):
        token_pieces(InPython(["<unk>", "</s>", *ASCII]))


class BytesInPython(InPython):
    def _tokenize(self, text: str, **_: object) -> list[str]:
        return made("bytes").tokenize(text)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return made("bytes").convert_tokens_to_string(tokens)


def test_byte_level_tokenizers_in_python_are_known_by_their_letters() -> None:
    letters = made("bytes").convert_ids_to_tokens(list(range(256)))
    pieces = token_pieces(BytesInPython(["<unk>", "</s>", *letters]))
    assert pieces.pieces == (b"", b"", *(bytes([byte]) for byte in range(256)))


PACKAGED = sorted(Path.home().glob(".cache/limbeck/smollm2-135m-instruct-*/tokenizer.json"))


@pytest.mark.skipif(not PACKAGED, reason="the packaged model is not on this machine")
def test_the_packaged_models_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED[0].parent, local_files_only=True)
    pieces = token_pieces(tokenizer)
    text = "<|im_start|>assistant\nThe café (北京) isn’t 1,234 m away 😀.\n\n\t- It's “fine”.  <|im_end|>\n"
    ids = tokenizer.encode(text)
    assert pieces.text_of(ids)[0] == tokenizer.decode(ids, skip_special_tokens=True)
    assert (pieces.text_of(ids)[0], list(pieces.text_of(ids)[1])) == reference.text_of([pieces.pieces[i] for i in ids])
    assert pieces.special == {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
